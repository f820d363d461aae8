"""Waiting for what another thread or process does, and a port that nobody has."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any


def eventually(condition: Callable[[], Any], *, within_s: float = 20.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.002)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
