"""Which size, rate and direction frames should have, and how each source is brought to that."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from runtime.control import Trigger
from runtime.sources.base import Frame, FrameSource
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Image, resize

if TYPE_CHECKING:
    from runtime.event import Event
    from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

QUEUE = 8
"""Frames that may wait, unless something else is asked for: eight of five megapixels in colour are 120 MB."""

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a source, the same for all of them.

    A camera is asked for the size and the rate; what it delivers otherwise is resized and thinned out.

    Attributes:
        width, height: of the frame as delivered, so after turning; both or neither.
        fps: at most so many frames a second of a camera. Recorded pictures are played at this pace, and are then a
            live source that drops what is not read in time.
        rotate: clockwise, 0, 90, 180 or 270 degrees.
        trigger: what frames come by, of which each is then delivered; None for a camera that runs free.
        queue: so many of them may wait; None for 8.
    Raises:
        ConfigError: if a value is out of range, or one of width and height is missing.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    rotate: int = 0
    trigger: Trigger | None = None
    queue: int | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ConfigError(f"found width {self.width} and height {self.height}, expected both or neither; give both")
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"found a size of {_format(self.size)}, expected pixels; give numbers from 1 on")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ConfigError(f"found {self.fps:g} frames a second, expected a rate; give a number above 0")
        if self.queue is not None and self.queue < 1:
            raise ConfigError(f"found a queue for {self.queue} frames, expected room for one; give a number from 1 on")
        if self.queue is not None and self.trigger is None:
            raise ConfigError(
                f"found a queue for {self.queue} frames and no trigger, but of a camera that runs free the newest "
                "wins; give --trigger fifo to have every frame of it inspected, or leave --queue out"
            )
        if self.rotate not in (0, *_TURNS):
            raise ConfigError(
                f"found a rotation of {self.rotate} degrees, expected 0, 90, 180 or 270; give one of them"
            )

    @property
    def waiting(self) -> int | None:
        """How many frames of a live source may wait; None where the newest wins."""
        return None if self.trigger is None else self.queue or QUEUE

    @property
    def size(self) -> Size | None:
        """(height, width) of the frame as delivered."""
        return None if self.width is None or self.height is None else (self.height, self.width)

    @property
    def size_before_turning(self) -> Size | None:
        """(height, width) to ask a camera for."""
        return self.size[::-1] if self.size is not None and self.rotate in (90, 270) else self.size


class Shaper:
    """Turns and resizes frames as asked, and says so in the log whenever their size before that is a new one."""

    def __init__(self, options: SourceOptions, *, is_camera: bool) -> None:
        """
        Args:
            is_camera: frames that change their size are worth a line; in a folder they are nothing special.
        """
        self._options = options
        self._is_camera = is_camera
        self._found: Size | None = None

    def __call__(self, frame: Frame) -> Frame:
        started_s = time.monotonic()
        image = frame.image
        if self._options.rotate:
            image = np.asarray(cv2.rotate(image, _TURNS[self._options.rotate]), np.uint8)
        self._tell(frame, image)
        if self._options.size is not None:
            image = resize(image, self._options.size)
        if image is frame.image:
            return frame
        shaping_ms = 1e3 * (time.monotonic() - started_s)
        return dataclasses.replace(frame, image=image, file=None, capture_ms=frame.capture_ms + shaping_ms)

    def _tell(self, frame: Frame, image: Image) -> None:
        height, width = image.shape[:2]
        before, self._found = self._found, (height, width)
        wanted = self._options.size
        if self._found == before or (before is not None and not self._is_camera):
            return
        if wanted is not None and wanted != self._found:
            logger.warning(
                "%s delivers %s, asked for were %s: resized", frame.source, _format(self._found), _format(wanted)
            )
        elif before is not None:
            logger.warning(
                "%s delivers %s now, before that it was %s", frame.source, _format(self._found), _format(before)
            )


class Shaped(FrameSource):
    """Another source, which it owns, with its frames turned and resized."""

    def __init__(self, inner: FrameSource, shaper: Shaper) -> None:
        self._inner = inner
        self._shaper = shaper
        self.fps = inner.fps
        self.is_live = inner.is_live

    def read(self) -> Frame | None:
        return self._shape(self._inner.read())

    def poll(self) -> Frame | None:
        return self._shape(self._inner.poll())

    def trigger(self) -> None:
        self._inner.trigger()

    def wake(self) -> None:
        self._inner.wake()

    def take_events(self) -> list[Event]:
        return self._inner.take_events()

    def close(self) -> None:
        self._inner.close()

    def _shape(self, frame: Frame | None) -> Frame | None:
        self.dropped, self.skipped = self._inner.dropped, self._inner.skipped
        self.reconnects = self._inner.reconnects
        return None if frame is None else self._shaper(frame)


def _format(size: Size) -> str:
    return f"{size[0]} x {size[1]} (height x width)"
