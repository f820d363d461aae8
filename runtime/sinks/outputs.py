"""Runs every sink on a thread of its own, so that none of them holds up the line or another one."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

from runtime.closing import Closing
from runtime.event import Event, EventKind, Tell
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.sinks.base import OPEN, FrameSink
from runtime.timing import Seldom
from stlm_edge.errors import OutputError, StlmError, counted

logger = logging.getLogger(__name__)

_PICTURES_WAITING = 3
_OTHERS_WAITING = 1000
_LOOKS_EVERY_S = 1.0
"""For whether an output is lost or back. One that is gone for less is no event."""
_Item = Inspection | Part | Event


class Outputs(Closing):
    """Hands frames and events to the sinks and returns at once. Owns the sinks until `close`.

    A sink that does not keep pace has a queue: of a few frames where it takes pictures, else of a thousand, which then
    have none. When that is full, the sink's frames are dropped and counted, or the line waits for it; events are
    always taken. Results of parts never wait for a place, and are dropped by a live line only when a thousand are
    waiting; for a sink that takes pictures, those beyond a few have none.

    Whatever a sink raises is its own failure: it is told of in the log and counted, the sink is tried again with the
    next frame, and the others go on. It is an error at the end if the sink has not recovered by then, and where frames
    may not be dropped also if it lacks any.
    """

    def __init__(
        self,
        sinks: Mapping[str, FrameSink],
        *,
        drops: bool,
        on_publish: Callable[[float], None],
        tell: Tell | None = None,
    ) -> None:
        """
        Args:
            sinks: by the name that messages and counts have for them.
            drops: a full queue drops frames, as it must while a live source goes on; otherwise `write` waits.
            on_publish: is told the milliseconds that a sink took for a frame, on that sink's thread; drawing is part
                of them for the sink that first asks for the picture.
            tell: takes the events that an output is lost, and back.
        """
        self._workers = {
            name: _Worker(name, sink, drops=drops, on_publish=on_publish, tell=tell) for name, sink in sinks.items()
        }
        self._is_closed = False

    @property
    def wants_stop(self) -> bool:
        """Whether a person has asked for the end of the run at one of the outputs."""
        return any(worker.sink.wants_stop for worker in self._workers.values())

    @property
    def drops(self) -> dict[str, int]:
        """Output → frames, and results of parts, that it was too slow for."""
        return {name: worker.drops for name, worker in self._workers.items()}

    @property
    def failures(self) -> dict[str, int]:
        """Output → frames that it could not write, or has lost since."""
        return {name: worker.failures for name, worker in self._workers.items()}

    @property
    def states(self) -> dict[str, str]:
        """Output → how it stands with its other side, for people; see `FrameSink.state`."""
        return {name: worker.state for name, worker in self._workers.items()}

    @property
    def waiting(self) -> dict[str, int]:
        """Output → frames, results and events that wait for it."""
        return {name: worker.waiting for name, worker in self._workers.items()}

    @property
    def troubles(self) -> dict[str, str | None]:
        """Output → why it takes nothing now, for people; None where it does."""
        return {name: worker.trouble for name, worker in self._workers.items()}

    def write(self, inspection: Inspection) -> None:
        """Hand a frame to all outputs."""
        bare: Inspection | None = None
        for worker in self._workers.values():
            if not worker.sink.takes_frames:
                continue
            if worker.sink.takes_pictures:
                worker.put(inspection)
            else:
                bare = bare or inspection.without_picture()
                worker.put(bare)

    def write_part(self, part: Part) -> None:
        """Hand the result of a part to all outputs, on any thread; never waits."""
        bare = part if part.worst is None else dataclasses.replace(part, worst=part.worst.without_picture())
        for worker in self._workers.values():
            worker.put_part(part, bare=bare)

    def write_event(self, event: Event) -> None:
        """Hand an event to all outputs."""
        for worker in self._workers.values():
            worker.put_event(event)

    def close(self) -> None:
        """Have everything written that was handed in, and close the sinks; harmless when called twice.

        A sink that makes no progress for its `closes_within_s` is given up, so that a network share that hangs does
        not keep the program from ending.

        Raises:
            OutputError: the first failure, once all sinks are closed; the others are logged.
        """
        if self._is_closed:
            return
        self._is_closed = True
        for worker in self._workers.values():
            worker.end()
        errors = [error for worker in self._workers.values() if (error := worker.join()) is not None]
        for error in errors[1:]:
            logger.error("%s", error)
        if errors:
            raise errors[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StlmError as failure:
            if error is None:
                raise
            # What ended the run is what the program should end with.
            if failure is not error:
                logger.error("%s", failure)


class _Worker:
    """One sink with its thread and its queue."""

    def __init__(
        self, name: str, sink: FrameSink, *, drops: bool, on_publish: Callable[[float], None], tell: Tell | None
    ) -> None:
        self.sink = sink
        self.drops = 0
        self._failed = 0
        self._name = name
        self._may_drop = drops
        self._on_publish = on_publish
        self._tell = tell
        self._was_lost = False
        self._looks_s = time.monotonic() + _LOOKS_EVERY_S
        self._most = _PICTURES_WAITING if sink.takes_pictures else _OTHERS_WAITING
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._frames_waiting = self._parts_waiting = 0
        self._is_ending = self._is_over = False
        self._failing: str | None = None
        """What the last frame that was to be written failed with."""
        self._is_failure_told = False
        self._closing_error: OutputError | None = None
        self._progress_s = time.monotonic()
        self._drop_log, self._failure_log = Seldom(), Seldom()
        # A daemon, since a thread that hangs in a driver or a file system can't be ended.
        self._thread = threading.Thread(target=self._run, name=f"output {name}", daemon=True)
        self._thread.start()

    @property
    def failures(self) -> int:
        return self._failed + self.sink.lost

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def state(self) -> str:
        state = self.sink.state
        if self._failing is None:
            return state
        return "cannot be written" if state == OPEN else f"cannot be written, {state}"

    @property
    def trouble(self) -> str | None:
        return self._failing or self.sink.away

    def put(self, inspection: Inspection) -> None:
        with self._changed:
            if not self._may_drop:
                self._changed.wait_for(lambda: self._frames_waiting < self._most or self._is_over)
            if self._frames_waiting == self._most:
                self.drops += 1
                if self._drop_log.is_due():
                    logger.warning(
                        "%s is too slow for the line: %s not written there", self._name, counted(self.drops, "frame")
                    )
                return
            self._queue.append(inspection)
            self._frames_waiting += 1
            self._changed.notify_all()

    def put_part(self, part: Part, *, bare: Part) -> None:
        """Args: bare: the same without pixels."""
        with self._changed:
            if self._may_drop and self._parts_waiting >= _OTHERS_WAITING:
                self.drops += 1
                if self._drop_log.is_due():
                    logger.warning("%s is too slow for the line: results of parts are not written there", self._name)
                return
            has_room = self.sink.takes_pictures and self._parts_waiting < self._most
            self._queue.append(part if has_room else bare)
            self._parts_waiting += 1
            self._changed.notify_all()

    def put_event(self, event: Event) -> None:
        with self._changed:
            self._queue.append(event)
            self._changed.notify_all()

    def end(self) -> None:
        """Begin to finish."""
        with self._changed:
            self._is_ending = True
            self._progress_s = time.monotonic()
            self._changed.notify_all()

    def join(self) -> OutputError | None:
        """Wait until all is written and the sink is closed; what went wrong with it, if anything."""
        while self._thread.is_alive():
            left_s = self._progress_s + self.sink.closes_within_s - time.monotonic()
            if left_s <= 0:
                return OutputError(
                    f"{self._name} hangs for {self.sink.closes_within_s:g} s and is given up; {self._frames_waiting} "
                    "frames and what it had not finished are lost; check its disk, network or screen"
                )
            self._thread.join(left_s)
        lacking = counted(self.failures, "frame")
        if self._failing is not None:
            return OutputError(f"{self._name} lacks {lacking} and failed up to the end: {self._failing}")
        if self._closing_error is None and self.failures and not self._may_drop:
            return OutputError(
                f"{self._name} lacks {lacking} that could not be written, expected all of a recording; inspect it again"
            )
        return self._closing_error

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                try:
                    self._publish(item)
                except Exception as error:  # a mistake in one output must not end the line, nor this thread
                    self._fail(error, item)
                self._progress_s = time.monotonic()
                self._look()
            self.sink.close()
        except Exception as error:  # while closing, or where there is no memory left to say what went wrong
            self._closing_error = OutputError(self._told(error))
        finally:
            with self._changed:
                self._is_over = True  # nobody waits for it any more
                self._changed.notify_all()

    def _next(self) -> _Item | None:
        """What is to be written next, once it is there; None at the end."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._queue or self._is_ending, _LOOKS_EVERY_S):
                    return self._take()
            self._look()  # without the lock, since other outputs are told

    def _take(self) -> _Item | None:
        with self._changed:
            if not self._queue:
                return None
            item = self._queue.popleft()
            if isinstance(item, Inspection):
                self._frames_waiting -= 1
                self._changed.notify_all()
            self._parts_waiting -= isinstance(item, Part)
            return item

    def _publish(self, item: _Item) -> None:
        if isinstance(item, Event):
            self.sink.write_event(item)
            return
        if isinstance(item, Part):
            written = self.sink.write_part(item)
        else:
            start_s = time.perf_counter()
            written = self.sink.write(item)
            if self.sink.is_measured:
                self._on_publish(1e3 * (time.perf_counter() - start_s))
        if self._failing is None or written is False:  # where there was nothing to write, nothing has recovered
            return
        if self._is_failure_told:  # else this might be told with every other frame
            logger.info("%s is written again and lacks %s", self._name, counted(self.failures, "frame"))
        self._failing, self._is_failure_told = None, False

    def _look(self) -> None:
        """See, now and then, whether the output is lost or back, and say so."""
        now_s, trouble = time.monotonic(), self.trouble
        if now_s < self._looks_s or (trouble is not None) == self._was_lost:
            return
        self._looks_s, self._was_lost = now_s + _LOOKS_EVERY_S, trouble is not None
        if self._tell is not None:
            kind: EventKind = "output-back" if trouble is None else "output-lost"
            said = "takes what it is given again" if trouble is None else f"takes nothing: {trouble}"
            self._tell(Event(kind, f"output {self._name} {said}", now_s))

    def _fail(self, error: Exception, item: _Item) -> None:
        self._failed += isinstance(item, Inspection | Part)
        self._failing = self._told(error)
        if self._failure_log.is_due():
            logger.error("%s (%s failed)", self._failing, counted(self.failures, "frame"))
            self._is_failure_told = True

    def _told(self, error: Exception) -> str:
        """What a sink raised, in one line."""
        if isinstance(error, StlmError):
            return str(error)
        logger.debug("%s", self._name, exc_info=error)
        return f"{self._name} cannot be written ({type(error).__name__}: {' '.join(str(error).split())})"
