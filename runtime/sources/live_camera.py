"""A camera that is opened again, without end, whenever it is lost."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from runtime.event import Event, EventKind
from runtime.sources.base import Frame, FrameSource
from runtime.sources.connection import Connection
from runtime.sources.live import READ_TIMEOUT_S, LiveSource
from stlm_edge.credentials import without_credentials
from stlm_edge.errors import SourceError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, in seconds.

    Attributes:
        read_s: for a frame, until `read` raises `SourceTimeout`.
        open_s: for a driver that opens a camera, until its thread is left behind. Longer than a network camera's own
            time-outs for name, connection and stream together.
        hang_s: the same for one that reads. Longer than the drivers' own time-outs, which end a read in good order.
        first_delay_s: before a lost camera is opened again; doubled with each failure.
        most_delay_s: what the delay grows to.
        crowded_s: before a camera is opened again in whose driver `MOST_LEFT_BEHIND` threads hang; doubled with each
            that is added to them.
        steady_s: a connection that lasted so long lets the delays begin anew; a camera that comes and goes does not.
    """

    read_s: float = READ_TIMEOUT_S
    open_s: float = 20.0
    hang_s: float = 15.0
    first_delay_s: float = 0.5
    most_delay_s: float = 30.0
    crowded_s: float = 600.0
    steady_s: float = 10.0


MOST_LEFT_BEHIND = 3
"""Threads that may hang in a driver before the camera is tried again less and less often: nothing else than the end of
the program ends them, and yet the line must not give up. With pauses that double, a driver that hangs for a year costs
some twenty threads, and one that is mended is noticed after as long again as it hung at the latest."""

_SKIPS_TOLD_S = 60.0
"""A camera that gives a damaged picture now and then is worth a word no more often than this."""

_PACKETS = "check its cable, switch and network card, or have it send larger packets by node.GevSCPSPacketSize"

_CLOSING_S = 1.0


class _NowAndThen:
    """Events of a kind that may happen with every picture, of which one a minute is told."""

    def __init__(self, kind: EventKind, events: deque[Event]) -> None:
        self._kind: EventKind = kind
        self._events = events
        self._told_s = -math.inf
        self._untold = 0

    def tell(self, reason: str) -> None:
        """It has happened; to be called with a lock."""
        self._untold += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= _SKIPS_TOLD_S:
            others = f" ({self._untold} since the last such line)" if self._untold > 1 else ""
            self._events.append(Event(self._kind, without_credentials(f"{reason}{others}"), now_s))
            self._told_s, self._untold = now_s, 0


class LiveCamera(LiveSource):
    """Reads a camera on a thread of its own; a lost one is opened again until it comes back.

    Lost is a camera that fails, whose stream ends, or whose driver hangs, which a watchdog notices: then the thread is
    left behind, and closes the camera if the driver ever returns. Each outage makes an event `camera-lost`, and
    `camera-back` with the first frame after it; frames are counted on. A damaged picture is no loss: it is counted in
    `skipped` and told by an event `picture-skipped`, at most one a minute; so is one that lacks packets, a frame with a
    fault, by `picture-incomplete`.
    """

    def __init__(
        self,
        open_camera: Callable[[], FrameSource],
        *,
        name: str,
        patience: Patience | None = None,
        queue: int | None = None,
    ) -> None:
        """Open the camera for the first time.

        Args:
            open_camera: opens it, on a thread that is not the caller's; what it returns is used on that thread alone.
            name: for messages, without credentials.
            queue: so many frames may wait; None for the newest alone.
        Raises:
            SourceError: if it cannot be opened, or not in time. After that, nothing but `SourceTimeout` is raised.
        """
        self._patience = patience or Patience()
        super().__init__(name=name, timeout_s=self._patience.read_s, queue=queue)
        self._open_camera = open_camera
        self._changed = threading.Condition(self._lock)
        self._is_closing = False
        self._left_behind: list[Connection] = []
        self._events: deque[Event] = deque(maxlen=1000)  # of a caller who never asks
        self._lost_s: float | None = None
        self._skipped = _NowAndThen("picture-skipped", self._events)
        self._incomplete = _NowAndThen("picture-incomplete", self._events)
        self._first_index = self._next_index = 0
        self._connection = self._connect()
        self._wait_for_opening(self._connection)
        self._supervisor = threading.Thread(target=self._supervise, name="camera", daemon=True)
        self._supervisor.start()

    @property
    def is_connected(self) -> bool:
        connection = self._connection
        return connection.is_open and not connection.is_over and not connection.is_left

    def trigger(self) -> None:
        with self._lock:
            connection = self._connection
        connection.trigger()

    def take_events(self) -> list[Event]:
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def close(self) -> None:
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
            self._end(None)
            connection = self._connection
            connection.leave()
            self._changed.notify_all()
        self._supervisor.join(_CLOSING_S)
        if not connection.join(_CLOSING_S):
            logger.warning("%s does not answer, its driver hangs; left behind", self._name)

    def _connect(self) -> Connection:
        return Connection(self._open_camera, deliver=self._deliver, skip=self._skip, changed=self._changed)

    def _wait_for_opening(self, connection: Connection) -> None:
        try:
            with self._lock:
                self._changed.wait_for(lambda: connection.is_open or connection.is_over, self._patience.open_s)
        except BaseException:
            connection.leave()
            raise
        if connection.is_open:
            self.fps = connection.fps
        elif connection.is_over and connection.error is not None:
            raise connection.error
        else:
            connection.leave()
            raise SourceError(
                f"{self._name} cannot be opened: its driver has not answered for {self._patience.open_s:g} s; "
                "check the camera and its cable"
            )

    def _deliver(self, connection: Connection, frame: Frame) -> None:
        with self._lock:
            if connection.is_left:
                return
            if self._lost_s is not None:
                self.reconnects += 1
                self._event("camera-back", f"{self._name} is back after {time.monotonic() - self._lost_s:.1f} s")
                self._lost_s, self.fps = None, connection.fps
            if frame.fault == "incomplete":
                self._incomplete.tell(
                    f"a picture of {self._name} lacks packets, so it is a fault and no verdict; {_PACKETS}"
                )
            frame = replace(frame, index=self._first_index + frame.index)
            self._next_index = frame.index + 1
            self._put(frame)

    def _skip(self, connection: Connection, reason: str) -> None:
        with self._lock:
            if connection.is_left:
                return
            self._damage()
            self._skipped.tell(reason)

    def _supervise(self) -> None:
        patience, delay_s = self._patience, self._patience.first_delay_s
        reason: str | None = None
        while (loss := self._wait_for_loss(self._connection)) is not None:
            self._tell(loss, is_news=loss != reason)
            reason = loss
            if self._connection.is_open and time.monotonic() - self._connection.opened_s >= patience.steady_s:
                delay_s = patience.first_delay_s
            if not self._pause(delay_s * random.uniform(0.75, 1.25)):
                return
            delay_s = min(2 * delay_s, patience.most_delay_s)
            with self._lock:
                self._first_index = self._next_index
                if self._is_closing:
                    return
                self._connection = self._connect()

    def _wait_for_loss(self, connection: Connection) -> str | None:
        """Why the connection is lost, once it is; None when the source is closed."""
        with self._lock:
            while not self._is_closing:
                if connection.is_over:
                    return connection.reason
                most_s = self._patience.hang_s if connection.is_open else self._patience.open_s
                left_s = connection.busy_since_s + most_s - time.monotonic()
                if left_s <= 0:
                    connection.leave()
                    self._left_behind.append(connection)
                    return f"{self._name} hangs, its driver is silent for {most_s:g} s; check the camera and its cable"
                self._changed.wait(left_s)
        return None

    def _tell(self, reason: str, *, is_news: bool) -> None:
        with self._lock:
            if self._lost_s is None:
                self._lost_s = time.monotonic()
                text = f"{reason}; trying again until it is back"
                self._event("camera-lost", text)
                self._interrupt(text)
                return
        if is_news:
            logger.warning("still lost: %s", reason)

    def _pause(self, delay_s: float) -> bool:
        """Wait until another attempt is due and there is room for it; False when the source is closed."""
        with self._lock:
            self._changed.wait_for(lambda: self._is_closing, delay_s)
            crowd = self._crowd()
            if crowd >= MOST_LEFT_BEHIND:
                pause_s = self._patience.crowded_s * 2 ** (crowd - MOST_LEFT_BEHIND)
                logger.warning(
                    "%d threads hang in the driver of %s; it is tried again when one of them comes back, else in %.0f "
                    "minutes; starting the program again is sooner",
                    crowd,
                    self._name,
                    pause_s / 60,
                )
                self._changed.wait_for(lambda: self._is_closing or self._crowd() < crowd, pause_s)
            return not self._is_closing

    def _crowd(self) -> int:
        """How many threads hang at present."""
        self._left_behind = [connection for connection in self._left_behind if not connection.is_over]
        return len(self._left_behind)

    def _event(self, kind: EventKind, text: str) -> None:
        self._events.append(Event(kind, text, time.monotonic()))
