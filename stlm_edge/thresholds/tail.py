"""The upper tail of good pictures' scores, for rates that counting cannot show.

Above a high level the excesses of almost any distribution come near a generalised Pareto one (Pickands 1975). Scores
end at a highest one, so they are stretched to the whole line first, by the logit. Of n parts the highest tenth is
taken, or as many as ten, but no more than half; few as they are, two things keep the fit steady: probability-weighted
moments (Hosking and Wallis 1987), and a shape that is drawn towards 0, an exponential tail, with the weight of ten
excesses, as Vehtari et al. (2024) do for importance weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SHARE = 0.1
EXCESSES = 10.0
FEWEST_PARTS = 8
"""From which on a tail is fitted; there are four excesses then."""

_SHAPE_WEIGHT = 10.0
_LARGEST_SHAPE = 0.45
"""Either way; from 0.5 on the moments say nothing."""
_PLOTTING = 0.65
"""1 - 0.35, Hosking and Wallis' plotting position."""
_LEAST_SCALE = 1e-9
"""Of excesses that are all 0."""


@dataclass(frozen=True)
class Tail:
    """Fits of B weightings of the same scores, each (B,).

    Attributes:
        level: above it the excesses are modelled.
        scale, shape: of the generalised Pareto distribution.
        above: the share of scores above the level.
    """

    level: Values
    scale: Values
    shape: Values
    above: Values

    def quantile(self, rate: float) -> Values:
        """(B,): the score that the share `rate` reaches; below the level of no meaning."""
        ratio = np.log(self.above / rate)
        return np.asarray(self.level + self.scale * np.expm1(self.shape * ratio) / self.shape)

    def rate(self, score: float) -> Values:
        """(B,): the share that reaches a score; below the level of no meaning."""
        stretched = np.maximum(1 + self.shape * (score - self.level) / self.scale, 0)
        with np.errstate(divide="ignore", over="ignore"):  # beyond the end of a bounded tail the share is 0
            return np.asarray(self.above * stretched ** (-1 / self.shape))


def fit_tail(scores: Values, weights: Values, *, parts: int) -> Tail:
    """Fit the tail of weighted scores.

    Args:
        scores: (N,), falling.
        weights: (B, N), what each score counts for; a row sums up to `parts`.
        parts: at least `FEWEST_PARTS`.
    """
    wanted = max(SHARE * parts, min(EXCESSES, parts / 2))
    higher = np.cumsum(weights, axis=1) - weights
    is_below = higher >= wanted - 1e-9
    level = scores[np.where(is_below.any(axis=1), is_below.argmax(axis=1), -1)]
    taken = np.clip(wanted - higher, 0, weights)
    total = taken.sum(axis=1)
    excess = np.maximum(scores - level[:, None], 0)
    mean = (taken * excess).sum(axis=1) / total
    exceeded = (np.cumsum(taken, axis=1) - _PLOTTING * taken) / total[:, None]
    first = (taken * excess * exceeded).sum(axis=1) / total
    with np.errstate(divide="ignore", invalid="ignore"):  # of excesses that are all 0
        shape = np.nan_to_num(2 - mean / (mean - 2 * first), posinf=0.0, neginf=0.0)
    shape = np.clip(shape * wanted / (wanted + _SHAPE_WEIGHT), -_LARGEST_SHAPE, _LARGEST_SHAPE)
    shape = np.where(np.abs(shape) < 1e-6, 1e-6, shape)  # the limit of 0, without a case of its own
    scale = np.maximum(mean * (1 - shape), _LEAST_SCALE)
    return Tail(level, scale, shape, np.full(len(weights), (wanted + 0.5) / (parts + 1)))
