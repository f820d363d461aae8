"""A GenICam camera as a source of frames."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from runtime.control import Trigger
from runtime.sources.base import Frame, FrameSource
from runtime.sources.camera import Pace
from runtime.sources.genicam.controls import Controls, apply
from runtime.sources.genicam.pixel_formats import FORMATS, decode
from runtime.sources.genicam.transport import Delivery, NodeError, Transport
from stlm_edge.errors import SourceError, SourceTimeout
from stlm_edge.imaging import Image, pixel_limit

_WAIT_S = 0.5
"""A read lasts no longer, so that one that waits for a trigger can be told from a driver that hangs."""
_SILENT_S = 5.0
_SILENT_PICTURES = 3
"""A camera that runs freely and sends nothing for both is lost."""
_MOST_MISSING = 1000
"""A larger step of the camera's counter is no loss of pictures but another beginning."""
_LAST_OF_16_BITS = 65535
"""GigE Vision's first version counts from 1 to here."""


class GenicamCamera(FrameSource):
    """One connection to a GenICam camera. `read` waits for the next picture.

    A picture of which packets are missing is a frame with the fault `incomplete`, and so is each that the camera has
    counted and of which nothing came; their images are black.
    """

    def __init__(
        self,
        open_transport: Callable[[], Transport],
        *,
        name: str,
        controls: Controls,
        fps: float | None = None,
        trigger: Trigger | None = None,
    ) -> None:
        """Open the camera, set it and have it send.

        Args:
            name: for frames and messages.
            fps: at most so many frames a second, unless it is triggered.
            trigger: what has it take a picture, `hardware` or `software`; with anything else it runs freely.
        Raises:
            SourceError: if it cannot be opened or set as wanted.
        """
        self._name = name
        self._trigger = trigger
        self._is_triggered = trigger in ("hardware", "software")
        self.fps = None if self._is_triggered else fps
        self._pace = Pace(self.fps)
        self._silent_s = max(_SILENT_S, _SILENT_PICTURES / self.fps) if self.fps else _SILENT_S
        self._waiting: deque[Frame] = deque()
        self._index = 0
        self._counter: int | None = None
        self._uncounted = 0
        self._transport = open_transport()
        try:
            apply(controls, self._transport, trigger=trigger, fps=self.fps)
            self._blank = self._black()
            self._transport.start()
        except NodeError as error:
            self._transport.close()
            raise SourceError(f"{name} cannot be started: {error}; unplug it and plug it in again") from None
        except SourceError as error:
            self._transport.close()
            raise SourceError(f"{name} cannot be opened: {error}") from None
        except BaseException:
            self._transport.close()
            raise
        self._heard_s = time.monotonic()

    def read(self) -> Frame | None:
        until_s = time.monotonic() + _WAIT_S
        while not self._waiting:
            delivery = self._transport.take(_WAIT_S)
            now_s = time.monotonic()
            if delivery is not None:
                self._heard_s = now_s
                self._receive(delivery, now_s)
            elif self._transport.loss is not None:
                raise SourceError(f"{self._name} is lost: {self._transport.loss}; check the camera and its cable")
            elif not self._is_triggered and now_s - self._heard_s >= self._silent_s:
                raise SourceError(
                    f"{self._name} has stopped delivering frames: nothing came for {now_s - self._heard_s:.1f} s; "
                    "check the camera and its cable"
                )
            if not self._waiting and now_s >= until_s:
                raise SourceTimeout(f"no picture of {self._name} yet")
        return self._waiting.popleft()

    def trigger(self) -> None:
        if self._trigger != "software":
            super().trigger()
        try:
            self._transport.write("TriggerSoftware", "true")
        except NodeError as error:
            raise SourceError(f"{self._name} was not triggered: {error}; check the camera and its cable") from None

    def close(self) -> None:
        self._transport.close()

    def _receive(self, delivery: Delivery, now_s: float) -> None:
        missing = self._missing(delivery)
        for back in range(missing, 0, -1):
            self._add_incomplete(now_s, counter=None if delivery.counter is None else delivery.counter - back)
        if delivery.data is None:
            self._add_incomplete(now_s, counter=delivery.counter)
        elif self._pace.wants(now_s):
            try:
                image = decode(delivery.data, code=delivery.code, size=delivery.size, is_plain=delivery.is_plain)
            except SourceError as error:
                raise SourceError(f"{self._name} cannot be read: {error}") from None
            if image.shape != self._blank.shape:
                self._blank = np.zeros_like(image)
            capture_ms = 1e3 * (time.monotonic() - now_s)
            self._add(Frame(image, self._index, now_s, self._name, capture_ms=capture_ms, counter=delivery.counter))

    def _missing(self, delivery: Delivery) -> int:
        """How many pictures the camera has counted since the last one, and nobody has been told of."""
        if delivery.counter is None:
            self._uncounted += 1
            return 0
        before, self._counter = self._counter, delivery.counter
        uncounted, self._uncounted = self._uncounted, 0
        if before is None:
            return 0
        steps = delivery.counter - before
        if steps < 0 and before <= _LAST_OF_16_BITS and _LAST_OF_16_BITS + steps < _MOST_MISSING:
            steps += _LAST_OF_16_BITS  # and began anew with 1
        missing = steps - 1 - uncounted
        return missing if 0 < missing < _MOST_MISSING else 0

    def _add_incomplete(self, now_s: float, *, counter: int | None) -> None:
        self._add(Frame(self._blank, self._index, now_s, self._name, fault="incomplete", counter=counter))

    def _add(self, frame: Frame) -> None:
        self._waiting.append(frame)
        self._index += 1

    def _black(self) -> Image:
        """In the size and colour that the camera is set to. Raises `NodeError`, `SourceError`."""
        height, width = (int(float(self._transport.read(node))) for node in ("Height", "Width"))
        if height * width > pixel_limit():
            raise SourceError(
                f"it delivers {height} x {width} (height x width), expected at most {pixel_limit() / 1e6:g} "
                "megapixels; have it deliver less by region=LEFT,TOP,WIDTH,HEIGHT"
            )
        is_grey = FORMATS[self._transport.format_code()].is_grey
        return np.zeros((height, width) if is_grey else (height, width, 3), np.uint8)
