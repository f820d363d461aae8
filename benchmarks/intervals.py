"""Metrics with 95 % intervals over parts, for any maps, masks and scores.

Draws are those of `stlm_edge.resampling`; the figures themselves are the quality meter's and exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cells import AREAS
from stlm_edge.datasets import GOOD
from stlm_edge.datasets.parts import read_groups
from stlm_edge.metrics import ALL, QualityMeter
from stlm_edge.resampling import Histograms, Judged, Values, draw_weights


@dataclass(frozen=True)
class Resampled:
    """Figures over some pictures by the names of `AREAS`, and the same for each draw, (R,); NaN where undefined."""

    exact: dict[str, float]
    draws: dict[str, Values]


def mean_of(runs: Sequence[Resampled]) -> Resampled:
    """Of several runs on the same pictures with the same draws: mean figures, and the same means in each draw."""
    names = runs[0].exact
    exact = {name: float(np.mean([run.exact[name] for run in runs])) for name in names}
    return Resampled(exact, {name: np.mean([run.draws[name] for run in runs], axis=0) for name in names})


def parts_of(paths: Sequence[Path], *, root: Path, tiles: Path | None) -> list[str]:
    """The part of each picture, by a CSV with the columns file and tile, see `read_groups`; without one its own.

    Raises `DataError` if the file cannot be read, or lacks a column or a picture.
    """
    if tiles is None:
        return [path.relative_to(root).as_posix() for path in paths]
    return list(map(str, read_groups(tiles, paths, folders=[root]).numbers))


def resample(pictures: Sequence[Judged], *, resamples: int = 1000, seed: int = 0) -> dict[str, Resampled]:
    """All figures for the good pictures with each kind of defect, and with all of them (`all`).

    The draws depend on seed, kinds and parts alone, so the difference of two methods has an interval of its own.
    Raises `StlmError` as `QualityMeter` does.
    """
    meter = QualityMeter()
    for picture in pictures:
        size = (picture.mask.shape[0], picture.mask.shape[1])
        meter.add(picture.answer, label=picture.kind, size=size, mask=picture.mask)
    kinds, parts = [picture.kind for picture in pictures], [picture.part for picture in pictures]
    weights, histograms = draw_weights(kinds, parts, resamples=resamples, seed=seed), Histograms(pictures)
    found = {}
    for name, curves in meter.by_kind():
        quality, chosen = curves.quality(), [name == ALL or picture.kind in (GOOD, name) for picture in pictures]
        exact = {metric: float(getattr(quality, metric)) for metric in AREAS}
        found[name] = Resampled(exact, histograms.figures(weights * np.array(chosen)))
    return found
