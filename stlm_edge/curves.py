"""Labelled scores, sorted once, and the curves that all metrics are areas and points of.

Only the positives' scores are thresholds worth looking at: between two of them the negatives alone move, along a line
of constant recall and overlap. So the many negatives are sorted as bare numbers, without carrying an order along, and
the few positives ask how many of them stand above. That is exact, ties included, and several times as fast as one
sort of everything with its labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import StlmError
from stlm_edge.imaging import Mask

Scores = NDArray[np.floating[Any]]
Labels = NDArray[Any]
Counts = NDArray[np.int64]
Line = NDArray[np.float64]
"""(P, 2), x and y of the points of a curve from its start to its end."""


@dataclass(frozen=True)
class ScorePool:
    """Scores of pictures or pixels, divided by what is true about them.

    Attributes:
        negatives: ascending.
        positives: in the order of `shares`.
        shares: of each positive, 1 / (pixels of its region); 1 for whole pictures.
        regions: how many regions the positives form.
    """

    negatives: Scores
    positives: Scores
    shares: NDArray[np.float64]
    regions: int


def score_pool(scores: Scores, labels: Labels) -> ScorePool:
    """Divide scores by their labels, not 0 for positives.

    Raises:
        StlmError: if a score is NaN, or the shapes are not both (N,).
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise StlmError(f"found scores of shape {scores.shape} and labels of {labels.shape}, expected (N,) twice")
    check_numbers(scores)
    positive = labels != 0
    count = int(np.count_nonzero(positive))
    return ScorePool(np.sort(scores[~positive]), scores[positive], np.ones(count), count)


def pixel_pool(maps: Sequence[Scores], masks: Sequence[Mask]) -> ScorePool:
    """Divide the pixels of several pictures; regions are the 8-connected components of each mask.

    Args:
        maps: (H, W) scores of each picture, on any scale; sizes may differ.
        masks: (H, W) of the same sizes, not 0 on defects.
    Raises:
        StlmError: if a score is NaN, or shapes or numbers of maps and masks differ.
    """
    if len(maps) != len(masks):
        raise StlmError(f"found {len(maps)} maps and {len(masks)} masks, expected one mask for each map")
    negatives, positives, shares = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)], [np.zeros(0)]
    regions = 0
    for index, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        if scores.shape != mask.shape:
            raise StlmError(f"map {index} is {scores.shape}, its mask {mask.shape}, expected the same; resize the map")
        check_numbers(scores)
        if not mask.any():
            negatives.append(scores.ravel())
            continue
        count, labels = cv2.connectedComponents(np.asarray(mask != 0, np.uint8), connectivity=8)
        positive = labels > 0
        region_of = labels[positive]
        negatives.append(scores[~positive])
        positives.append(scores[positive])
        shares.append(1 / np.bincount(region_of, minlength=count).clip(1)[region_of])
        regions += count - 1
    pooled = np.concatenate(negatives)
    pooled.sort()
    return ScorePool(pooled, np.concatenate(positives), np.concatenate(shares), regions)


@dataclass(frozen=True)
class ScoreCurve:
    """Counts at each distinct score of a positive, from the highest down.

    Attributes:
        thresholds: the distinct scores.
        tp: positives at or above each.
        fp: negatives at or above each.
        fp_above: negatives above it; the difference to `fp` are the tied ones.
        overlap: mean over all regions of the share of the region's pixels at or above it.
        positives, negatives: how many there are.
    """

    thresholds: Scores
    tp: Counts
    fp: Counts
    fp_above: Counts
    overlap: NDArray[np.float64]
    positives: int
    negatives: int

    @classmethod
    def over(cls, pools: Iterable[ScorePool]) -> ScoreCurve:
        """The curve over several pools together; their negatives stay where they are."""
        pools = list(pools)
        scores = np.concatenate([pool.positives for pool in pools]) if pools else np.zeros(0)
        shares = np.concatenate([pool.shares for pool in pools]) if pools else np.zeros(0)
        order = np.argsort(scores)[::-1]
        ordered = scores[order]
        last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), ordered.size - 1)[: ordered.size].astype(np.int64)
        rising = ordered[last][::-1]
        fp, fp_above = np.zeros((2, last.size), np.int64)
        for pool in pools:
            fp += pool.negatives.size - np.searchsorted(pool.negatives, rising, side="left")[::-1]
            fp_above += pool.negatives.size - np.searchsorted(pool.negatives, rising, side="right")[::-1]
        regions = sum(pool.regions for pool in pools)
        return cls(
            thresholds=ordered[last],
            tp=last + 1,
            fp=fp,
            fp_above=fp_above,
            overlap=np.cumsum(shares[order])[last] / max(regions, 1),
            positives=int(ordered.size),
            negatives=sum(pool.negatives.size for pool in pools),
        )

    @property
    def is_defined(self) -> bool:
        """Whether there are positives and negatives."""
        return bool(self.positives and self.negatives)

    def roc(self) -> Line:
        """False-positive rate and true-positive rate, from (0, 0) to (1, 1); empty if undefined."""
        return self._against_fpr(self.tp / max(self.positives, 1))

    def pro(self) -> Line:
        """False-positive rate and per-region overlap, from (0, 0) to (1, 1); empty if undefined."""
        return self._against_fpr(self.overlap)

    def precision_recall(self) -> Line:
        """Recall and precision at each threshold; empty without positives."""
        return np.column_stack([self.tp / max(self.positives, 1), self.tp / (self.tp + self.fp)])

    def _against_fpr(self, height: NDArray[np.float64]) -> Line:
        """Two points for each threshold, just above it and at it: between thresholds only the rate moves."""
        if not self.is_defined:
            return np.zeros((0, 2))
        before = np.concatenate(([0.0], height[:-1]))
        rate = np.column_stack([self.fp_above, self.fp]).ravel() / self.negatives
        points = np.column_stack([rate, np.column_stack([before, height]).ravel()])
        return np.concatenate([[(0.0, 0.0)], points, [(1.0, height[-1])]])


def area_up_to(line: Line, limit: float) -> float:
    """Area under a curve from 0 to `limit`, divided by it; NaN for an empty one.

    The curve may jump where x stands still, which `np.interp` at the limit would not tell apart, so it is cut by hand.
    """
    if not line.size:
        return math.nan
    x, y = line.T
    stop = int(np.count_nonzero(x <= limit))
    x_cut, y_cut = x[:stop], y[:stop]
    if stop < x.size:
        weight = (limit - x[stop - 1]) / (x[stop] - x[stop - 1])
        x_cut, y_cut = np.append(x_cut, limit), np.append(y_cut, y[stop - 1] + weight * (y[stop] - y[stop - 1]))
    return float(np.sum(np.diff(x_cut) * (y_cut[1:] + y_cut[:-1]) / 2) / limit)


def thinned(line: Line, *, points: int) -> Line:
    """At most about `points` points of a monotonous curve, spread evenly along it; for drawing."""
    if len(line) <= points:
        return line
    length = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(line, axis=0)).sum(axis=1))))
    chosen = np.searchsorted(length, np.linspace(0, length[-1], points))
    kept = np.unique(np.concatenate(([0], chosen.clip(0, len(line) - 1), [len(line) - 1])))
    return np.take(line, kept, axis=0)


def check_numbers(scores: Scores) -> None:
    """Raises `StlmError` if a score is NaN."""
    undefined = np.count_nonzero(np.isnan(scores))
    if undefined:
        raise StlmError(f"{undefined} of {scores.size} scores are NaN, expected numbers; the model or engine is broken")
