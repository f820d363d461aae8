"""Ctrl-C, SIGTERM and SIGHUP end a run between two frames: none is counted and not written, or the reverse."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

    from runtime.sources import Frame, FrameSource

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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

    def __init__(self) -> None:
        super().__init__()
        self._waiting = False
        self._heard: set[int] = set()

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # Of the end of one terminal, word may come again while the program ends.
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP and number in self._heard else handler)

    def _handle(self, number: int, _: object) -> None:
        self._heard.add(number)
        # A terminal that ends says so twice, once itself and once by its shell, and systemd after its SIGTERM.
        is_second, self._requested = self._requested and number != signal.SIGHUP, True
        if is_second or self._waiting:
            self._waiting = False
            raise KeyboardInterrupt


@contextmanager
def heeding(number: int, do: Callable[[], object]) -> Iterator[None]:
    """While entered, a signal does this, between any two steps of the main thread."""
    before = signal.signal(number, lambda *_: do())
    try:
        yield
    finally:
        signal.signal(number, before)
