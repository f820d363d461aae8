"""A threshold from good pictures that nothing was trained on, for which no defect is needed, or from labelled ones."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import DataError, counted
from stlm_edge.metrics import best_f1
from stlm_edge.spec import ModelSpec, Threshold

logger = logging.getLogger(__name__)

Method = Literal["quantile", "f1"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdicts:
    """What a threshold makes of pictures.

    Attributes:
        false_alarms: good pictures at or above it.
        missed: defective ones below it.
    """

    false_alarms: int
    missed: int


@dataclass(frozen=True)
class ThresholdChange:
    """A threshold that was chosen again, the one in whose place it stands, and what either makes of the pictures.

    Attributes:
        before, verdicts_before: None if there was no threshold.
        good, defective: how many pictures it was chosen from.
    """

    before: Threshold | None
    after: Threshold
    good: int
    defective: int
    verdicts_before: Verdicts | None
    verdicts_after: Verdicts

    def lines(self) -> Iterator[str]:
        """For people."""
        chosen = f"{self.after.value:.6g} ({self.after.method} on {self.after.measured_on})"
        if self.before is None or self.verdicts_before is None:
            yield f"threshold {chosen}, the first one"
            false_alarms, missed = "", ""
        else:
            replaced = f"{self.before.value:.6g} ({self.before.method} on {self.before.measured_on})"
            yield f"threshold {replaced} -> {chosen}, moved by {self.after.value - self.before.value:+.3g}"
            false_alarms = f"{self.verdicts_before.false_alarms} before, "
            missed = f"{self.verdicts_before.missed} before, "
        now = self.verdicts_after
        yield f"false alarms on these {self.good} good pictures: {false_alarms}{now.false_alarms} now"
        if self.defective:
            yield f"missed of these {self.defective} defective pictures: {missed}{now.missed} now"
        if self.after.method == "quantile":
            yield promise(self.after)


def threshold_change(
    before: Threshold | None, after: Threshold, *, scores: Sequence[float], defective: Sequence[bool]
) -> ThresholdChange:
    """What the pictures that `after` was chosen from come to with either threshold."""
    values, is_defective = np.array(scores, np.float64), np.array(defective, bool)
    return ThresholdChange(
        before=before,
        after=after,
        good=int(np.count_nonzero(~is_defective)),
        defective=int(np.count_nonzero(is_defective)),
        verdicts_before=None if before is None else _verdicts(values, is_defective, before),
        verdicts_after=_verdicts(values, is_defective, after),
    )


def promise(threshold: Threshold) -> str:
    """What a threshold by `quantile` lets expect, for people."""
    assert threshold.false_alarm_rate is not None and threshold.false_alarm_interval is not None
    low, high = threshold.false_alarm_interval
    return (
        f"expected false-alarm rate on new pictures: {100 * threshold.false_alarm_rate:.3g} %, with "
        f"{100 * CONFIDENCE:.0f} % confidence {100 * low:.2g} to {100 * high:.3g} %"
    )


def good_quantile(scores: Sequence[float], *, false_alarm_rate: float) -> Threshold:
    """The lowest threshold that good pictures reach with at most the wanted probability.

    If held-out and future good pictures come from the same line, the next one scores above the j-th highest of n
    with probability j / (n + 1), whatever the distribution. n pictures cannot promise less than 1 / (n + 1); where
    that is more than wanted the threshold stands above all of them, and a warning says so.

    Args:
        scores: image scores of the held-out good pictures.
        false_alarm_rate: wanted share of good pictures at or above the threshold.
    Raises:
        DataError: if there is no score.
    """
    if not scores:
        raise DataError("found no good picture to choose a threshold with, expected at least one; add or hold out more")
    count = len(scores)
    allowed = math.floor(false_alarm_rate * (count + 1))
    if allowed < 1:
        needed = math.ceil(1 / false_alarm_rate) - 1
        logger.warning(
            "%s cannot promise a false-alarm rate of %.3g, only %.3g; it takes %d",
            counted(count, "good picture"),
            false_alarm_rate,
            1 / (count + 1),
            needed,
        )
        allowed = 1
    reached = np.float32(sorted(scores)[-allowed])
    return Threshold(
        value=float(np.nextafter(reached, np.float32(np.inf))),
        method="quantile",
        images=count,
        false_alarm_rate=allowed / (count + 1),
        false_alarm_interval=false_alarm_interval(allowed, count, confidence=CONFIDENCE),
    )


def f1_optimal(scores: Sequence[float], defective: Sequence[bool]) -> Threshold:
    """The threshold with the highest F1 on labelled pictures.

    It stands halfway between the lowest score that it calls anomalous and the next lower one: that changes no verdict
    on these pictures, and the rounding of another backend flips none.

    Raises:
        DataError: if defective or good pictures are missing.
    """
    labels = np.array(defective, bool)
    if not labels.any() or labels.all():
        raise DataError(
            f"found {np.count_nonzero(labels)} defective and {np.count_nonzero(~labels)} good test pictures, expected "
            "both for an F1-optimal threshold; add them, or choose from good pictures alone by the other --method"
        )
    values = np.array(scores, np.float64)
    reached = best_f1(values, labels).threshold
    below = values[values < reached]
    value = (reached + below.max()) / 2 if below.size else reached
    return Threshold(value=float(value), method="f1", images=len(values))


def with_normal_scores(spec: ModelSpec, scores: Sequence[float]) -> ModelSpec:
    """The specification with the range, the deciles and the number of the scores of held-out good pictures.

    A decile is one of the scores, the lowest that is at least as high as its share of them, so that whoever compares
    other scores with it need not know how it was interpolated.

    Args:
        scores: at least one.
    """
    ranked = sorted(scores)
    ranks = [max(1, math.ceil(tenths * len(ranked) / 10)) for tenths in range(11)]
    return dataclasses.replace(
        spec,
        normal_score_range=(ranked[0], ranked[-1]),
        normal_score_deciles=tuple(ranked[rank - 1] for rank in ranks),
        normal_score_images=len(scores),
    )


def false_alarm_interval(allowed: int, count: int, *, confidence: float) -> tuple[float, float]:
    """Between which rates the true one lies when the threshold is just above the `allowed`-th highest of `count`.

    The share of the distribution above that order statistic is Beta(j, n + 1 - j) distributed, whatever the
    distribution (Wilks 1941); the interval leaves out (1 - confidence) / 2 on either side.

    Args:
        allowed: j, 1 to `count`.
        count: n, held-out good pictures.
    """
    tail = (1 - confidence) / 2
    return _beta_quantile(tail, allowed, count), _beta_quantile(1 - tail, allowed, count)


def _verdicts(scores: NDArray[np.float64], defective: NDArray[np.bool_], threshold: Threshold) -> Verdicts:
    anomalous = scores >= threshold.value
    return Verdicts(
        false_alarms=int(np.count_nonzero(anomalous & ~defective)),
        missed=int(np.count_nonzero(~anomalous & defective)),
    )


def _beta_quantile(probability: float, successes: int, trials: int) -> float:
    """The rate at which at least `successes` of `trials` happen with `probability`: Beta(j, n + 1 - j)'s quantile."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        if _at_least(successes, trials, rate=middle) < probability:
            low = middle
        else:
            high = middle
    return middle


def _at_least(successes: int, trials: int, *, rate: float) -> float:
    """P(Binomial(trials, rate) >= successes), 0 < rate < 1, summed over the shorter of both tails."""
    upper = trials - successes + 1 <= successes
    counts = range(successes, trials + 1) if upper else range(successes)
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    total = math.fsum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * log_rate
            + (trials - count) * log_rest
        )
        for count in counts
    )
    return total if upper else 1 - total
