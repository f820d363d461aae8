"""When something that happens often is put into the log."""

from __future__ import annotations

import time

_LOGGED_EVERY_S = 60.0


class Seldom:
    """Says whether something that happens often should be logged: the first time, then once a minute."""

    def __init__(self) -> None:
        self._last_s: float | None = None

    def is_due(self) -> bool:
        now_s = time.monotonic()
        if self._last_s is not None and now_s - self._last_s < _LOGGED_EVERY_S:
            return False
        self._last_s = now_s
        return True
