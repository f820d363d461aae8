"""What is behind `LineControl`: the handle of a line that outputs get before it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from runtime.closing import Closing
from runtime.control import LineControl, LineStatus
from runtime.event import Event
from runtime.judge import Judge
from runtime.part_tracker import PartTracker
from runtime.sources.base import Frame, FrameSource
from stlm_edge.errors import ControlError, shown


class Control(Closing, LineControl):
    """Made before the outputs, which ask it, and the line, which tells it of its progress. Owns tracker and judges.

    Attributes:
        parts: of the line; None where there are frames alone.
        judge: of the parts, or frames, that begin from now on.
        has_ended: no frame will be judged any more.
        on_change: is given the recipe that somebody asks for, and raises `ControlError` if there is none.
    """

    def __init__(self, judge: Judge, *, source: FrameSource) -> None:
        self.judge = judge
        self.parts = PartTracker(judge, source=source) if judge.rule.has_parts else None
        self.has_ended = False
        self.on_change: Callable[[str], None] = _no_recipes
        self._retired: list[Judge] = []
        self._tell: Callable[[Event], None] | None = None
        self._lock = threading.Lock()
        self._progress_s = time.monotonic()

    def start(self, tell: Callable[[Event], None]) -> None:
        """From now on `tell` is given what happens, on whatever thread."""
        self._tell = tell

    @property
    def has_begun(self) -> bool:
        """The line runs, or has run."""
        return self._tell is not None

    def tell(self, event: Event) -> None:
        """Something has happened to the line."""
        if self._tell is not None:
            self._tell(event)

    def progressed(self) -> None:
        """A frame was judged, or waited for in vain."""
        self._progress_s = time.monotonic()

    def ended(self) -> None:
        """The line is over, while others of the program may go on."""
        self.has_ended = True

    def use(self, judge: Judge) -> None:
        """Have another one judge what begins from now on; the one before is closed when nothing needs it any more."""
        with self._lock:
            self._retired.append(self.judge)
            self.judge = judge
            if self.parts is not None:
                self.parts.change(judge)

    def judge_of(self, frame: Frame) -> Judge:
        """Whose frame this is; where there are parts, always the same one's."""
        if self.parts is None:
            return self.judge
        judge = self.parts.judging_of(frame)
        assert isinstance(judge, Judge)
        return judge

    def retire(self, in_hand: Collection[Judge]) -> None:
        """Close those that were replaced and whose frames are all judged. Args: in_hand: of the line's own batches."""
        if not self._retired:
            return
        with self._lock:
            needed = {*in_hand, *(() if self.parts is None else self.parts.in_use())}
            closing = [judge for judge in self._retired if judge not in needed]
            self._retired = [judge for judge in self._retired if judge in needed]
        for judge in closing:
            judge.detector.close()

    def trigger(self, part_id: str | None = None) -> int:
        if self.parts is None:
            raise ControlError(
                "this line has no parts, its camera runs free; start it with --trigger software, hardware or fifo"
            )
        return self.parts.trigger(part_id)

    def change_recipe(self, recipe: str) -> None:
        if self.has_ended:
            raise ControlError("this line has ended, expected it to run; start it again")
        self.on_change(recipe)

    def status(self) -> LineStatus:
        judge = self.judge
        return LineStatus(
            ready=self.parts is not None and self.parts.is_ready,
            recipe=judge.recipe,
            recipe_number=judge.number,
            parts=0 if self.parts is None else self.parts.results,
            progress_s=self._progress_s,
        )

    def close(self) -> None:
        """Give each part that has begun its result."""
        if self.parts is not None:
            self.parts.close()

    def close_judges(self) -> None:
        """Close all detectors, once the line has ended; harmless when called twice."""
        for judge in (*self._retired, self.judge):
            judge.detector.close()


def _no_recipes(recipe: str) -> None:
    raise ControlError(f"found no recipe {shown(recipe)}, since this line has none; start it with --recipes")
