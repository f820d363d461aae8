"""What a threshold that was chosen again changes, and what it lets expect, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import counted
from stlm_edge.spec import Threshold
from stlm_edge.thresholds.choice import DRAWS, part_draws
from stlm_edge.thresholds.count import CONFIDENCE

MODEL_CONFIDENCE = 0.9
"""Of a modelled rate's interval: how often it holds the true rate, by simulation."""


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
        f1, f1_interval: of the verdicts now, with 95 % confidence; None without defective pictures.
        pseudo_found: of the pseudo anomalies that were drawn into the good pictures, how many are found now, and of how
            many; None where none were.
    """

    before: Threshold | None
    after: Threshold
    good: int
    defective: int
    verdicts_before: Verdicts | None
    verdicts_after: Verdicts
    f1: float | None = None
    f1_interval: tuple[float, float] | None = None
    pseudo_found: tuple[int, int] | None = None

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
        if self.f1 is not None and self.f1_interval is not None:
            low, high = self.f1_interval
            confidence = f"{100 * CONFIDENCE:.0f} % confidence {low:.3f} to {high:.3f}"
            yield f"F1 on these pictures: {self.f1:.3f}, {confidence}, which flatters as it was chosen on them"
        yield from expectations(self.after, pseudo_found=self.pseudo_found)


def threshold_change(
    before: Threshold | None,
    after: Threshold,
    *,
    scores: Sequence[float],
    defective: Sequence[bool],
    parts: Sequence[int],
    pseudo_found: tuple[int, int] | None = None,
) -> ThresholdChange:
    """What the pictures that `after` was chosen from come to with either threshold.

    Args:
        parts: the part of each picture, by numbers.
        pseudo_found: see `ThresholdChange`.
    """
    values, is_defective = np.array(scores, np.float64), np.array(defective, bool)
    f1, f1_interval = None, None
    if is_defective.any() and not is_defective.all():
        f1, *draws = _f1(values >= after.value, is_defective, np.array(parts))
        low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        f1_interval = float(low), float(high)
    return ThresholdChange(
        before=before,
        after=after,
        good=int(np.count_nonzero(~is_defective)),
        defective=int(np.count_nonzero(is_defective)),
        verdicts_before=None if before is None else _verdicts(values, is_defective, before),
        verdicts_after=_verdicts(values, is_defective, after),
        f1=f1,
        f1_interval=f1_interval,
        pseudo_found=pseudo_found,
    )


def expectations(threshold: Threshold, *, pseudo_found: tuple[int, int] | None) -> Iterator[str]:
    """What a threshold lets expect, a line each."""
    if threshold.value_interval is not None:
        low, high = threshold.value_interval
        from_what = counted(threshold.images, "picture")
        parts = "" if threshold.parts is None else f" of {counted(threshold.parts, 'part')}"
        others = "pictures" if threshold.parts is None else "parts"
        yield (
            f"from {from_what}{parts}: {100 * CONFIDENCE:.0f} % of thresholds from as many other {others} would lie "
            f"from {low:.4g} to {high:.4g}"
        )
    if threshold.method == "quantile" and threshold.false_alarm_rate is not None:
        yield promise(threshold)
    if threshold.unclear is not None and threshold.unclear_rate is not None:
        yield (
            f"unclear from {threshold.unclear:.6g} on: expected of {100 * threshold.unclear_rate:.3g} % of new good "
            "pictures, those above the threshold included"
        )
    if pseudo_found is not None:
        found, drawn = pseudo_found
        yield (
            f"pseudo anomalies found: {100 * found / drawn:.0f} % of {drawn}, drawn into good pictures as for the "
            "training; real defects may be harder"
        )


def promise(threshold: Threshold) -> str:
    """What a threshold by `quantile` lets expect, for people."""
    assert threshold.false_alarm_rate is not None
    rate = f"expected false-alarm rate on new pictures: {100 * threshold.false_alarm_rate:.3g} %"
    if threshold.modelled:
        rate += " by a model of how scores fall off"
    if threshold.false_alarm_interval is None:  # chosen before intervals were computed
        return rate
    low, high = threshold.false_alarm_interval
    confidence = MODEL_CONFIDENCE if threshold.modelled else CONFIDENCE
    return f"{rate}, with {100 * confidence:.0f} % confidence {100 * low:.2g} to {100 * high:.3g} %"


def _f1(anomalous: NDArray[np.bool_], defective: NDArray[np.bool_], parts: NDArray[np.int64]) -> list[float]:
    """Of all pictures, then of each draw of parts that has a defective or an anomalous one."""
    weights = np.vstack([np.ones((1, defective.size), np.int64), part_draws(parts, draws=DRAWS, seed=0)])
    hits = weights @ (anomalous & defective)
    both = weights @ (anomalous.astype(np.int64) + defective)
    return [float(2 * hit / either) for hit, either in zip(hits, both, strict=True) if either]


def _verdicts(scores: NDArray[np.float64], defective: NDArray[np.bool_], threshold: Threshold) -> Verdicts:
    anomalous = scores >= threshold.value
    return Verdicts(
        false_alarms=int(np.count_nonzero(anomalous & ~defective)),
        missed=int(np.count_nonzero(~anomalous & defective)),
    )
