"""Metrics with 95 % intervals over parts, for any maps, masks and scores.

Parts are drawn again with replacement, all pictures of a part together, as many of each kind as there are (a bootstrap
over groups). Sorting all pixels a thousand times would take hours, so each picture is summed up once in histograms that
all pictures share, and a draw is a weighted sum of those. Pixels of one bin count as tied, so intervals of pixel
metrics are off by some thousandths; the figures themselves are the quality meter's and exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import AREAS
from stlm_edge.datasets import GOOD
from stlm_edge.datasets.parts import read_groups
from stlm_edge.imaging import Mask
from stlm_edge.inspection import Answer
from stlm_edge.metrics import ALL, FPR_LIMIT, QualityMeter

Values = NDArray[np.float64]

BINS = 4096
EDGE_SAMPLE = 1_000_000
"""Scores of either kind that the bins' edges are chosen from."""


@dataclass(frozen=True)
class Judged:
    """What a method answers to one picture of a part, (H, W) as its mask, on a scale that all pictures share."""

    kind: str
    part: str
    answer: Answer
    mask: Mask


@dataclass(frozen=True)
class Resampled:
    """Figures over some pictures by the names of `AREAS`, and the same for each draw, (R,); NaN where undefined."""

    exact: dict[str, float]
    draws: dict[str, Values]


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
    weights, histograms, found = draw_weights(pictures, resamples=resamples, seed=seed), Histograms(pictures), {}
    for name, curves in meter.by_kind():
        quality, chosen = curves.quality(), [name == ALL or picture.kind in (GOOD, name) for picture in pictures]
        exact = {metric: float(getattr(quality, metric)) for metric in AREAS}
        found[name] = Resampled(exact, histograms.figures(weights * np.array(chosen)))
    return found


def draw_weights(pictures: Sequence[Judged], *, resamples: int, seed: int) -> Values:
    """(R, N): how often each picture is in each draw; all pictures of a part alike, as many parts of each kind."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(pictures)))
    for kind in sorted({picture.kind for picture in pictures}):
        members = [index for index, picture in enumerate(pictures) if picture.kind == kind]
        parts = sorted({pictures[index].part for index in members})
        counts = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=resamples)
        for index in members:
            weights[:, index] = counts[:, parts.index(pictures[index].part)]
    return weights


class Histograms:
    """Of each picture over bins of falling scores, (N, bins): its pixels, shares of its regions, and its own score."""

    def __init__(self, pictures: Sequence[Judged]) -> None:
        edges, levels = _edges(pictures), np.unique([picture.answer.score for picture in pictures])
        bins = edges.size + 1
        self._positives, self._negatives, self._overlap = np.zeros((3, len(pictures), bins))
        self._image_positives, self._image_negatives = np.zeros((2, len(pictures), levels.size))
        self._regions = np.zeros((len(pictures), 1))
        for index, picture in enumerate(pictures):
            bin_of = edges.size - np.searchsorted(edges, picture.answer.anomaly_map.ravel(), side="right")
            count, labels = cv2.connectedComponents((picture.mask != 0).astype(np.uint8), connectivity=8)
            region = labels.ravel()
            share = (region > 0) / np.bincount(region, minlength=count)[region]
            self._positives[index] = np.bincount(bin_of[region > 0], minlength=bins)
            self._negatives[index] = np.bincount(bin_of[region == 0], minlength=bins)
            self._overlap[index] = np.bincount(bin_of, weights=share, minlength=bins)
            self._regions[index] = count - 1
            own = self._image_negatives if picture.kind == GOOD else self._image_positives
            own[index, levels.size - 1 - np.searchsorted(levels, picture.answer.score)] = 1

    def figures(self, weights: Values) -> dict[str, Values]:
        """(R,) of each metric. Args: weights: (R, N), how often each picture counts."""
        positives, negatives = weights @ self._positives, weights @ self._negatives
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN of an undefined metric
            return {
                "image_auroc": _auroc(weights @ self._image_positives, weights @ self._image_negatives),
                "pixel_auroc": _auroc(positives, negatives),
                "aupro": _aupro((weights @ self._overlap) / (weights @ self._regions), negatives),
                "pixel_ap": _average_precision(positives, negatives),
            }


def _edges(pictures: Sequence[Judged]) -> Values:
    """Ascending: quantiles of the scores of defective pixels and of normal ones, so that no stretch is left coarse."""
    quantiles, edges = np.linspace(0, 1, BINS // 2 + 1)[1:-1], []
    for wanted in (True, False):
        scores = np.concatenate([picture.answer.anomaly_map[(picture.mask != 0) == wanted] for picture in pictures])
        if scores.size:
            edges.append(np.quantile(scores[:: max(1, scores.size // EDGE_SAMPLE)], quantiles))
    return np.unique(np.concatenate(edges)).astype(np.float64)


def _auroc(positives: Values, negatives: Values) -> Values:
    """Of each row of histograms, highest bin first: (R,)."""
    area = np.sum(negatives * (np.cumsum(positives, axis=1) - positives / 2), axis=1)
    return np.asarray(area / (positives.sum(axis=1) * negatives.sum(axis=1)))


def _average_precision(positives: Values, negatives: Values) -> Values:
    found = np.cumsum(positives, axis=1)
    precision = found / np.maximum(found + np.cumsum(negatives, axis=1), 1)  # they are whole numbers
    return np.asarray(np.sum(positives * precision, axis=1) / positives.sum(axis=1))


def _aupro(overlap: Values, negatives: Values) -> Values:
    """The trapezoid area under each row's curve up to `FPR_LIMIT`; the bin that crosses it counts in part."""
    steps = negatives / negatives.sum(axis=1, keepdims=True)
    left = FPR_LIMIT - (np.cumsum(steps, axis=1) - steps)
    part = np.where(steps > 0, np.clip(left / np.maximum(steps, np.finfo(float).tiny), 0, 1), 0)
    before = np.cumsum(overlap, axis=1) - overlap
    return np.asarray(np.sum(steps * part * (before + part * overlap / 2), axis=1) / FPR_LIMIT)
