"""What is behind `LineControl`: the handle of a line that outputs get before it runs."""

from __future__ import annotations

import time

from runtime.closing import Closing
from runtime.control import LineControl, LineStatus
from runtime.part_tracker import PartTracker
from runtime.parts import PartRule
from runtime.sources.base import FrameSource
from runtime.voting import VotingRule
from stlm_edge.errors import ControlError


class Control(Closing, LineControl):
    """Made before the outputs, which ask it, and the line, which tells it of its progress. Owns the tracker."""

    def __init__(self, parts: PartTracker | None = None) -> None:
        """
        Args:
            parts: of the line; None where there are frames alone.
        """
        self.parts = parts
        self._progress_s = time.monotonic()

    @classmethod
    def of(cls, rule: PartRule, *, votes: VotingRule, source: FrameSource) -> Control:
        """Of a line with these parts, if the rule has any."""
        return cls(PartTracker(rule, votes=votes, source=source) if rule.has_parts else None)

    def progressed(self) -> None:
        """A frame was judged, or waited for in vain."""
        self._progress_s = time.monotonic()

    def trigger(self, part_id: str | None = None) -> int:
        if self.parts is None:
            raise ControlError(
                "this line has no parts, its camera runs free; start it with --trigger software, hardware or fifo"
            )
        return self.parts.trigger(part_id)

    def change_recipe(self, recipe: str) -> None:
        raise ControlError(f"found no recipe {recipe!r}, since this line has none; start it with recipes")

    def status(self) -> LineStatus:
        return LineStatus(
            ready=self.parts is not None and self.parts.is_ready,
            recipe=None,
            recipe_number=0,
            parts=0 if self.parts is None else self.parts.results,
            progress_s=self._progress_s,
        )

    def close(self) -> None:
        """Give each part that has begun its result."""
        if self.parts is not None:
            self.parts.close()
