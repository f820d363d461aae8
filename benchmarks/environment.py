"""On what a figure was obtained, in the words that all records share."""

from __future__ import annotations

import os
import platform


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> str:
    """Processor architecture, cores and Python version; no name of the machine."""
    return f"{platform.machine()}, {cores()} cores, Python {platform.python_version()}"
