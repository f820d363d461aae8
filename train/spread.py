"""What several runs of one recipe come to on the same test pictures: means, and how sure they are."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stlm_edge.errors import counted
from stlm_edge.files import write_text
from stlm_edge.metrics import ALL
from stlm_edge.seal import sealed
from stlm_edge.spec import Size
from train.evaluation import BestOnTest, Evaluation, Scores
from train.report import BEST_ROW, COLUMNS, evaluate_checkpoint, finite
from train.seeds import find_seeds, seed_folder

SPREAD_NAME = "evaluation-seeds.json"

CONFIDENCE = 0.95

FEWEST_FOR_INTERVAL = 3
"""Runs: of two, Student's t makes an interval of 18 times their distance, which tells nothing."""

FIGURES = tuple(entry.name for entry in dataclasses.fields(Scores) if entry.name != "images")


@dataclass(frozen=True)
class Spread:
    """One figure over several runs.

    Attributes:
        half_width: of the interval of the mean with 95 % confidence, mean - half_width to mean + half_width, by
            Student's t: what other seeds would give on the same pictures. NaN for a single run.
        deviation: standard deviation over the runs, NaN likewise.
        values: of each run.
    """

    mean: float
    half_width: float
    deviation: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """NaN throughout where a run has no such figure."""
        mean, count = sum(values) / len(values), len(values)
        if count == 1 or math.isnan(mean):
            return cls(mean, math.nan, math.nan, tuple(values))
        deviation = statistics.stdev(values)
        return cls(mean, student_quantile(count - 1) * deviation / math.sqrt(count), deviation, tuple(values))

    def text(self, *, factor: float = 1) -> str:
        """For people: with the interval, or of too few runs for one from lowest to highest."""
        if math.isnan(self.mean):
            return "-"
        mean = f"{factor * self.mean:.2f}"
        if len(self.values) == 1:
            return mean
        if len(self.values) < FEWEST_FOR_INTERVAL:
            return f"{mean} ({factor * min(self.values):.2f} to {factor * max(self.values):.2f})"
        return f"{mean} ± {factor * self.half_width:.2f}"


def student_quantile(freedom: int) -> float:
    """What Student's t with so many degrees of freedom, 1 or more, stays within by `CONFIDENCE`, up and down."""
    low, high = 0.0, 1e3
    while (middle := (low + high) / 2) not in (low, high):
        if _within(middle, freedom) < CONFIDENCE:
            low = middle
        else:
            high = middle
    return middle


def _within(t: float, freedom: int) -> float:
    """P(|T| <= t), by the finite sums for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    is_odd = freedom % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for step in range(2 + is_odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (step - 1) / step
    total = math.sin(angle) * total
    return 2 / math.pi * (angle + total) if is_odd else total


def evaluate_seeds(
    folder: Path,
    *,
    seeds: Sequence[int] | None,
    data: Path,
    category: str | None,
    device: str,
    output: Path,
    groups: Path | None = None,
    group_by: str = "",
    metric_size: Size | None = None,
) -> dict[int, Evaluation]:
    """Measure the runs of `train.seeds.fit_seeds`, each as `evaluate_checkpoint` does, into `output/seed-SEED`.

    `evaluation-seeds.json` in `output` comes last.

    Returns:
        By seed.
    Raises:
        StlmError: in the words of whatever is wrong with folder, pictures or a checkpoint.
    """
    checkpoints = find_seeds(folder, seeds)
    runs = {
        seed: evaluate_checkpoint(
            path,
            data=data,
            category=category,
            device=device,
            folder=seed_folder(output, seed),
            groups=groups,
            group_by=group_by,
            metric_size=metric_size,
        )
        for seed, path in checkpoints.items()
    }
    write_text(output / SPREAD_NAME, json.dumps(sealed(to_json(runs)), indent=2) + "\n")
    return runs


def to_json(runs: Mapping[int, Evaluation]) -> dict[str, Any]:
    """All of them, undefined figures as null.

    Args:
        runs: by seed, at least one, all on the same pictures.
    """
    every = list(runs.values())
    tlm_only, best = _tlm_only(every), _best_on_test(every)
    content = {
        "category": every[0].category,
        "seeds": list(runs),
        "interval": f"mean ± half_width, {100 * CONFIDENCE:g} % by Student's t over the seeds, on the same pictures",
        "metric_size": every[0].metric_size,
        "good": every[0].good,
        "defective": every[0].defective,
        "overall": _spreads([run.overall for run in every]),
        "kinds": {kind: _spreads([run.kinds[kind] for run in every]) for kind in every[0].kinds},
        "tlm_only": {"overall": _spreads(tlm_only)} if tlm_only else None,
        "best_on_test": {
            "epochs": [one.epoch for one in best],
            "overall": _spreads([one.metrics for one in best]),
        }
        if best
        else None,
        "threshold": Spread.of([run.threshold for run in every]),
        "missed": Spread.of([run.missed for run in every]),
        "false_alarms": Spread.of([run.false_alarms for run in every]),
        "peak_in_mask_share": Spread.of([_peak_share(run) for run in every]),
        "weights_sha256": [run.weights_sha256 for run in every],
    }
    plain: dict[str, Any] = finite(_plain(content))
    return plain


def seeds_table(runs: Mapping[int, Evaluation]) -> str:
    """The table of an evaluation with means and half widths of their intervals; below, what the thresholds make of it.

    Args:
        runs: see `to_json`.
    """
    every = list(runs.values())
    groups = [(kind, [run.kinds[kind] for run in every]) for kind in every[0].kinds]
    groups.append((ALL, [run.overall for run in every]))
    if tlm_only := _tlm_only(every):
        groups.append((f"{ALL}, TLM only", tlm_only))
    if best := _best_on_test(every):
        groups.append((BEST_ROW, [one.metrics for one in best]))
    width = max(len(name) for name, _ in groups) + 2
    has_interval = len(every) >= FEWEST_FOR_INTERVAL
    column = 16 if has_interval else 26
    lines = [f"{'':<{width}}" + "".join(f"{title:>{column}}" for title in COLUMNS.values())]
    for name, scores in groups:
        spreads = _spreads(scores)
        lines.append(f"{name:<{width}}" + "".join(f"{_percent(spreads[figure]):>{column}}" for figure in COLUMNS))
    lines.append(
        f"in %: mean over {counted(len(every), 'seed')}"
        + (
            f" ± half of its {100 * CONFIDENCE:g} % interval (Student's t), all on the same test pictures: it tells of "
            "other seeds, and not of other pictures"
            if has_interval
            else f" (lowest to highest), on the same test pictures; an interval takes {FEWEST_FOR_INTERVAL} seeds"
        )
    )
    if best:
        lines.append(
            f"best on test: epoch {', '.join(str(one.epoch) for one in best)}; CHOSEN ON THESE TEST PICTURES, so they "
            "flatter, and they chose neither weights nor thresholds"
        )
    for name, counts, total in (
        ("missed", [run.missed for run in every], every[0].defective),
        ("false alarms", [run.false_alarms for run in every], every[0].good),
    ):
        each = ", ".join(map(str, counts))
        lines.append(f"{name}: {Spread.of(counts).text()} of {total} (seed {', '.join(map(str, runs))}: {each})")
    found = Spread.of([_peak_share(run) for run in every])
    if not math.isnan(found.mean):
        lines.append(f"found for the defect itself: {_percent(found)} % of those found")
    return "\n".join(lines)


def _spreads(scores: Sequence[Scores]) -> dict[str, Spread]:
    """Of each of `FIGURES`, over the runs."""
    return {name: Spread.of([getattr(run, name) for run in scores]) for name in FIGURES}


def _tlm_only(every: Sequence[Evaluation]) -> list[Scores]:
    """Without feature aggregation; empty where a network has no two streams."""
    found = [run.tlm_only.overall for run in every if run.tlm_only is not None]
    return found if len(found) == len(every) else []


def _best_on_test(every: Sequence[Evaluation]) -> list[BestOnTest]:
    """Of each run; empty where one of them has none."""
    found = [run.best_on_test for run in every if run.best_on_test is not None]
    return found if len(found) == len(every) else []


def _peak_share(run: Evaluation) -> float:
    """Of the defects that are found and marked, the share whose peak is in the mask; NaN where there are none."""
    verdicts = run.verdicts[ALL]
    return verdicts.peak_in_mask / verdicts.found_marked if verdicts.found_marked else math.nan


def _percent(spread: Spread) -> str:
    return spread.text(factor=100)


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return dataclasses.asdict(value)
    return {name: _plain(entry) for name, entry in value.items()} if isinstance(value, dict) else value
