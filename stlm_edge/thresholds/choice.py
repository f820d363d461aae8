"""Choosing thresholds: by how many good parts reach them, or F1-optimal on labelled pictures."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import DataError, counted
from stlm_edge.metrics import best_f1
from stlm_edge.spec import ModelSpec, Threshold
from stlm_edge.thresholds.count import CONFIDENCE, false_alarm_interval
from stlm_edge.thresholds.tail import FEWEST_PARTS, fit_tail

logger = logging.getLogger(__name__)

Method = Literal["quantile", "f1"]

Values = NDArray[np.float64]

FEW_PARTS = 30
"""Below so many, a warning says that the threshold is uncertain."""

DRAWS = 1000
_MODEL_TAIL = 0.005
"""On either side of a modelled rate's interval. Percentiles of few parts' draws lie too near to each other: with 2.5 %
left out they hold the true rate in four of five cases, with this in nine of ten."""
_ANY = 1e-6
"""Parts: less than any picture stands for."""
_NEAREST = 1e-7
"""To 0 and to the highest score that a share of it is told from them; float32 tells no less."""


def choose(
    scores: Sequence[float],
    parts: Sequence[int],
    *,
    false_alarm_rate: float,
    unclear_rate: float | None = None,
    highest_score: float = 1.0,
    seed: int = 0,
) -> Threshold:
    """The threshold that good pictures reach with the wanted probability.

    A part counts once, however many pictures show it, each for its share of it. If these parts and future ones come
    from the same line, the next picture scores above the j-th highest of n parts with probability j / (n + 1), whatever
    the distribution; that is exact where a part has one picture, or pictures that score alike or have nothing to do
    with each other. Where the wanted rate is 1 / (n + 1) or more, the threshold is that order statistic. Where it is
    less, the tail is modelled (see `stlm_edge.thresholds.tail`), and the threshold is no lower than for 1 / (n + 1).

    Args:
        scores: image scores of good pictures, by something that has learnt from no picture of their part.
        parts: the part of each, by numbers.
        false_alarm_rate: wanted share of good pictures at or above the threshold.
        unclear_rate: wanted share at or above a second, lower threshold, from which on a picture is unclear.
        highest_score: that a picture can have.
        seed: of the bootstrap over parts that intervals come from.
    Raises:
        DataError: if there is no score.
    """
    if len(scores) == 0:
        raise DataError("found no good picture to choose a threshold with, expected at least one; add or hold out more")
    ranked = _Ranked.of(scores, parts, highest=highest_score, seed=seed)
    chosen = ranked.threshold(false_alarm_rate)
    if ranked.scores[0] >= highest_score:
        logger.warning(
            "HIGHEST SCORE: %s the highest score that there is, %g, which no threshold can tell from a defect",
            "a good picture has" if np.count_nonzero(ranked.scores >= highest_score) == 1 else "good pictures have",
            highest_score,
        )
    if not chosen.modelled and false_alarm_rate * (ranked.parts + 1) < 1:
        logger.warning(
            "%s cannot promise a false-alarm rate of %.3g, only %.3g; it takes %d, or %d to model how scores fall off",
            counted(ranked.parts, "good part"),
            false_alarm_rate,
            1 / (ranked.parts + 1),
            math.ceil(1 / false_alarm_rate) - 1,
            FEWEST_PARTS,
        )
    elif ranked.parts < FEW_PARTS:
        logger.warning(
            "FEW PARTS: the threshold is from %s of %s, expected %d parts or more; its false-alarm rate is known "
            "within wide limits only",
            counted(len(scores), "picture"),
            counted(ranked.parts, "good part"),
            FEW_PARTS,
        )
    return chosen if unclear_rate is None else _with_unclear(chosen, ranked, unclear_rate)


def with_unclear(
    threshold: Threshold,
    scores: Sequence[float],
    parts: Sequence[int],
    *,
    unclear_rate: float,
    highest_score: float = 1.0,
) -> Threshold:
    """The threshold with a second one, that the share `unclear_rate` of good pictures reaches; see `choose`."""
    return _with_unclear(threshold, _Ranked.of(scores, parts, highest=highest_score, seed=0), unclear_rate)


def f1_optimal(
    scores: Sequence[float], defective: Sequence[bool], parts: Sequence[int] | None = None, *, seed: int = 0
) -> Threshold:
    """The threshold with the highest F1 on labelled pictures.

    It stands halfway between the lowest score that it calls anomalous and the next lower one: that changes no verdict
    on these pictures, and the rounding of another backend flips none.

    Args:
        parts: the part of each picture, by numbers; None where each has its own.
        seed: of the bootstrap over parts that the interval comes from.
    Raises:
        DataError: if defective or good pictures are missing.
    """
    labels = np.array(defective, bool)
    if not labels.any() or labels.all():
        raise DataError(
            f"found {np.count_nonzero(labels)} defective and {np.count_nonzero(~labels)} good test pictures, expected "
            "both for an F1-optimal threshold; add them, or choose from good pictures alone by the other --method"
        )
    values, numbers = np.array(scores, np.float64), np.arange(labels.size) if parts is None else np.array(parts)
    drawn = []
    for weights in part_draws(numbers, draws=DRAWS // 5, seed=seed):
        chosen = np.repeat(np.arange(labels.size), weights)
        if 0 < np.count_nonzero(labels[chosen]) < chosen.size:
            drawn.append(_between(values[chosen], labels[chosen]))
    return Threshold(
        value=_between(values, labels),
        method="f1",
        images=len(values),
        parts=None if parts is None else int(np.unique(numbers).size),
        value_interval=_percentiles(np.array(drawn), leave_out=1 - CONFIDENCE) if drawn else None,
    )


def part_draws(parts: NDArray[np.int64], *, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws, N): how often each picture is in a draw of as many parts as there are, with replacement."""
    names, part_of = np.unique(parts, return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(names.size, np.full(names.size, 1 / names.size), size=draws)
    return np.asarray(counts[:, part_of])


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


@dataclass(frozen=True)
class _Ranked:
    """Scores of good pictures in falling order.

    Attributes:
        scores: (N,).
        weights: (N,), of each picture: parts that it stands for, one shared by all pictures of a part.
        drawn: (B, N), the same in each draw of the bootstrap.
        parts: how many.
        highest: score that a picture can have.
    """

    scores: Values
    weights: Values
    drawn: Values
    parts: int
    highest: float

    @classmethod
    def of(cls, scores: Sequence[float], parts: Sequence[int], *, highest: float, seed: int) -> _Ranked:
        order = np.argsort(-np.array(scores, np.float64), kind="stable")
        numbers = np.array(parts, np.int64)[order]
        _, part_of, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
        weights = 1 / sizes[part_of]
        drawn = part_draws(numbers, draws=DRAWS, seed=seed) * weights
        return cls(np.array(scores, np.float64)[order], weights, drawn, sizes.size, highest)

    def threshold(self, rate: float) -> Threshold:
        allowed = max(1, math.floor(rate * (self.parts + 1)))
        is_beyond_count = rate * (self.parts + 1) < 1
        is_modelled = is_beyond_count and self.parts >= FEWEST_PARTS
        # Where neither count nor model can have the rate, above all pictures and not above those that make up one part.
        needed = _ANY if is_beyond_count and not is_modelled else allowed
        counted_value = self._just_above(needed, self.weights[None])[0]
        chosen = Threshold(
            value=counted_value,
            method="quantile",
            images=self.scores.size,
            parts=self.parts,
            false_alarm_rate=allowed / (self.parts + 1),
            false_alarm_interval=false_alarm_interval(allowed, self.parts, confidence=CONFIDENCE),
            value_interval=_percentiles(self._just_above(needed, self.drawn), leave_out=1 - CONFIDENCE),
        )
        return self._modelled(chosen, rate) if is_modelled else chosen

    def _modelled(self, chosen: Threshold, rate: float) -> Threshold:
        """The same by the model of the tail, and no lower."""
        stretched = self._stretched(self.scores)
        once = fit_tail(stretched, self.weights[None], parts=self.parts)
        tails = fit_tail(stretched, self.drawn, parts=self.parts)
        value = max(chosen.value, self._score(once.quantile(rate))[0])
        place = float(self._stretched(np.array([value]))[0])
        counted_rates = self.drawn @ (self.scores >= value) / self.parts
        rates = np.where(place > tails.level, tails.rate(place), counted_rates)
        return dataclasses.replace(
            chosen,
            value=value,
            modelled=True,
            false_alarm_rate=min(rate, float(once.rate(place)[0])),
            false_alarm_interval=_percentiles(rates, leave_out=2 * _MODEL_TAIL),
            value_interval=_percentiles(
                np.maximum(self._score(tails.quantile(rate)), self._just_above(1, self.drawn)),
                leave_out=1 - CONFIDENCE,
            ),
        )

    def _just_above(self, allowed: float, weights: Values) -> Values:
        """(B,): the lowest float32 above the highest scores that stand for `allowed` parts."""
        place = (np.cumsum(weights, axis=1) >= allowed - 1e-9).argmax(axis=1)
        above = np.nextafter(self.scores[place].astype(np.float32), np.float32(np.inf)).astype(np.float64)
        return np.asarray(np.minimum(above, self.highest))

    def _stretched(self, scores: Values) -> Values:
        share = np.clip(scores / self.highest, _NEAREST, 1 - _NEAREST)
        return np.asarray(np.log(share) - np.log1p(-share))

    def _score(self, stretched: Values) -> Values:
        return np.asarray(self.highest / (1 + np.exp(-np.minimum(stretched, -math.log(_NEAREST)))))


def _with_unclear(threshold: Threshold, ranked: _Ranked, rate: float) -> Threshold:
    value = ranked.threshold(rate).value
    if value < threshold.value:
        return dataclasses.replace(threshold, unclear=value, unclear_rate=rate)
    remedy = "give a higher --unclear-rate" + ("" if threshold.method == "f1" else ", or more parts")
    logger.warning(
        "NO UNCLEAR: the score that %.3g of good pictures reach, %.4g, is not below the threshold %.4g, so that no "
        "picture is called unclear; %s",
        rate,
        value,
        threshold.value,
        remedy,
    )
    return threshold


def _between(scores: Values, labels: NDArray[np.bool_]) -> float:
    reached = best_f1(scores, labels).threshold
    below = scores[scores < reached]
    return float((reached + below.max()) / 2 if below.size else reached)


def _percentiles(values: Values, *, leave_out: float) -> tuple[float, float]:
    low, high = np.quantile(values, [leave_out / 2, 1 - leave_out / 2])
    return float(low), float(high)
