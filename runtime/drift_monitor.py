"""Whether the line still is the one that the threshold was chosen on, told by the scores of the frames that pass.

Nobody looks at frames that pass. If light, focus or material change, their scores move first: to the threshold, where
good parts are thrown out, or away from it, where defects pass. So the scores of a window of passed frames are compared
with those of the held-out good pictures in the specification, by Kolmogorov's and Smirnov's distance between two
distributions. Its limit leaves both to chance: the frames of the window and the pictures that happened to be held out.

Frames of one part resemble each other, and a hundred of them say little more than one. How many independent ones a
window is worth is taken from the autocorrelation of its scores. What no score can tell is a line that stands still: one
part for a whole window looks like a change, as long as its scores waver from frame to frame.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.event import Event
from stlm_edge.errors import ConfigError
from stlm_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

FRAMES = 1000
"""Passed frames in a window. Windows do not overlap."""

FALSE_ALARM = 1e-5
"""Probability at most that a window of a line that has not changed is called drift: at ten frames a second, one in four
months."""

_BACK = 1e-2
"""Drift is over when the scores are so near that this many windows of an unchanged line would be farther."""

Scores = NDArray[np.float64]

_CHOOSE = "choose it again from good pictures: stlm threshold ENGINE --data DIR"


class _Reference(Protocol):
    """What the scores of the held-out pictures were like."""

    def __str__(self) -> str: ...

    def has_moved(self, scores: Scores, *, worth: float, error: float) -> bool:
        """Whether passed frames score otherwise, wrongly said with a probability of `error` at most.

        Args:
            scores: sorted.
            worth: as many independent frames.
        """


class DriftMonitor:
    """Watches the scores of passed frames, one window after the other."""

    def __init__(self, reference: _Reference, *, frames: int) -> None:
        self._reference = reference
        self._frames = frames
        self._scores: list[float] = []
        self._has_drifted = False

    @property
    def has_drifted(self) -> bool:
        """Whether the last window that ended was called drift."""
        return self._has_drifted

    def add(self, score: float) -> Event | None:
        """Count the next frame that passed; a event when a window ends with which drift begins or is over."""
        self._scores.append(score)
        if len(self._scores) < self._frames:
            return None
        scores = np.array(self._scores, np.float64)
        self._scores.clear()
        error = _BACK if self._has_drifted else FALSE_ALARM
        moved = self._reference.has_moved(np.sort(scores), worth=_worth(scores), error=error)
        if moved == self._has_drifted:
            return None
        self._has_drifted = moved
        now = f"median {np.median(scores):.3g} over the last {self._frames}"
        if moved:
            text = (
                f"the scores of passed frames have moved: {now}, {self._reference}; check light, focus, dirt on the "
                f"lens and the parts' supplier; if the line is to stay so, {_CHOOSE}"
            )
            return Event("drift", text, time.monotonic())
        return Event("drift-over", f"the scores of passed frames are back: {now}, {self._reference}", time.monotonic())


def open_drift_monitor(
    spec: ModelSpec, *, threshold: float, whole_pictures: bool = True, frames: int = FRAMES
) -> DriftMonitor | None:
    """A monitor for what `spec` says of the held-out pictures; None where that is not enough, which is logged.

    Args:
        threshold: that is in force; frames below it pass.
        whole_pictures: frames are scored like the held-out pictures, without an area of interest and tiles.
        frames: in a window.
    Raises:
        ConfigError: if `frames` is below 2.
        SpecError: if no score can reach `threshold`, or every one does.
    """
    spec.require_reachable(threshold)
    if frames < 2:
        raise ConfigError(f"a window for drift has {frames} frames, expected at least 2; for example {FRAMES}")
    try:
        if not whole_pictures:
            raise _CannotTellError("with an area of interest or tiles, frames score otherwise than held-out pictures")
        reference = _reference(spec, threshold=threshold, frames=frames)
    except _CannotTellError as reason:
        logger.info("drift is not watched: %s", reason)
        return None
    logger.info("drift is watched: every %d passed frames, %s", frames, reference)
    return DriftMonitor(reference, frames=frames)


class _CannotTellError(Exception):
    """Why drift cannot be watched."""


def _reference(spec: ModelSpec, *, threshold: float, frames: int) -> _Reference:
    if spec.normal_score_deciles is not None and spec.normal_score_images is not None:
        return _deciles(spec.normal_score_deciles, spec.normal_score_images, threshold=threshold, frames=frames)
    chosen = spec.require_threshold()
    if spec.normal_score_range is None or chosen.method != "quantile":
        raise _CannotTellError(f"the engine does not say how good pictures score; {_CHOOSE}")
    if threshold < chosen.value:
        raise _CannotTellError(f"the threshold is lower than the chosen {chosen.value:g}; {_CHOOSE}")
    range_ = _Range(*spec.normal_score_range, images=chosen.images)
    if chosen.images < 2 or not range_.has_moved(np.full(frames, -np.inf), worth=frames, error=FALSE_ALARM):
        raise _CannotTellError(f"{chosen.images} held-out pictures are too few; {_CHOOSE}")
    return range_


def _deciles(values: Sequence[float], images: int, *, threshold: float, frames: int) -> _Deciles:
    """The reference as far as it lies below the threshold, as the frames that pass do.

    How many of the pictures do so is known to a tenth; either end is taken where it makes the distance smaller.
    """
    below = [value for value in values if value < threshold]
    if not below:
        raise _CannotTellError(f"all held-out pictures score above the threshold {threshold:g}; {_CHOOSE}")
    least = max((len(below) - 1) / 10, 1 / images)
    most = min(len(below) / 10, 1.0)
    if _limit(frames, least * images, error=FALSE_ALARM) >= 1:
        raise _CannotTellError(f"{images} held-out pictures are too few; {_CHOOSE}")
    return _Deciles(np.array(below), least, most, images, median=values[5])


@dataclass(frozen=True, eq=False)
class _Deciles:
    """Deciles below the threshold.

    Attributes:
        values: from the lowest score on.
        least, most: between which the share of the pictures below the threshold lies.
        images: held out.
        median: of all of them.
    """

    values: Scores
    least: float
    most: float
    images: int
    median: float

    def __str__(self) -> str:
        return f"median {self.median:.3g} on {self.images} held-out good pictures"

    def has_moved(self, scores: Scores, *, worth: float, error: float) -> bool:
        tenths = np.arange(len(self.values)) / 10
        higher = tenths / self.most - np.searchsorted(scores, self.values, side="right") / scores.size
        lower = np.searchsorted(scores, self.values, side="left") / scores.size - tenths / self.least
        distance = max(higher.max(), lower.max())
        return bool(distance > _limit(worth, self.least * self.images, error=error))


@dataclass(frozen=True)
class _Range:
    """Lowest and highest score of the held-out pictures, all that engines of earlier versions say.

    The share of a line's scores outside of the range of m others is Beta(2, m - 1) distributed, whatever the scores'
    distribution; so the number of frames outside is beta-binomial.
    """

    lowest: float
    highest: float
    images: int

    def __str__(self) -> str:
        return f"between {self.lowest:.3g} and {self.highest:.3g} on {self.images} held-out good pictures"

    def has_moved(self, scores: Scores, *, worth: float, error: float) -> bool:
        outside = np.count_nonzero((scores < self.lowest) | (scores > self.highest)) / scores.size
        count = max(1, math.floor(worth))
        return _beta_binomial_tail(math.floor(outside * count), count, a=2, b=self.images - 1) < error


def _limit(first: float, second: float, *, error: float) -> float:
    """Distance that the distributions of so many scores each exceed with probability `error` by chance (Smirnov)."""
    return math.sqrt(math.log(2 / error) / 2 * (1 / first + 1 / second))


def _beta_binomial_tail(least: int, count: int, *, a: int, b: int) -> float:
    """P(X >= least) of `count` trials whose common rate is Beta(a, b) distributed."""

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return math.fsum(
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(count - hits + 1)
            + log_beta(hits + a, count - hits + b)
            - log_beta(a, b)
        )
        for hits in range(least, count + 1)
    )


def _worth(scores: Scores) -> float:
    """How many independent scores say as much, by the autocorrelation of the ranks up to where it ends."""
    count = scores.size
    ranks = np.argsort(np.argsort(scores, kind="stable")) - (count - 1) / 2
    products = np.correlate(ranks, ranks, "full")[count - 1 :]
    correlation = products / products[0]
    ends = np.flatnonzero(correlation <= 0)
    return float(count / (1 + 2 * correlation[1 : ends[0] if ends.size else count].sum()))
