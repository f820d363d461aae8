"""Notices an engine that does not answer. No thread can be called back from a driver, so all that is left is to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runtime.closing import Closing

INFERENCE_S = 60.0
"""How long an inference may take, by default, for each picture of its batch."""
OPENING = 5
"""Opening an engine may take as long as so many pictures, since TensorRT-RTX and OpenVINO compile it then; so may
starting everything else."""

_LOOKS = 20
"""How often it is looked within the limit, and at least once a second."""


@dataclass(frozen=True, eq=False)
class _Watched:
    what: str
    limit_s: float


class Watchdog(Closing):
    """Looks from a thread of its own whether what is watched ends in time. Owns that thread until `close`.

    Its clock stands still while the program is stopped, by Ctrl-Z or a debugger.
    """

    def __init__(self, limit_s: float = INFERENCE_S, *, on_hang: Callable[[str], object]) -> None:
        """
        Args:
            limit_s: for one picture, in seconds.
            on_hang: is told once, on the watchdog's thread, what does not end and for how long.
        """
        self._limit_s = limit_s
        self._on_hang = on_hang
        self._watched: set[_Watched] = set()
        self._closed = threading.Event()
        # A daemon, since `on_hang` may end the program while it runs.
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self, what: str, *, pictures: int = 1) -> Iterator[None]:
        """Watch the block, on any thread.

        Args:
            what: that is done in it, for people.
            pictures: each of them may take the limit.
        """
        watched = _Watched(what, pictures * self._limit_s)
        self._watched.add(watched)
        try:
            yield
        finally:
            self._watched.discard(watched)

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        every_s = min(1.0, self._limit_s / _LOOKS)
        lasts_s: dict[_Watched, float] = {}
        while not self._closed.wait(every_s):
            # A copy of a set is made at once, whatever other threads do.
            lasts_s = {watched: lasts_s.get(watched, -every_s) + every_s for watched in self._watched.copy()}
            for watched, so_far_s in lasts_s.items():
                if so_far_s >= watched.limit_s:
                    self._on_hang(
                        f"{watched.what} has not ended for {watched.limit_s:g} s; check the device, export the engine "
                        "again, or allow more: --inference-timeout"
                    )
                    return
