"""What live sources have in common: a thread captures; whoever reads gets the newest frame, or each in its turn."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque

from runtime.sources.base import Arrivals, Frame, FrameSource
from stlm_edge.errors import SourceError, SourceTimeout

READ_TIMEOUT_S = 5.0

_MOST_EARLY = 100_000
"""Overruns that are remembered for somebody who begins to listen; nobody does in a program without parts."""


class LiveSource(FrameSource):
    """Hands over the newest frame, so that an inspection never lags behind the line; or, with a queue, every frame.

    A frame that is overtaken by a newer one, or finds the queue full, is counted in `dropped`. What came before the end
    of the stream or an error is still delivered. A subclass captures on a thread of its own and calls `_put`,
    `_damage`, `_interrupt` and `_end`.
    """

    is_live = True

    def __init__(self, *, name: str, timeout_s: float, queue: int | None = None) -> None:
        """
        Args:
            name: for messages, without credentials.
            timeout_s: how long `read` waits for a frame.
            queue: so many frames may wait; None for the newest alone.
        """
        self.queue = queue
        self._name = name
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._frames: deque[Frame] = deque()
        self._arrivals: Arrivals | None = None
        self._early_overruns_s: deque[float] = deque(maxlen=_MOST_EARLY)
        self._trouble: str | None = None
        self._is_over = False
        self._error: Exception | None = None

    @property
    def waiting(self) -> int:
        return len(self._frames)

    def read(self) -> Frame | None:
        with self._lock:
            arrived = self._arrived.wait_for(
                lambda: self._frames or self._is_over or self._trouble is not None, self._timeout_s
            )
            trouble, self._trouble = self._trouble, None
            if not self._frames and not self._is_over and trouble is not None:
                raise SourceTimeout(trouble)
            if not arrived:
                raise SourceTimeout(
                    f"no frame for {self._timeout_s:g} s from {self._name}; check it and its cable, or go on waiting"
                )
            return self._take()

    def poll(self) -> Frame | None:
        with self._lock:
            return self._take()

    def listen(self, arrivals: Arrivals) -> None:
        if self.queue is None:
            return
        with self._lock:
            self._arrivals = arrivals
            frames = list(self._frames)
            self._frames.clear()
            for frame in frames:
                self._enqueue(frame)
            for timestamp_s in self._early_overruns_s:
                arrivals.overrun(timestamp_s)

    def wake(self) -> None:
        with self._lock:
            self._trouble = "nobody waits for a frame any more; read on"
            self._arrived.notify_all()

    def _take(self) -> Frame | None:
        if self._frames:
            return self._frames.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _put(self, frame: Frame) -> None:
        """A new frame has come. The lock is held."""
        self._trouble = None
        if self.queue is not None:
            self._enqueue(frame)
        else:
            self.dropped += len(self._frames)
            self._frames.clear()
            self._frames.append(frame)
        self._arrived.notify_all()

    def _enqueue(self, frame: Frame) -> None:
        if len(self._frames) == self.queue:
            self.dropped += 1
            if self._arrivals is None:
                self._early_overruns_s.append(frame.timestamp_s)
            else:
                self._arrivals.overrun(frame.timestamp_s)
        elif self._arrivals is None or self._arrivals.arrived(frame):
            self._frames.append(frame)
        else:
            self.dropped += 1

    def _damage(self) -> None:
        """A frame has come that is not whole. The lock is held."""
        self.skipped += 1
        if self._arrivals is not None:
            self._arrivals.damaged()

    def _interrupt(self, trouble: str) -> None:
        """Frames will not come for a while: whoever waits for one is told at once, and once. The lock is held."""
        self._trouble = trouble
        if self._arrivals is not None:
            self._arrivals.interrupted()
        self._arrived.notify_all()

    def _end(self, error: Exception | None) -> None:
        """No frame will come any more. The lock is held."""
        self._is_over, self._error = True, error
        self._arrived.notify_all()


class PlayedSource(LiveSource):
    """Plays what was recorded or is drawn, at a pace, as if a camera saw it; ends where the recording ends."""

    def __init__(
        self,
        inner: FrameSource,
        *,
        fps: float | None,
        name: str,
        timeout_s: float = READ_TIMEOUT_S,
        queue: int | None = None,
    ) -> None:
        """Start the thread, which owns `inner` and closes it."""
        super().__init__(name=name, timeout_s=timeout_s, queue=queue)
        self.fps = fps
        self._inner = inner
        self._closing = threading.Event()
        # A daemon: a disk that never answers must not keep the program from ending.
        self._thread = threading.Thread(target=self._play, name="playing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=1.0)

    def _play(self) -> None:
        error: Exception | None = None
        try:
            with self._inner as inner:
                self._run(inner)
        except Exception as caught:  # whatever ends this thread is for the reader to raise
            error = caught
        with self._lock:
            self._end(error)

    def _run(self, inner: FrameSource) -> None:
        assert self.fps is not None
        due_s = time.monotonic()
        while not self._closing.wait(due_s - time.monotonic()):
            frame = inner.read()
            with self._lock:
                self._count_damaged(inner)
                if frame is None:
                    return
                self._put(frame)
            due_s = max(due_s + 1 / self.fps, time.monotonic())

    def _count_damaged(self, inner: FrameSource) -> None:
        while self.skipped < inner.skipped:
            self._damage()


class TriggeredSource(PlayedSource):
    """Captures the next picture of what was recorded or is drawn at each trigger, as a camera in trigger mode does.

    A trigger while another one waits for its picture is ignored.
    """

    def __init__(self, inner: FrameSource, *, name: str, queue: int, timeout_s: float = READ_TIMEOUT_S) -> None:
        """Start the thread, which owns `inner` and closes it."""
        self._is_triggered = False
        super().__init__(inner, fps=None, name=name, timeout_s=timeout_s, queue=queue)

    def trigger(self) -> None:
        with self._lock:
            if self._is_over:
                raise SourceError(f"{self._name} has no other picture; give one with more, or end the run")
            self._is_triggered = True
            self._arrived.notify_all()

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            self._arrived.notify_all()
        super().close()

    def _run(self, inner: FrameSource) -> None:
        while (frame := inner.read()) is not None:
            with self._lock:
                self._count_damaged(inner)
                self._arrived.wait_for(lambda: self._is_triggered or self._closing.is_set())
                if self._closing.is_set():
                    return
                self._is_triggered = False
                self._put(dataclasses.replace(frame, timestamp_s=time.monotonic()))
