"""Which pictures wait for a decision, and which of them somebody has before them. Not for several threads at once."""

from __future__ import annotations

import bisect
import time

_LEASE_S = 600.0
"""A picture that somebody has before them and does nothing with goes to others after that."""


class Queue:
    """Pictures by their numbers, the lowest first, and the session that has each."""

    def __init__(self) -> None:
        self._waiting: list[int] = []
        self._held: dict[int, str] = {}
        self._seen_s: dict[str, float] = {}

    @property
    def open(self) -> int:
        """How many are not decided."""
        return len(self._waiting) + len(self._held)

    @property
    def held(self) -> int:
        """How many of these somebody has."""
        return len(self._held)

    def add(self, number: int) -> None:
        bisect.insort(self._waiting, number)

    def next(self, session: str) -> int | None:
        """The next picture that nobody has; it is this session's from now on. None where there is none: to ask in vain
        is to do nothing, since a page asks by itself.
        """
        oldest_s = time.monotonic() - _LEASE_S
        for silent in [name for name, seen_s in self._seen_s.items() if seen_s < oldest_s and name != session]:
            self.release(silent)
        if not self._waiting:
            return None
        self.touch(session)
        self._held[self._waiting[0]] = session
        return self._waiting.pop(0)

    def touch(self, session: str) -> None:
        """Note that a session does something."""
        self._seen_s[session] = time.monotonic()

    def again(self, number: int) -> None:
        """Have a picture wait that somebody has, as one that was changed."""
        if self._held.pop(number, None) is not None:
            self.add(number)

    def give(self, number: int, session: str) -> None:
        """Give a picture that was decided to a session again."""
        self._held[number] = session

    def remove(self, number: int) -> None:
        """Take out what is decided, or gone."""
        self._held.pop(number, None)
        place = bisect.bisect_left(self._waiting, number)
        if self._waiting[place : place + 1] == [number]:
            del self._waiting[place]

    def release(self, session: str) -> None:
        """Have all that a session has wait again."""
        self._seen_s.pop(session, None)
        for number in [number for number, owner in self._held.items() if owner == session]:
            del self._held[number]
            self.add(number)
