"""Exact image and pixel metrics: AUROC, AP, AUPRO, the F1 optimum and the false negative rate.

Scores are compared as they are, tied scores form one step, and a score counts as positive when `score >= threshold`.
All counts are integers. A metric that is undefined, for want of positives or negatives, is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

FPR_LIMIT = 0.3


@dataclass(frozen=True)
class F1Optimum:
    """The threshold among the scores with the highest F1; of equally good ones the highest.

    Attributes:
        f1: 2 TP / (2 TP + FP + FN).
        tp, fp, fn: counts at `threshold`.
    """

    threshold: float
    f1: float
    tp: int
    fp: int
    fn: int

    @property
    def fnr(self) -> float:
        """FN / (TP + FN) at `threshold` (paper, equation 9)."""
        return self.fn / (self.tp + self.fn) if self.tp + self.fn else math.nan


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics over the pixels of all pictures together.

    Attributes:
        auroc: P(defect pixel scores higher than a normal one) + P(equal) / 2.
        ap: average precision, the sum of recall steps times precision.
        aupro: area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3.
        best_f1: the F1-optimal threshold.
    """

    auroc: float
    ap: float
    aupro: float
    best_f1: F1Optimum


@dataclass(frozen=True)
class _Curve:
    """Counts at each distinct score, from the highest score down.

    Attributes:
        order: of all scores, descending.
        last: where in `order` each distinct score ends.
        thresholds: the distinct scores.
        tp, fp: positives and negatives at or above each.
    """

    order: NDArray[np.intp]
    last: NDArray[np.intp]
    thresholds: Scores
    tp: Counts
    fp: Counts

    @property
    def positives(self) -> int:
        return int(self.tp[-1]) if self.tp.size else 0

    @property
    def negatives(self) -> int:
        return int(self.fp[-1]) if self.fp.size else 0

    def auroc(self) -> float:
        if not self.positives or not self.negatives:
            return math.nan
        tp = np.concatenate(([0], self.tp)) / self.positives
        steps = np.diff(self.fp, prepend=0) / self.negatives
        return float(np.sum(steps * (tp[1:] + tp[:-1]) / 2))

    def average_precision(self) -> float:
        if not self.positives:
            return math.nan
        recall_steps = np.diff(self.tp, prepend=0) / self.positives
        return float(np.sum(recall_steps * (self.tp / (self.tp + self.fp))))

    def best_f1(self) -> F1Optimum:
        if not self.positives:
            return F1Optimum(math.nan, math.nan, 0, 0, 0)
        f1 = 2 * self.tp / (self.tp + self.fp + self.positives)
        best = int(np.argmax(f1))  # the first of equal ones has the highest threshold
        tp = int(self.tp[best])
        return F1Optimum(
            float(self.thresholds[best]), float(f1[best]), tp=tp, fp=int(self.fp[best]), fn=self.positives - tp
        )

    def aupro(self, share: NDArray[np.float64], *, fpr_limit: float) -> float:
        """Args: share: of each score in the mean overlap of all regions, 0 for a normal pixel."""
        if not self.positives or not self.negatives:
            return math.nan
        overlap = np.concatenate(([0.0], np.cumsum(share[self.order])[self.last]))
        fpr = np.concatenate(([0.0], self.fp / self.negatives))
        inside = fpr <= fpr_limit
        # The overlap jumps where FPR stands still; np.interp would take any of those points, so cut by hand.
        stop = int(np.count_nonzero(inside))
        fpr_cut, overlap_cut = fpr[:stop], overlap[:stop]
        if stop < fpr.size:
            weight = (fpr_limit - fpr[stop - 1]) / (fpr[stop] - fpr[stop - 1])
            at_limit = overlap[stop - 1] + weight * (overlap[stop] - overlap[stop - 1])
            fpr_cut, overlap_cut = np.append(fpr_cut, fpr_limit), np.append(overlap_cut, at_limit)
        area = np.sum(np.diff(fpr_cut) * (overlap_cut[1:] + overlap_cut[:-1]) / 2)
        return float(area / fpr_limit)


def roc_auc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve; `labels` is not 0 for positives. Raises `StlmError` as `pixel_metrics` does."""
    return _curve(scores, labels).auroc()


def average_precision(scores: Scores, labels: Labels) -> float:
    """Sum over falling thresholds of the recall step times the precision; not the trapezoid area."""
    return _curve(scores, labels).average_precision()


def best_f1(scores: Scores, labels: Labels) -> F1Optimum:
    """The F1-optimal threshold among the scores; NaN and no counts without a positive."""
    return _curve(scores, labels).best_f1()


def false_negative_rate(scores: Scores, labels: Labels, threshold: float) -> float:
    """FN / (TP + FN): the share of positives that score below `threshold` (paper, equation 9)."""
    _check(scores, labels)
    positive = scores[labels != 0]
    return float(np.count_nonzero(positive < threshold) / positive.size) if positive.size else math.nan


def aupro(maps: Sequence[Scores], masks: Sequence[Mask], *, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region overlap curve up to `fpr_limit`, divided by it; arguments as for `pixel_metrics`."""
    scores, labels = _pool(maps, masks)
    return _curve(scores, labels).aupro(_region_shares(masks), fpr_limit=fpr_limit)


def pixel_metrics(maps: Sequence[Scores], masks: Sequence[Mask]) -> PixelMetrics:
    """All pixel metrics, from one sort.

    Regions are the 8-connected components of each mask. The overlap at a threshold is the mean, over all regions of
    all pictures, of the share of the region's pixels at or above it; the false-positive rate is over the normal
    pixels of all pictures.

    Args:
        maps: (H, W) scores of each picture, on any scale; sizes may differ.
        masks: (H, W) of the same sizes, not 0 on defects.
    Raises:
        StlmError: if a score is NaN, or shapes or numbers of maps and masks differ.
    """
    scores, labels = _pool(maps, masks)
    curve = _curve(scores, labels)
    return PixelMetrics(
        auroc=curve.auroc(),
        ap=curve.average_precision(),
        aupro=curve.aupro(_region_shares(masks), fpr_limit=FPR_LIMIT),
        best_f1=curve.best_f1(),
    )


def _curve(scores: Scores, labels: Labels) -> _Curve:
    _check(scores, labels)
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), ordered.size - 1)[: ordered.size]
    tp = np.cumsum(labels[order] != 0, dtype=np.int64)[last]
    return _Curve(order=order, last=last, thresholds=ordered[last], tp=tp, fp=last + 1 - tp)


def _check(scores: Scores, labels: Labels) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise StlmError(f"found scores of shape {scores.shape} and labels of {labels.shape}, expected (N,) twice")
    undefined = np.count_nonzero(np.isnan(scores))
    if undefined:
        raise StlmError(f"{undefined} of {scores.size} scores are NaN, expected numbers; the model or engine is broken")


def _pool(maps: Sequence[Scores], masks: Sequence[Mask]) -> tuple[Scores, NDArray[np.bool_]]:
    """The scores and labels of all pixels of all pictures."""
    if len(maps) != len(masks):
        raise StlmError(f"found {len(maps)} maps and {len(masks)} masks, expected one mask for each map")
    for index, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        if scores.shape != mask.shape:
            raise StlmError(f"map {index} is {scores.shape}, its mask {mask.shape}, expected the same; resize the map")
    if len(maps) == 0:
        return np.zeros(0), np.zeros(0, np.bool_)
    return np.concatenate([scores.ravel() for scores in maps]), np.concatenate([mask.ravel() != 0 for mask in masks])


def _region_shares(masks: Sequence[Mask]) -> NDArray[np.float64]:
    """For each pixel of all masks 1 / (pixels of its region * regions), 0 for normal ones; all add up to 1."""
    shares = []
    regions = 0
    for mask in masks:
        count, labels = cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8)
        share = 1 / np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
        share[0] = 0
        shares.append(share[labels.ravel()])
        regions += count - 1
    return np.concatenate(shares) / max(regions, 1) if shares else np.zeros(0)
