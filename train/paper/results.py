"""What the finished runs of a grid obtained, and how they came about, as their folders tell."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stlm_edge.errors import ConfigError, DataError
from stlm_edge.records import MAY_LACK, build, read_object
from stlm_edge.seal import unsealed
from stlm_edge.spec import Size
from train import record
from train.config import TrainConfig, from_record
from train.paper.data_sets import of_the_paper
from train.run_told import EVALUATION_NAME

RECORD_NAME = "grid.json"
"""In each run's folder: which cell of the grid it is."""

_REMEDIES = {
    EVALUATION_NAME: "delete this file, and stlm grid measures the run again",
    RECORD_NAME: "delete its folder, and stlm grid does the run again",
}


@dataclass(frozen=True)
class Best:
    """The best of the epochs after which the test pictures were measured; it was chosen by them.

    Attributes:
        epoch: counted from 1.
        every: after so many epochs they were measured.
        metrics: in 0 … 1; None where undefined.
    """

    epoch: int
    every: int
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Made:
    """How a run came about, as far as its `run.json` tells.

    Attributes:
        date: of its start, or of when it was last gone on with; ISO 8601, UTC.
        textures: the folder that was given; None for none.
        teacher_weights_from: see `train.record.write_record`.
        git: commit, and whether files differed from it.
    """

    device: str | None = field(default=None, metadata=MAY_LACK)
    date: str | None = field(default=None, metadata=MAY_LACK)
    textures: str | None = field(default=None, metadata=MAY_LACK)
    teacher_weights_from: str | None = field(default=None, metadata=MAY_LACK)
    versions: dict[str, str | None] = field(default_factory=dict, metadata=MAY_LACK)
    git: dict[str, Any] | None = field(default=None, metadata=MAY_LACK)

    @property
    def commit(self) -> str | None:
        """Of the toolkit, short; its version where there is none."""
        if self.git is None or "commit" not in self.git:
            version = self.versions.get("stlm-edge")
            return None if version is None else f"of version {version}"
        return str(self.git["commit"])[:10] + (" with changes" if self.git.get("changed") else "")


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        overall, tlm_only: its metrics with and without feature aggregation, in 0 … 1; None where undefined.
        best_on_test: None where the last epoch alone was measured.
        data: the name of the data set's folder.
        defective: how many test pictures were.
        metric_size: (height, width) of the figures over pixels; None: each picture's own.
        config, made: None of a run of a version that did not tell.
    """

    preset: str
    category: str
    seed: int
    overall: dict[str, float | None]
    tlm_only: dict[str, float | None]
    best_on_test: Best | None = field(default=None, metadata=MAY_LACK)
    data: str | None = field(default=None, metadata=MAY_LACK)
    defective: int | None = field(default=None, metadata=MAY_LACK)
    metric_size: Size | None = field(default=None, metadata=MAY_LACK)
    config: TrainConfig | None = field(default=None, metadata=MAY_LACK)
    made: Made | None = field(default=None, metadata=MAY_LACK)

    @property
    def is_of_the_paper(self) -> bool:
        """Whether the paper has figures of what it was run on."""
        return of_the_paper(self.data, self.category)

    def value(self, group: str, metric: str) -> float | None:
        """A metric in percent, or the epoch of the best. Args: group: overall, tlm_only or best."""
        if metric == "epochs":
            return None if self.best_on_test is None else float(self.best_on_test.epoch)
        best = {} if self.best_on_test is None else self.best_on_test.metrics
        found = {"overall": self.overall, "tlm_only": self.tlm_only, "best": best}[group].get(metric)
        return None if found is None else 100 * found


@dataclass(frozen=True)
class Obtained:
    """A mean over categories and seeds, in percent, or of epochs.

    Attributes:
        spread: standard deviation over the seeds that have all of `categories`; None for fewer than two.
        seeds: how many there are.
        categories: how many it is the mean of, `expected` how many the paper's is.
    """

    mean: float
    spread: float | None
    seeds: int
    categories: int
    expected: int


def read_records(folder: Path) -> list[FinishedRun]:
    """All finished runs below a grid's folder. Raises `DataError` if a file is damaged."""
    return [
        _finished(path)
        for path in sorted(folder.glob(f"*/*/*/{RECORD_NAME}"))
        if (path.parent / EVALUATION_NAME).is_file()
    ]


def _finished(path: Path) -> FinishedRun:
    cell, measured = read_json(path), read_json(path.parent / EVALUATION_NAME)
    try:
        run = {name: cell[name] for name in ("preset", "category", "seed")} | {"data": cell.get("data")}
        run |= {name: measured.get(name) for name in ("defective", "metric_size")}
        without, best = measured["tlm_only"], measured.get("best_on_test")
        run["overall"] = measured["overall"]
        run["tlm_only"] = {} if without is None else without["overall"]  # of a network without two streams
        run["best_on_test"] = best and {name: best[name] for name in ("epoch", "every", "metrics")}
    except (LookupError, TypeError):
        raise DataError(
            f"{path.parent}: {RECORD_NAME} or {EVALUATION_NAME} is not what stlm grid writes; delete the second, and "
            "stlm grid measures the run again"
        ) from None
    try:
        return dataclasses.replace(
            build(FinishedRun, run, error=DataError, remedy=_REMEDIES[EVALUATION_NAME]),
            config=from_record(cell["settings"]) if "settings" in cell else None,
            made=_made(path.parent / record.RECORD_NAME),
        )
    except (ConfigError, DataError) as error:
        raise DataError(f"{path.parent}: {error}") from None


def _made(path: Path) -> Made | None:
    remedy = "delete it, and the report does not say how the run came about"
    try:
        told = read_object(path, error=DataError, remedy=remedy)
    except FileNotFoundError:
        return None
    known = {entry.name for entry in dataclasses.fields(Made)}
    return build(Made, {name: told[name] for name in known & set(told)}, error=DataError, remedy=remedy)


def read_json(path: Path) -> dict[str, Any]:
    """Raises `DataError` if the file cannot be read, holds no object, or was damaged or edited."""
    remedy = _REMEDIES[path.name]
    try:
        return unsealed(read_object(path, error=DataError, remedy=remedy), path, error=DataError, remedy=remedy)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist any more; start again") from None


def average(
    records: Iterable[FinishedRun], *, preset: str, categories: Sequence[str], metric: str, group: str = "overall"
) -> Obtained | None:
    """Mean over those of `categories` that have been run; None if none has."""
    by_category: dict[str, dict[int, float]] = {}
    for run in records:
        value = run.value(group, metric)
        if run.preset == preset and run.category in categories and value is not None:
            by_category.setdefault(run.category, {})[run.seed] = value
    if not by_category:
        return None
    seeds = set().union(*by_category.values())
    complete = [seed for seed in sorted(seeds) if all(seed in runs for runs in by_category.values())]
    per_seed = [statistics.mean(runs[seed] for runs in by_category.values()) for seed in complete]
    return Obtained(
        mean=statistics.mean(statistics.mean(runs.values()) for runs in by_category.values()),
        spread=statistics.stdev(per_seed) if len(per_seed) > 1 else None,
        seeds=len(seeds),
        categories=len(by_category),
        expected=len(categories),
    )
