"""Exact image and pixel metrics: AUROC, AP, AUPRO, the F1 optimum and the false negative rate; and one meter of them.

Scores are compared as they are, tied scores form one step, and a score counts as positive when `score >= threshold`.
All counts are integers. A metric that is undefined, for want of positives or negatives, is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stlm_edge.curves import Labels, ScoreCurve, ScorePool, Scores, area_up_to, check_numbers, pixel_pool, score_pool
from stlm_edge.datasets import GOOD
from stlm_edge.errors import StlmError
from stlm_edge.imaging import Map, Mask, resize_map
from stlm_edge.inspection import Answer
from stlm_edge.spec import Size

FPR_LIMIT = 0.3

ALL = "all"
"""All kinds of defects together, where figures are told by kind."""

_POOLED_PIXELS = 2**24
"""Pixels whose scores are enlarged and sorted at once."""


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


def missed_share(curve: ScoreCurve, threshold: float) -> float:
    """FN / (TP + FN) at a threshold; NaN without a positive."""
    if not curve.positives:
        return math.nan
    reached = int(np.count_nonzero(curve.thresholds >= threshold))
    return 1 - (int(curve.tp[reached - 1]) if reached else 0) / curve.positives


@dataclass(frozen=True)
class Quality:
    """How good a subject is on labelled pictures, at their own resolution; NaN where undefined.

    Attributes:
        images: how many there are.
        image_auroc, image_ap, pixel_auroc, pixel_ap, aupro: in 0 … 1, see `PixelMetrics`.
        image_best_f1, pixel_best_f1: the F1-optimal thresholds of scores and of pixels.
    """

    images: int
    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_ap: float
    aupro: float
    image_best_f1: F1Optimum
    pixel_best_f1: F1Optimum


@dataclass(frozen=True, eq=False)
class QualityCurves:
    """What a quality is taken from.

    Attributes:
        image: over whole pictures.
        pixel: over their pixels; empty where the place of a defect is not known.
    """

    image: ScoreCurve
    pixel: ScoreCurve

    def quality(self) -> Quality:
        """The areas under the curves and their best points."""
        pixels = measure_pixels(self.pixel)
        return Quality(
            images=self.image.positives + self.image.negatives,
            image_auroc=curve_auroc(self.image),
            image_ap=curve_average_precision(self.image),
            pixel_auroc=pixels.auroc,
            pixel_ap=pixels.ap,
            aupro=pixels.aupro,
            image_best_f1=curve_best_f1(self.image),
            pixel_best_f1=pixels.best_f1,
        )


@dataclass(frozen=True, eq=False)
class _Truth:
    """What is true about one picture; its mask at one bit a pixel, None where it has none."""

    label: str
    size: Size
    bits: NDArray[np.uint8] | None

    @property
    def is_defective(self) -> bool:
        return self.label != GOOD

    def mask(self) -> Mask:
        if self.bits is None:
            return np.zeros(self.size, np.uint8)
        return np.unpackbits(self.bits, count=self.size[0] * self.size[1]).reshape(self.size)


class QualityMeter:
    """Takes in labelled pictures with the answers of one or several sides, and says how good each side is.

    Maps are kept as they are given, or at the picture's resolution where that is smaller, masks at one bit a pixel and
    once for all sides. They are enlarged, as the runtime enlarges them, only when a side is measured; then 4 bytes for
    each pixel of its pictures are needed besides.
    """

    def __init__(self, sides: int = 1) -> None:
        self._truths: list[_Truth] = []
        self._maps: list[list[Map]] = [[] for _ in range(sides)]
        self._scores: list[list[float]] = [[] for _ in range(sides)]

    @property
    def images(self) -> int:
        """How many pictures have been taken in."""
        return len(self._truths)

    @property
    def defective(self) -> int:
        """How many of them are."""
        return sum(truth.is_defective for truth in self._truths)

    def add(self, *answers: Answer | None, label: str, size: Size, mask: Mask | None) -> None:
        """Take in one picture.

        Args:
            answers: of each side; a side without one has no figures over all pictures.
            label: `good`, or the kind of defect.
            size: (height, width) of the picture.
            mask: of that size, not 0 on defects; None for a good picture, and for a defect whose place is not known.
        Raises:
            StlmError: if map, score or mask cannot be used.
        """
        if mask is not None and mask.shape != size:
            raise StlmError(f"found a mask of {mask.shape} for a picture of {size}, expected the same; draw it anew")
        for answer in answers:
            if answer is not None:
                check_numbers(answer.anomaly_map)
                check_numbers(np.array(answer.score))
        for maps, scores, answer in zip(self._maps, self._scores, answers, strict=True):
            if answer is not None:
                is_larger = answer.anomaly_map.size > size[0] * size[1]
                maps.append(resize_map(answer.anomaly_map, size) if is_larger else answer.anomaly_map)
                scores.append(answer.score)
        self._truths.append(_Truth(label, size, None if mask is None else np.packbits(mask)))

    def picture(self, index: int, side: int = 0) -> tuple[Answer, Mask]:
        """What a side that has answered all of them said to one picture, its map as large as the picture; and its mask.

        A picture without a mask has an empty one.
        """
        truth = self._truths[index]
        enlarged = resize_map(self._maps[side][index], truth.size)
        return Answer(enlarged, self._scores[side][index]), truth.mask()

    def quality(self, side: int = 0) -> Quality | None:
        """Of a side over all pictures, of which there is one at least; None if it did not answer all of them."""
        return None if len(self._scores[side]) < len(self._truths) else self.curves(side).quality()

    def curves(self, side: int = 0) -> QualityCurves:
        """Of a side that has answered all pictures, over all of them."""
        every = range(len(self._truths))
        return self._curves(side, every, self._pools(side, every) if self._is_placed(every) else ())

    def by_kind(self, side: int = 0) -> Iterator[tuple[str, QualityCurves]]:
        """The curves over the good pictures with each kind of defect, kinds in their order, and over `all`, the last.

        Raises:
            StlmError: if the side did not answer all pictures.
        """
        if len(self._scores[side]) < len(self._truths):
            raise StlmError(f"found {len(self._scores[side])} answers to {len(self._truths)} pictures, expected all")
        members: dict[str, list[int]] = {label: [] for label in sorted({truth.label for truth in self._truths})}
        for index, truth in enumerate(self._truths):
            members[truth.label].append(index)
        pools = {label: list(self._pools(side, indices)) for label, indices in members.items()}
        for kind in [label for label in members if label != GOOD] + [ALL]:
            chosen = [label for label in members if kind == ALL or label in (GOOD, kind)]
            yield (
                kind,
                self._curves(
                    side,
                    [index for label in chosen for index in members[label]],
                    [pool for label in chosen for pool in pools[label]],
                ),
            )

    def _curves(self, side: int, indices: Sequence[int], pools: Iterable[ScorePool]) -> QualityCurves:
        scores = np.array([self._scores[side][index] for index in indices], np.float64)
        defective = np.array([self._truths[index].is_defective for index in indices], bool)
        return QualityCurves(
            image=image_curve(scores, defective),
            pixel=ScoreCurve.over(pools if self._is_placed(indices) else ()),
        )

    def _is_placed(self, indices: Sequence[int]) -> bool:
        """Whether there are defects and it is known of all where they are."""
        defective = [self._truths[index] for index in indices if self._truths[index].is_defective]
        return bool(defective) and all(truth.bits is not None for truth in defective)

    def _pools(self, side: int, indices: Sequence[int]) -> Iterator[ScorePool]:
        """The sorted pixels of some pictures, some pictures at a time."""
        maps: list[Map] = []
        masks: list[Mask] = []
        pixels = 0
        for index in indices:
            truth = self._truths[index]
            maps.append(resize_map(self._maps[side][index], truth.size))
            masks.append(truth.mask())
            pixels += maps[-1].size
            if pixels >= _POOLED_PIXELS:
                yield pixel_pool(maps, masks)
                maps, masks, pixels = [], [], 0
        if maps:
            yield pixel_pool(maps, masks)
