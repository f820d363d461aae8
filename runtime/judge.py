"""What a line judges frames by: an opened engine with its thresholds, area, votes and rule for parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtime.detector import Detector
from runtime.drift_monitor import DriftMonitor
from runtime.parts import Judging
from runtime.voting import PartVote


@dataclass(frozen=True, eq=False, kw_only=True)
class Judge(Judging):
    """A recipe that is open, or a line's only settings; each frame is judged by one of them alone.

    Attributes:
        detector: whoever made the judge closes it, by `Control`.
        drift: watches the scores of the frames that pass.
        number: of the recipe, 0 where there are none.
        vote: over its own frames.
    Raises:
        ConfigError: if an alarm would not end below the detector's threshold.
    """

    detector: Detector
    drift: DriftMonitor | None = None
    number: int = 0
    vote: PartVote = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vote", PartVote(self.votes, threshold=self.detector.threshold.value))
        object.__setattr__(self, "engine_sha256", self.detector.sidecar.engine.engine_sha256)
