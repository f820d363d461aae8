"""What systemd is told of a line by `sd_notify(3)`: that it is ready, works, and ends."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Sequence

from runtime.closing import Closing
from runtime.line_control import Control
from runtime.sinks.base import OPEN
from runtime.sinks.outputs import Outputs
from stlm_edge.names import printable

logger = logging.getLogger(__name__)

_STATUS_S = 10.0
"""How often the status is told where systemd asks for no heartbeat."""


class Service(Closing):
    """Tells the service manager that the lines are ready, and then, as long as each makes progress, that they work.

    Does nothing unless systemd has started the program with `Type=notify`. Owns a thread until `close`.

    A line makes progress when a frame is judged, or was waited for in vain. So a camera that is lost is no hang, for it
    is tried again, and a network or loop that stands still is one: then no heartbeat is sent until it goes on.
    """

    def __init__(self, lines: Sequence[Control], *, outputs: Sequence[Outputs] = ()) -> None:
        """Args: outputs: whose states are told where they are more than open."""
        self._lines = lines
        self._outputs = outputs
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._ended = threading.Event()
        self._has_failed = False
        if self._address:
            self._send(f"READY=1\nSTATUS={self._status}")
            threading.Thread(target=self._run, name="service", daemon=True).start()

    def close(self) -> None:
        if self._address and not self._ended.is_set():
            self._ended.set()
            self._send("STOPPING=1")

    def _run(self) -> None:
        watchdog_s = _watchdog_s()
        every_s = _STATUS_S if watchdog_s is None else watchdog_s / 4
        seen: dict[Control, float] = {}
        while not self._ended.wait(every_s):
            progress = {line: line.status().progress_s for line in self._lines if not line.has_ended}
            stands = [line for line, at_s in progress.items() if seen.get(line) == at_s]
            seen = progress if not stands else seen
            beat = "WATCHDOG=1\n" if watchdog_s is not None and not stands else ""
            self._send(f"{beat}STATUS={self._status}")

    @property
    def _status(self) -> str:
        told = []
        for line in self._lines:
            status = line.status()
            state = "ended" if line.has_ended else "running" if status.recipe is None else f"recipe {status.recipe}"
            told.append(f"{state}, {status.parts} parts" if line.parts is not None else state)
        states = [item for outputs in self._outputs for item in outputs.states.items()]
        told += [f"{name} {state}" for name, state in states if state != OPEN]
        return printable("; ".join(told))

    def _send(self, message: str) -> None:
        # A name of Linux's own, which is no file, begins with a zero byte.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notified:
                notified.settimeout(1.0)
                notified.connect(address)
                notified.sendall(message.encode())
        except OSError as error:
            if not self._has_failed:
                logger.warning("systemd cannot be told at NOTIFY_SOCKET=%s: %s", self._address, error)
            self._has_failed = True


def _watchdog_s() -> float | None:
    """How often systemd wants a heartbeat of this process; None if it does not."""
    wanted, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not wanted.isdecimal() or int(wanted) == 0 or process not in (None, str(os.getpid())):
        return None
    return int(wanted) / 1e6
