"""The parts of a running line: told of frames and triggers on any thread, it gives each result on time.

`runtime.parts` knows the rules; here are the clock, the lock and the threads.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.closing import Closing
from runtime.event import Event, EventKind
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.parts import Judging, Parts
from runtime.sources.base import Frame, FrameSource
from stlm_edge.errors import ControlError, StlmError, counted

logger = logging.getLogger(__name__)

_LONGEST_ID = 100


class PartTracker(Closing):
    """Owns two threads from `start` to `close`: one ends parts by the clock, one triggers the camera.

    The first waits for nothing but the clock, so that a result is on time while the network, the camera or its driver
    hangs. Where the source has a queue, frames are counted to their parts as they come, else as they are taken.

    Attributes:
        results: parts that have one.
    """

    def __init__(self, by: Judging, *, source: FrameSource) -> None:
        self.results = 0
        self._trigger = by.rule.trigger
        self._source = source
        self._parts = Parts(by)
        self._lock = threading.Lock()
        self._clock, self._asking = threading.Condition(self._lock), threading.Condition(self._lock)
        self._wakes_s = math.inf
        """When the thread with the clock looks by itself."""
        self._publish: Callable[[Part], None] | None = None
        self._tell: Callable[[Event], None] | None = None
        self._is_running = self._is_over = False
        self._quiet_since_s: float | None = None
        self._damaged = 0

    def change(self, by: Judging) -> None:
        """Judge the next part by something else, which begins by the same trigger."""
        with self._lock:
            self._parts.change(by)

    def in_use(self) -> set[Judging]:
        """What parts are judged by that begin, are not decided, or whose frames are not."""
        with self._lock:
            return self._parts.in_use()

    def judging_of(self, frame: Frame) -> Judging:
        """What a frame that was read is judged by."""
        with self._lock:
            return self._parts.judging_of(frame.index)

    @property
    def is_ready(self) -> bool:
        """A trigger from outside would be taken now."""
        with self._lock:
            is_triggered = self._is_running and self._trigger is not None
            return is_triggered and self._source.is_connected and self._has_room and not self._is_owed

    def start(self, *, publish: Callable[[Part], None], tell: Callable[[Event], None]) -> None:
        """Begin with the frames that wait already.

        Args:
            publish: is given each result, in the order of the parts, on whatever thread; must not wait.
            tell: the same for events.
        """
        with self._lock:
            self._publish, self._tell = publish, tell
            self._damaged = self._source.skipped
        # Daemons, since a camera may never answer a trigger.
        threading.Thread(target=self._watch_clock, name="parts", daemon=True).start()
        if self._trigger == "software":
            threading.Thread(target=self._trigger_camera, name="trigger", daemon=True).start()
        self._source.listen(self)
        with self._lock:
            self._is_running = not self._is_over

    def trigger(self, part_id: str | None) -> int:
        """See `LineControl.trigger`."""
        if part_id is not None and len(part_id) > _LONGEST_ID:
            raise ControlError(f"found a part's name of {len(part_id)} characters, expected at most {_LONGEST_ID}")
        if self._trigger is None:
            raise ControlError(
                "this line is not triggered from outside, its camera runs free; start it with --trigger software, "
                "hardware or fifo"
            )
        with self._step() as now_s:
            if not self._is_running:
                raise ControlError("the line is not running, expected it to be ready; trigger it again when it is")
            is_owed = self._is_owed
            # Only a camera that is triggered by us captures nothing for a part that is refused.
            has_room = self._has_room or self._trigger != "software"
            number, is_taken = self._parts.begin(part_id, now_s=now_s, has_room=has_room)
        if is_taken:
            return number
        reason = "the camera has not delivered the frame before" if is_owed else "too many frames wait for the network"
        raise ControlError(f"part {number} is missed, {reason}; trigger when the line is ready")

    def arrived(self, frame: Frame) -> bool:
        with self._step() as now_s:
            if self._is_over:
                return False
            part = self._parts.arrived(frame.index, timestamp_s=frame.timestamp_s, now_s=now_s)
            if part is None:
                text = f"frame {frame.index} came without a trigger, or too late after it, and is not inspected"
                self._say("late", text, now_s)
            return part is not None

    def overrun(self, timestamp_s: float) -> None:
        with self._step() as now_s:
            if self._is_over:
                return
            part = self._parts.spoiled(timestamp_s=timestamp_s, now_s=now_s, is_fault=False)
            waiting = counted(self._source.queue or 0, "frame")
            which = "" if part is None else f" of part {part}"
            text = f"a frame{which} was lost since {waiting} waited for the network already; slow down or allow more"
            self._say("overrun", text, now_s)

    def damaged(self) -> None:
        with self._step() as now_s:
            if not self._is_over:
                self._parts.spoiled(timestamp_s=now_s, now_s=now_s, is_fault=True)

    def interrupted(self) -> None:
        with self._step() as now_s:
            self._parts.interrupted(now_s=now_s)

    def taken(self, frame: Frame | None) -> None:
        """A frame was read, or the end; where it has been told of by `arrived`, this does nothing."""
        if self._source.queue is not None:
            return
        with self._step() as now_s:
            # A camera that runs free has another picture for a damaged one; a recording has not.
            while self._damaged < self._source.skipped and not self._source.is_live:
                self._damaged += 1
                self._parts.spoiled(timestamp_s=now_s, now_s=now_s, is_fault=True)
            if frame is not None:
                self._parts.arrived(frame.index, timestamp_s=frame.timestamp_s, now_s=now_s)

    def part_of(self, frame: Frame) -> int:
        """The number of a frame's part, before its verdict."""
        with self._step() as now_s:
            return self._parts.part_of(frame.index, now_s=now_s)

    def judged(self, inspection: Inspection) -> None:
        """A frame has its verdict, and the outputs have it."""
        with self._step() as now_s:
            if self._is_over or self._parts.judged(inspection, now_s=now_s):
                return
            text = f"the verdict of frame {inspection.frame.index} came after part {inspection.part} had its result"
            self._say("late", text, now_s)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """While entered, the line waits for a frame and holds none: one that is there would be taken at once."""
        with self._step() as now_s:
            self._quiet_since_s = now_s
        try:
            yield
        finally:
            with self._lock:
                self._quiet_since_s = None

    def close(self) -> None:
        """Give every part that has begun its result, and take no other; harmless when called twice."""
        with self._step() as now_s:
            if not self._is_over:
                self._parts.finish(now_s=now_s)
        with self._lock:
            self._is_running, self._is_over = False, True
            self._clock.notify()
            self._asking.notify()

    @property
    def _has_room(self) -> bool:
        queue = self._source.queue
        return queue is None or self._source.waiting < queue

    @property
    def _is_owed(self) -> bool:
        """The camera was triggered by command and has not delivered."""
        return self._trigger == "software" and self._parts.is_waiting

    @property
    def _quiet_s(self) -> float | None:
        """Frames of a queue are told of as they come."""
        return self._quiet_since_s if self._source.queue is None else -math.inf

    @contextmanager
    def _step(self) -> Iterator[float]:
        """Change something, at the time that is given, publish what it decides, and wake whom it concerns."""
        with self._lock:
            yield time.monotonic()
            if self._publish is None or self._is_over:
                return
            for part in self._parts.take_results():
                self.results += 1
                self._publish(part)
            if self._due_s < self._wakes_s:
                self._clock.notify()
            if self._parts.wants_frame:
                self._asking.notify()

    @property
    def _due_s(self) -> float:
        return self._parts.due_s(quiet_since_s=self._quiet_s)

    def _say(self, kind: EventKind, text: str, now_s: float) -> None:
        if self._tell is not None and not self._is_over:
            self._tell(Event(kind, text, now_s))

    def _watch_clock(self) -> None:
        while True:
            with self._lock:
                if self._is_over:
                    return
                self._wakes_s = self._due_s
                left_s = self._wakes_s - time.monotonic()
                if left_s > 0:
                    self._clock.wait(min(left_s, threading.TIMEOUT_MAX))
                    continue
            with self._step() as now_s:
                self._parts.tick(now_s, quiet_since_s=self._quiet_s)

    def _trigger_camera(self) -> None:
        while True:
            with self._lock:
                self._asking.wait_for(lambda: self._parts.wants_frame or self._is_over)
                if self._is_over:
                    return
                self._parts.asked(now_s=time.monotonic())
            try:
                self._source.trigger()
            except Exception as error:  # of a driver too: the thread must live, or no part would be judged any more
                with self._step() as now_s:
                    self._parts.interrupted(now_s=now_s)
                    reason = error if isinstance(error, StlmError) else f"{type(error).__name__}: {error}"
                    self._say("trigger-failed", f"the camera could not be triggered: {reason}", now_s)
