"""What live sources have in common: a thread captures, and whoever reads gets the newest frame."""

from __future__ import annotations

import threading
import time

from runtime.sources.base import Frame, FrameSource
from stlm_edge.errors import SourceTimeout

READ_TIMEOUT_S = 5.0


class LiveSource(FrameSource):
    """Hands over the newest frame, so that an inspection never lags behind the line.

    A frame that is overtaken by a newer one is counted in `dropped`. The last frame before the end of the stream or
    an error is still delivered. A subclass captures on a thread of its own and calls `_put`, `_interrupt` and `_end`.
    """

    is_live = True

    def __init__(self, *, name: str, timeout_s: float) -> None:
        """
        Args:
            name: for messages, without credentials.
            timeout_s: how long `read` waits for a frame.
        """
        self._name = name
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._newest: Frame | None = None
        self._trouble: str | None = None
        self._is_over = False
        self._error: Exception | None = None

    def read(self) -> Frame | None:
        with self._lock:
            arrived = self._arrived.wait_for(
                lambda: self._newest is not None or self._is_over or self._trouble is not None, self._timeout_s
            )
            trouble, self._trouble = self._trouble, None
            if self._newest is None and not self._is_over and trouble is not None:
                raise SourceTimeout(trouble)
            if not arrived:
                raise SourceTimeout(
                    f"no frame for {self._timeout_s:g} s from {self._name}; check it and its cable, or go on waiting"
                )
            return self._take()

    def poll(self) -> Frame | None:
        with self._lock:
            return self._take()

    def _take(self) -> Frame | None:
        frame, self._newest = self._newest, None
        if frame is None and self._error is not None:
            raise self._error
        return frame

    def _put(self, frame: Frame) -> None:
        """A new frame has come. The lock is held."""
        self.dropped += self._newest is not None
        self._newest, self._trouble = frame, None
        self._arrived.notify_all()

    def _interrupt(self, trouble: str) -> None:
        """Frames will not come for a while: whoever waits for one is told at once, and once. The lock is held."""
        self._trouble = trouble
        self._arrived.notify_all()

    def _end(self, error: Exception | None) -> None:
        """No frame will come any more. The lock is held."""
        self._is_over, self._error = True, error
        self._arrived.notify_all()


class PlayedSource(LiveSource):
    """Plays what was recorded or is drawn, at a pace, as if a camera saw it; ends where the recording ends."""

    def __init__(self, inner: FrameSource, *, fps: float, name: str, timeout_s: float = READ_TIMEOUT_S) -> None:
        """Start the thread, which owns `inner` and closes it."""
        super().__init__(name=name, timeout_s=timeout_s)
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
                self.skipped = inner.skipped
                if frame is None:
                    return
                self._put(frame)
            due_s = max(due_s + 1 / self.fps, time.monotonic())
