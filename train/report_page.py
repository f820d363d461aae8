"""A training as one page: curves, evaluation, threshold, worst cases, pictures, settings, where it came from."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from stlm_edge.datasets import GOOD, load_category
from stlm_edge.errors import CheckpointError, DataError, StlmError
from stlm_edge.files import require_place
from stlm_edge.html import COLOURS, add_legend, chart, data_uri, new_figure, write_page
from stlm_edge.imaging import read_image, read_pixels
from stlm_edge.names import escaped, from_cell, printable, unescaped
from stlm_edge.network.checkpoint import load
from stlm_edge.records import MAY_LACK, build, parse
from stlm_edge.thresholds.change import expectations
from train.fit import CHECKPOINT_NAME, STATE_NAME
from train.left_out import Division
from train.on_test import HISTORY_NAME, read_history
from train.run_told import FIGURES, RunTold, told_of

TEMPLATE = Path(__file__).parent / "training.html"

_SHEETS = {
    "evaluation-missed.png": "Missed defects",
    "evaluation.png": "Best, closest and worst of each kind",
    "evaluation-curves.png": "Curves",
}
"""What `stlm evaluate` draws → what the page calls it."""
_MOST_PIXELS = 6_000_000
"""Of a sheet in the page."""
_LOOKED_AT = 20
"""Good pictures whose sizes are told."""
_TERMS = {"plain": "accent", "denoising": "unclear", "segmentation": "reject", "held_out": "good"}
"""Of an epoch → the colour of its line."""
_REMEDY = "move it away; the page has no losses then"


@dataclass(frozen=True)
class _Epoch:
    epoch: int
    plain: float = field(default=math.nan, metadata=MAY_LACK)
    denoising: float = field(default=math.nan, metadata=MAY_LACK)
    segmentation: float = field(default=math.nan, metadata=MAY_LACK)
    held_out: float | None = field(default=None, metadata=MAY_LACK)


def write_report(path: Path, run: Path, *, data: Path | None = None) -> None:
    """Make a page of a finished run.

    Args:
        data: where its pictures are now, if they have moved.
    Raises:
        CheckpointError: if `run` is no finished run, or a file of it is damaged.
        DataError: if a table or history beside it is.
        OutputError: if the page cannot be written.
    """
    if not (run / CHECKPOINT_NAME).is_file() or (run / STATE_NAME).exists():
        advice = "give a folder of 'stlm train', of several seeds one of its folders seed-…"
        if (run / STATE_NAME).exists():
            advice = f"finish it: stlm resume {run}"
        raise CheckpointError(f"{run} holds no finished training, expected {CHECKPOINT_NAME} in it; {advice}")
    require_place(path)
    told = told_of(run, load(run / CHECKPOINT_NAME))
    spec, measured = told.checkpoint.spec, told.measured
    sheets = [] if measured is None else [(title, _sheet(run / name)) for name, title in _SHEETS.items()]
    threshold = spec.threshold
    write_page(
        path,
        TEMPLATE,
        title=f"Training: {escaped(spec.category)}",
        told=told,
        spec=spec,
        record=told.record,
        measured=measured,
        figures=FIGURES,
        losses=_losses(run / "history.jsonl"),
        on_test=_on_test(run / HISTORY_NAME),
        scores=None if measured is None else _scores(run / "evaluation-scores.csv", told),
        threshold=threshold,
        expected=[] if threshold is None else list(expectations(threshold, pseudo_found=None)),
        sheets=[(title, uri) for title, uri in sheets if uri],
        pictures=_pictures(told, data),
        settings=[(name, printable(str(value))) for name, value in told.checkpoint.config.items()],
        provenance=_provenance(told),
    )


def _losses(path: Path) -> Markup | None:
    """Of each epoch; None where none was trained."""
    rows = _history(path)
    if not rows:
        return None
    figure, axes = new_figure()
    epochs = [row.epoch for row in rows]
    for name, colour in _TERMS.items():
        values = [math.nan if (value := getattr(row, name)) is None else value for row in rows]
        if any(value and not math.isnan(value) for value in values):  # 0 is a term that is not
            mark = "o" if len(rows) == 1 else ""
            axes.plot(epochs, values, mark + "-", color=COLOURS[colour], label=name.replace("_", " "), linewidth=1.5)
    axes.set(xlabel="epoch", ylabel="mean of the term", ylim=(0, None))
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(axes)
    return chart(figure, name="losses", text="Terms of the loss by epoch")


def _history(path: Path) -> list[_Epoch]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); {_REMEDY}") from None
    known = {entry.name for entry in fields(_Epoch)}
    rows = []
    for number, line in enumerate(lines, start=1):
        what = f"line {number} of {path}"
        found = parse(line, what=what, error=DataError, remedy=_REMEDY)
        named = {name: value for name, value in found.items() if name in known}
        rows.append(build(_Epoch, named, what=what, error=DataError, remedy=_REMEDY))
    return rows


def _on_test(path: Path) -> Markup | None:
    """Figures of the epochs that were measured on the test pictures; None where none was."""
    rows = read_history(path)
    if not rows:
        return None
    figure, axes = new_figure()
    for name, colour in (("image_auroc", "accent"), ("pixel_auroc", "good"), ("aupro", "reject")):
        values = [100 * getattr(row.metrics, name) for row in rows]
        axes.plot([row.epoch for row in rows], values, "o-", color=COLOURS[colour], label=FIGURES[name], markersize=3)
    axes.set(xlabel="epoch", ylabel="%")
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(axes)
    return chart(figure, name="on-test", text="Figures on the test pictures by epoch")


def _scores(path: Path, told: RunTold) -> Markup | None:
    """How the scores of the test pictures are distributed; None where their table is gone."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(from_cell(row["label"]), float(row["score"])) for row in csv.DictReader(file)]
        if not all(math.isfinite(score) for _, score in rows):
            raise ValueError("a score is not finite")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error!r}), expected a score for each picture; run stlm evaluate again"
        ) from None
    if not rows:
        return None
    good = [score for label, score in rows if label == GOOD]
    defective = [score for label, score in rows if label != GOOD]
    figure, axes = new_figure(height=2.3)
    bins = np.linspace(min(0.0, *(score for _, score in rows)), max(score for _, score in rows) + 1e-6, 41)
    axes.hist(good, bins=bins.tolist(), color=COLOURS["good"], alpha=0.75, label=f"good ({len(good)})")
    axes.hist(defective, bins=bins.tolist(), color=COLOURS["reject"], alpha=0.6, label=f"defective ({len(defective)})")
    threshold = told.checkpoint.spec.threshold
    if threshold is not None:
        axes.axvline(threshold.value, color=COLOURS["ink"], linewidth=1.2, label=f"threshold {threshold.value:.4g}")
        if threshold.unclear is not None:
            text = f"unclear from {threshold.unclear:.4g}"
            axes.axvline(threshold.unclear, color=COLOURS["unclear"], linewidth=1.2, linestyle="--", label=text)
    axes.set(xlabel="score", ylabel="test pictures")
    add_legend(axes)
    return chart(figure, name="scores", text="Scores of good and of defective test pictures, and the threshold")


def _sheet(path: Path) -> str | None:
    """A contact sheet as it stands in the page, made smaller where it is very large; None where there is none."""
    if not path.is_file():
        return None
    image = read_image(path)
    scale = math.sqrt(_MOST_PIXELS / (image.shape[0] * image.shape[1]))
    if scale < 1:
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return data_uri(image)


def _pictures(told: RunTold, data: Path | None) -> list[tuple[str, str]]:
    """What is known of the pictures, for people."""
    record, parts = told.record, told.checkpoint.parts
    rows: list[tuple[str, str]] = []
    if record.data_name is not None:
        rows.append(("data", record.data_name))
    if record.pictures is not None:
        rows.append(("good pictures for training", str(record.pictures.count)))
    if parts is not None:
        rows.append(("parts that they show", f"{parts.count} ({printable(parts.how)})"))
        alike = Counter(Counter(parts.numbers).values())
        several = ", ".join(f"{many} with {count}" for count, many in sorted(alike.items()) if count > 1)
        rows.append(("parts with several pictures", several or "none"))
        rows.append(_held_out(told, parts.numbers))
    if record.textures is not None:
        rows.append(("textures", escaped(Path(unescaped(record.textures)).name)))
    if told.measured is not None:
        kinds = told.measured.kinds
        defects = ", ".join(f"{verdicts.defective} {printable(name)}" for name, verdicts in _kinds(told).items())
        defective = f"{told.measured.defective} defective" + (f" ({defects})" if defects and kinds else "")
        rows.append(("test pictures", f"{told.measured.good} good, {defective}"))
    rows.append(("sizes", _sizes(told, data)))
    return rows


def _kinds(told: RunTold) -> dict[str, Any]:
    assert told.measured is not None
    return {name: found for name, found in told.measured.verdicts.items() if name in told.measured.kinds}


def _held_out(told: RunTold, numbers: Sequence[int]) -> tuple[str, str]:
    from train.config import from_record  # the settings of older versions are brought up to date there

    try:
        division = Division.of(tuple(numbers), from_record(told.checkpoint.config))
    except StlmError:
        return "held out for the threshold", "unknown, the settings are of another version"
    return "held out for the threshold", f"{len(division.held)}"


def _sizes(told: RunTold, data: Path | None) -> str:
    """(height x width) of some good pictures, and the bytes of all."""
    where = data or (None if told.record.data is None else Path(unescaped(told.record.data)))
    category = None if told.record.category is None else unescaped(told.record.category)
    try:
        if where is None:
            raise DataError("nobody wrote where they are")
        paths = [sample.path for sample in load_category(where, category).train]
        bytes_of_all = sum(path.stat().st_size for path in paths)
        some = paths[:: max(1, math.ceil(len(paths) / _LOOKED_AT))]
        seen = Counter(read_pixels(path).shape[:2] for path in some)
    except (StlmError, OSError):
        return "unknown: the pictures are not where they were; give --data"
    told_sizes = ", ".join(f"{height} x {width} ({count})" for (height, width), count in seen.most_common(5))
    return f"{told_sizes} of {len(some)} looked at; {bytes_of_all / 1e6:.1f} MB of files"


def _provenance(told: RunTold) -> list[tuple[str, str]]:
    record = told.record
    rows = [
        ("date", record.date),
        ("command", record.command),
        ("device", record.device),
        ("machine", record.machine),
        ("processes", record.processes),
        ("weights of the teacher", record.teacher_weights_from),
        ("commit", None if record.git is None else record.git.commit + (" with changes" if record.git.changed else "")),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items() if version) or None),
        ("weights, SHA-256", told.checkpoint.spec.weights_sha256),
    ]
    return [(name, printable(str(value))) for name, value in rows if value is not None]
