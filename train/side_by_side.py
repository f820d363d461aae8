"""An old and a new network on the same test pictures: figures, verdicts that changed, and a sheet of those."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stlm_edge.datasets import GOOD, Sample
from stlm_edge.drawing import contact_sheet, draw_regions, false_colour
from stlm_edge.imaging import Image, Map, read_image, write_image
from stlm_edge.metrics import Quality, QualityMeter
from stlm_edge.names import escaped
from stlm_edge.network.checkpoint import Checkpoint
from stlm_edge.network.inference import InferencePath, choose_device
from train.evaluate import inspect
from train.report import COLUMNS, finite

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
ALL = "all"
MOST_OF_A_KIND = 8
"""Rows of the sheet for each change of a verdict."""

CHANGES = {
    "found_more": "found more",
    "found_less": "found less",
    "false_alarms_more": "false alarm more",
    "false_alarms_less": "false alarm less",
}
"""What a verdict that changed is, in the order of the sheet."""


@dataclass(frozen=True)
class Picture:
    """A test picture and its scores by both networks."""

    sample: Sample
    old: float
    new: float

    def change(self, thresholds: tuple[float, float]) -> str | None:
        """Which of `CHANGES` its verdict is; None for the same verdict."""
        before, after = self.old >= thresholds[0], self.new >= thresholds[1]
        if before == after:
            return None
        kind = "false_alarms" if self.sample.label == GOOD else "found"
        return f"{kind}_{'more' if after else 'less'}"


@dataclass(frozen=True)
class Row:
    """Both networks on some test pictures.

    Attributes:
        good, defective: how many there are.
        figures: of `FIGURES`, old and new; NaN where they are undefined.
        missed, false_alarms: old and new, each by its own threshold.
        changes: of `CHANGES` → the pictures, clearest first.
    """

    good: int
    defective: int
    figures: Mapping[str, tuple[float, float]]
    missed: tuple[int, int]
    false_alarms: tuple[int, int]
    changes: Mapping[str, tuple[Picture, ...]]

    @classmethod
    def of(cls, pictures: Sequence[Picture], meter: QualityMeter, thresholds: tuple[float, float]) -> Row:
        qualities = meter.curves(0).quality(), meter.curves(1).quality()
        good = [picture for picture in pictures if picture.sample.label == GOOD]
        bad = [picture for picture in pictures if picture.sample.label != GOOD]
        by_change: dict[str, list[Picture]] = {name: [] for name in CHANGES}
        for picture in sorted(pictures, key=lambda each: abs(each.new - each.old), reverse=True):
            if (change := picture.change(thresholds)) is not None:
                by_change[change].append(picture)
        old, new = thresholds
        return cls(
            good=len(good),
            defective=len(bad),
            figures={name: _both(qualities, name) for name in FIGURES},
            missed=(sum(each.old < old for each in bad), sum(each.new < new for each in bad)),
            false_alarms=(sum(each.old >= old for each in good), sum(each.new >= new for each in good)),
            changes={name: tuple(found) for name, found in by_change.items()},
        )


@dataclass(frozen=True)
class SideBySide:
    """Both networks on each set of test pictures, `all` last.

    Attributes:
        thresholds: old and new.
        weights_sha256: old and new.
    """

    thresholds: tuple[float, float]
    weights_sha256: tuple[str, str]
    rows: Mapping[str, Row]

    def markdown(self) -> str:
        """A table for each set; reads as well on a terminal."""
        return "\n\n".join("\n".join(_table(name, row)) for name, row in self.rows.items())

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: figures by set, pictures by their names."""
        sets = {
            name: {
                "good": row.good,
                "defective": row.defective,
                **{figure: {"old": old, "new": new} for figure, (old, new) in row.figures.items()},
                "missed": dict(zip(("old", "new"), row.missed, strict=True)),
                "false_alarms": dict(zip(("old", "new"), row.false_alarms, strict=True)),
                "changes": {
                    change: [{"picture": name_of(each.sample), "old": each.old, "new": each.new} for each in pictures]
                    for change, pictures in row.changes.items()
                },
            }
            for name, row in self.rows.items()
        }
        both = {"old": 0, "new": 1}
        found: dict[str, Any] = finite(
            {
                name: {"weights_sha256": self.weights_sha256[side], "threshold": self.thresholds[side]}
                for name, side in both.items()
            }
            | {"sets": sets}
        )
        return found


def compare(
    old: Checkpoint, new: Checkpoint, sets: Mapping[str, Sequence[Sample]], *, device: str
) -> tuple[SideBySide, tuple[InferencePath, InferencePath]]:
    """Inspect all pictures with both.

    Args:
        sets: name → pictures; sets without any are left out. None is in two.
    Returns:
        Also what inspected them, for the sheet.
    Raises:
        StlmError: if a network has no threshold, or a picture or mask cannot be used.
    """
    inspectors = tuple(InferencePath(each.network, each.spec).to(choose_device(device)) for each in (old, new))
    specs = old.spec, new.spec
    thresholds = specs[0].require_threshold().value, specs[1].require_threshold().value
    whose = {sample.path: name for name, samples in sets.items() for sample in samples}
    samples = [sample for each in sets.values() for sample in each]
    names = [name for name, each in sets.items() if each]
    names = [*names, ALL] if len(names) > 1 else names
    meters = {name: QualityMeter(sides=2) for name in names}
    pictures: dict[str, list[Picture]] = {name: [] for name in names}
    for before, after in zip(*(inspect(each, samples) for each in inspectors), strict=True):
        for name in {whose[before.sample.path], ALL} & set(names):
            meters[name].add(before.answer, after.answer, label=before.sample.label, size=before.size, mask=before.mask)
            pictures[name].append(Picture(before.sample, before.answer.score, after.answer.score))
    rows = {name: Row.of(pictures[name], meters[name], thresholds) for name in names}
    hashes = specs[0].weights_sha256, specs[1].weights_sha256
    return SideBySide(thresholds, hashes, rows), (inspectors[0], inspectors[1])


def write_sheet(path: Path, found: SideBySide, inspectors: tuple[InferencePath, InferencePath]) -> bool:
    """Draw pictures whose verdict changed, `MOST_OF_A_KIND` of each change; False where none did, and no sheet is left.

    Raises `OutputError`.
    """
    last = list(found.rows.values())[-1]
    chosen = [(name, each) for name in CHANGES for each in last.changes[name][:MOST_OF_A_KIND]]
    if not chosen:
        path.unlink(missing_ok=True)
        return False
    samples = [picture.sample for _, picture in chosen]
    rows: list[list[Image]] = []
    captions = []
    answers = zip(chosen, *(inspect(each, samples) for each in inspectors), strict=True)
    for (name, picture), before, after in answers:
        image = read_image(picture.sample.path)
        truth = before.mask
        marked = image if truth is None else draw_regions(image, truth.astype(np.float32), threshold=0.5)
        maps = before.anomaly_map, after.anomaly_map
        rows.append([image, marked, *map(_coloured, maps, found.thresholds)])
        scores = f"{picture.old:.3f} -> {picture.new:.3f}"
        captions.append("\n".join([CHANGES[name], picture.sample.label, escaped(picture.sample.path.stem), scores]))
    titles = ["picture", "truth", f"old map, {found.thresholds[0]:.3f}", f"new map, {found.thresholds[1]:.3f}"]
    write_image(path, contact_sheet(rows, titles=titles, captions=captions))
    return True


def name_of(sample: Sample) -> str:
    """`KIND/NAME`, escaped."""
    return escaped("/".join(sample.path.parts[-2:]))


def _coloured(anomaly_map: Map, threshold: float) -> Image:
    return false_colour(anomaly_map, threshold=threshold)


def _both(qualities: tuple[Quality, Quality], name: str) -> tuple[float, float]:
    old, new = (float(getattr(quality, name)) for quality in qualities)
    return old, new


def _table(name: str, row: Row) -> list[str]:
    title = f"{name}: {row.good} good, {row.defective} defective"
    lines = [
        f"| {title:<42} | {'old':>9} | {'new':>9} | {'change':>8} |",
        f"|{'-' * 44}|{'-' * 10}:|{'-' * 10}:|{'-' * 9}:|",
    ]
    for figure, (old, new) in row.figures.items():
        if not (math.isnan(old) or math.isnan(new)):
            change = round(100 * (new - old), 2) + 0.0  # no -0.00
            cells = f"{100 * old:9.2f} | {100 * new:9.2f} | {change:+8.2f}"
            lines.append(f"| {COLUMNS[figure] + ', %':<42} | {cells} |")
    for what, (old, new), of in (
        ("missed", row.missed, row.defective),
        ("false alarms", row.false_alarms, row.good),
    ):
        if of:
            lines.append(f"| {what + f', of {of}':<42} | {old:9d} | {new:9d} | {new - old:+8d} |")
    changed = ", ".join(f"{len(row.changes[change])} {title}" for change, title in CHANGES.items())
    return [*lines, "", f"verdicts that changed: {changed}"]
