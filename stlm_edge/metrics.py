"""Exact image and pixel metrics: AUROC, AP, AUPRO, the F1 optimum and the false negative rate.

Scores are compared as they are, tied scores form one step, and a score counts as positive when `score >= threshold`.
All counts are integers. A metric that is undefined, for want of positives or negatives, is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stlm_edge.curves import Labels, ScoreCurve, Scores, area_up_to, check_numbers, pixel_pool, score_pool
from stlm_edge.errors import StlmError
from stlm_edge.imaging import Mask

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


def roc_auc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve; `labels` is not 0 for positives. Raises `StlmError` as `pixel_metrics` does."""
    return curve_auroc(image_curve(scores, labels))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Sum over falling thresholds of the recall step times the precision; not the trapezoid area."""
    return curve_average_precision(image_curve(scores, labels))


def best_f1(scores: Scores, labels: Labels) -> F1Optimum:
    """The F1-optimal threshold among the scores; NaN and no counts without a positive."""
    return curve_best_f1(image_curve(scores, labels))


def false_negative_rate(scores: Scores, labels: Labels, threshold: float) -> float:
    """FN / (TP + FN): the share of positives that score below `threshold` (paper, equation 9)."""
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise StlmError(f"found scores of shape {scores.shape} and labels of {labels.shape}, expected (N,) twice")
    check_numbers(scores)
    positive = scores[labels != 0]
    return float(np.count_nonzero(positive < threshold) / positive.size) if positive.size else math.nan


def aupro(maps: Sequence[Scores], masks: Sequence[Mask], *, fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region overlap curve up to `fpr_limit`, divided by it; arguments as for `pixel_metrics`."""
    return area_up_to(ScoreCurve.over([pixel_pool(maps, masks)]).pro(), fpr_limit)


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
    return measure_pixels(ScoreCurve.over([pixel_pool(maps, masks)]))


def image_curve(scores: Scores, labels: Labels) -> ScoreCurve:
    """The curve over whole pictures; `labels` is not 0 for positives."""
    return ScoreCurve.over([score_pool(scores, labels)])


def measure_pixels(curve: ScoreCurve) -> PixelMetrics:
    """All pixel metrics of a curve that is there already."""
    return PixelMetrics(
        auroc=curve_auroc(curve),
        ap=curve_average_precision(curve),
        aupro=area_up_to(curve.pro(), FPR_LIMIT),
        best_f1=curve_best_f1(curve),
    )


def curve_auroc(curve: ScoreCurve) -> float:
    """In whole numbers up to the last division: twice the negatives below each positive, plus the tied ones."""
    if not curve.is_defined:
        return math.nan
    twice_won = 2 * curve.negatives - curve.fp - curve.fp_above
    won = int(np.sum(np.diff(curve.tp, prepend=0) * twice_won))
    return won / (2 * curve.positives * curve.negatives)


def curve_average_precision(curve: ScoreCurve) -> float:
    """Sum of recall steps times precision; a threshold between two positives adds no recall."""
    if not curve.positives:
        return math.nan
    recall_steps = np.diff(curve.tp, prepend=0) / curve.positives
    return float(np.sum(recall_steps * (curve.tp / (curve.tp + curve.fp))))


def curve_best_f1(curve: ScoreCurve) -> F1Optimum:
    """Always at a positive's score: a lower threshold down to the next one adds nothing but false alarms."""
    if not curve.positives:
        return F1Optimum(math.nan, math.nan, 0, 0, 0)
    f1 = 2 * curve.tp / (curve.tp + curve.fp + curve.positives)
    best = int(np.argmax(f1))  # the first of equal ones has the highest threshold
    tp = int(curve.tp[best])
    return F1Optimum(
        float(curve.thresholds[best]), float(f1[best]), tp=tp, fp=int(curve.fp[best]), fn=curve.positives - tp
    )
