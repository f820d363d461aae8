"""Ctrl-C, SIGTERM and SIGHUP end a run between two frames: none is counted and not written, or the reverse."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

    from runtime.sources import Frame, FrameSource

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ANSWERS_S = 1.0
"""What is not in a library's call hears of a signal sooner."""
_NOHUP = (signal.SIGHUP, signal.SIG_IGN)


class StopRequest:
    """Asks a line to end between two frames, from any thread."""

    def __init__(self) -> None:
        self._requested = False

    @property
    def requested(self) -> bool:
        """Whether it was asked."""
        return self._requested

    def request(self) -> None:
        """Ask for the end."""
        self._requested = True

    def read(self, source: FrameSource) -> Frame | None:
        """`source.read()`; None once a stop was asked for. Whoever asks for it wakes the source."""
        return None if self._requested else source.read()


class StopSignals(StopRequest):
    """While entered, a signal lets the frame in hand be finished; a second, other than SIGHUP, interrupts at once."""

    def __init__(self, *, on_stuck: Callable[[], object] | None = None) -> None:
        """
        Args:
            on_stuck: is called on another thread where the main one cannot be interrupted, being in an inference or a
                driver: Python counts what comes meanwhile as one signal.
        """
        super().__init__()
        self._on_stuck = on_stuck
        self._waiting = False
        self._heard: set[int] = set()
        self._is_interrupted = self._is_over = False

    def read(self, source: FrameSource) -> Frame | None:
        """`source.read()`, which a signal may interrupt; None once a stop was asked for."""
        try:
            self._waiting = not self._requested
            frame = source.read() if self._waiting else None
            self._waiting = False
        except KeyboardInterrupt:
            frame = None
        finally:
            self._waiting = False
        return frame

    def __enter__(self) -> Self:
        # Set even where they are ignored, since a shell starts background programs with SIGINT ignored. It is `nohup`
        # that has SIGHUP ignored, and that is meant.
        heeded = [number for number in _SIGNALS if (number, signal.getsignal(number)) != _NOHUP]
        self._previous = {number: signal.signal(number, self._handle) for number in heeded}
        numbers, self._numbers = os.pipe()
        os.set_blocking(self._numbers, False)
        self._previous_numbers = signal.set_wakeup_fd(self._numbers, warn_on_full_buffer=False)
        threading.Thread(target=self._count, args=(numbers,), name="signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        signal.set_wakeup_fd(self._previous_numbers)
        os.close(self._numbers)
        for number, handler in self._previous.items():
            # Of the end of one terminal, word may come again while the program ends.
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP and number in self._heard else handler)

    def _count(self, numbers: int) -> None:
        """Python writes the number of each signal into a pipe, whatever the main thread does."""
        asked = 0
        with open(numbers, "rb", buffering=0) as heard:
            while number := heard.read(1):
                if number[0] not in (signal.SIGINT, signal.SIGTERM):
                    continue
                asked += 1
                if asked == 2 and self._on_stuck is not None:
                    time.sleep(_ANSWERS_S)
                    if not (self._is_interrupted or self._is_over):
                        self._on_stuck()

    def _handle(self, number: int, _: object) -> None:
        self._heard.add(number)
        # A terminal that ends says so twice, once itself and once by its shell, and systemd after its SIGTERM.
        is_second, self._requested = self._requested and number != signal.SIGHUP, True
        if is_second or self._waiting:
            self._waiting = False
            self._is_interrupted = is_second
            raise KeyboardInterrupt


@contextmanager
def heeding(number: int, do: Callable[[], object]) -> Iterator[None]:
    """While entered, a signal does this, between any two steps of the main thread."""
    before = signal.signal(number, lambda *_: do())
    try:
        yield
    finally:
        signal.signal(number, before)
