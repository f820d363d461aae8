"""From verdicts on frames to one on the part that they show: N of its last M frames, with hysteresis."""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass

from stlm_edge.errors import ConfigError


@dataclass(frozen=True)
class VotingRule:
    """When a part is anomalous.

    The alarm begins when at least `needed` of the part's last `frames` scores have reached the threshold. It ends when
    fewer than `needed` of them reach `release`, and with the part.

    Attributes:
        release: below the threshold, so that scores that waver about it do not raise an alarm after another; None for
            the threshold itself.
    """

    needed: int = 1
    frames: int = 1
    release: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.needed <= self.frames:
            raise ConfigError(
                f"the votes are {self.needed} of {self.frames} frames, expected at least 1 and not more than there are "
                "frames; for example 2/5"
            )
        if self.release is not None and not math.isfinite(self.release):
            raise ConfigError(f"the score that ends an alarm is {self.release}, expected a finite number")

    @classmethod
    def parse(cls, votes: str, *, release: float | None = None) -> VotingRule:
        """The rule with votes as in `2/5`, two of five frames. Raises `ConfigError`."""
        found = re.fullmatch(r"(\d+)/(\d+)", votes.strip())
        if found is None:
            raise ConfigError(f"found the votes {votes!r}, expected how many of how many frames; for example 2/5")
        return cls(needed=int(found[1]), frames=int(found[2]), release=release)


class PartVote:
    """The vote over the frames of the part in view.

    Attributes:
        alarm: the part is anomalous, as far as its frames have been added.
        part: its number.
    """

    def __init__(self, rule: VotingRule, *, threshold: float) -> None:
        """
        Args:
            threshold: of the score; a frame votes from it on.
        Raises:
            ConfigError: if the rule's `release` does not lie below the threshold.
        """
        if rule.release is not None and rule.release >= threshold:
            raise ConfigError(
                f"an alarm would end below {rule.release:g}, expected a score below the threshold {threshold:g}; "
                "choose a lower one or leave it out"
            )
        self._rule = rule
        self._threshold = threshold
        self._release = threshold if rule.release is None else rule.release
        self._scores: deque[float] = deque(maxlen=rule.frames)
        self.alarm = False
        self.part = 0

    def begin(self, part: int) -> None:
        """The frames that follow are of this part; if it is another one than before, the votes are forgotten."""
        if part != self.part:
            self._scores.clear()
            self.alarm = False
            self.part = part

    def add(self, score: float) -> None:
        """Count the next frame."""
        self._scores.append(score)
        wanted = self._release if self.alarm else self._threshold
        self.alarm = sum(score >= wanted for score in self._scores) >= self._rule.needed
