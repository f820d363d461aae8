"""Regular expressions that a user gives, without a heavy import: the settings of a training have one."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stlm_edge.errors import ConfigError, DataError, shown

LONGEST_S = 5.0
"""For all names; a usual expression takes a second for a million of them, a catastrophic one years for one."""


def compiled(pattern: str) -> re.Pattern[str]:
    """What finds the part in a picture's name. Raises `ConfigError` if it is no regular expression."""
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"--group-by is {shown(pattern)}, expected a regular expression ({error}); for example '^(tile[0-9]+)_'"
        ) from None


def found_in(pattern: str, names: Sequence[str]) -> list[str]:
    """What an expression finds in each name: its first group, or all of it.

    Raises:
        ConfigError: if it is none, or takes longer than `LONGEST_S`.
        DataError: if it finds nothing in a name.
    """
    expression = compiled(pattern)
    found = []
    with _in_time(pattern):
        for name in names:
            match = expression.search(name)
            part = None if match is None else match[1 if expression.groups else 0]
            if not part:
                raise DataError(
                    f"--group-by {shown(pattern)} finds no part in the name {name} (without suffix), expected one in "
                    "the name of each picture; give another expression, or a file of --groups"
                )
            found.append(part)
    return found


@contextmanager
def _in_time(pattern: str) -> Iterator[None]:
    """Ends a search by a signal, which Python's engine looks for as it does for Ctrl-C.

    Only a program's first thread can have one; in others there is no limit, as commands do not search there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> None:
        raise ConfigError(
            f"--group-by {shown(pattern)} takes longer than {LONGEST_S:g} s, since it repeats what it repeats (as "
            "(a+)+ does) and tries every way; give a simpler one, for example '^(tile[0-9]+)_', or a file of --groups"
        )

    before = signal.signal(signal.SIGALRM, give_up)
    timer = signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
