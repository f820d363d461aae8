"""A camera or stream that OpenCV has opened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np

from runtime.sources.base import Frame, FrameSource
from stlm_edge.errors import FrameDamaged, SourceError
from stlm_edge.imaging import Image, pixel_limit

_DAMAGED_S = 10.0


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def grab(self) -> bool:
        """Wait for the next picture; whether one came."""

    def retrieve(self) -> tuple[bool, Any]:
        """Whether the picture could be decoded, and its pixels."""

    def get(self, which: int, /) -> float:
        """One of OpenCV's properties, 0 where it is not known."""

    def release(self) -> None:
        """Give the camera back."""


class Pace:
    """Lets exposures pass so that no more than so many a second are wanted."""

    def __init__(self, fps: float | None) -> None:
        self._interval_s = 1 / fps if fps else 0.0
        self._due_s = 0.0

    def wants(self, timestamp_s: float) -> bool:
        """Half an interval of tolerance, so that a camera of just this rate that is a little early loses none."""
        if timestamp_s < self._due_s - self._interval_s / 2:
            return False
        self._due_s = max(self._due_s, timestamp_s) + self._interval_s
        return True

    def take_next(self) -> None:
        """Want the next exposure, however soon it comes."""
        self._due_s = 0.0


class Camera(FrameSource):
    """Reads one connection to a camera, until it is lost. `read` waits for the next exposure.

    A rate that is asked for is kept by letting exposures pass, which are then not decoded. A picture that cannot be
    decoded is counted in `skipped` and raised as `FrameDamaged`; a camera that gives no other for its time is lost.
    """

    def __init__(
        self,
        capture: Capture,
        *,
        name: str,
        fps: float | None = None,
        silent_s: float = math.inf,
        damaged_s: float = _DAMAGED_S,
        reason: Callable[[], str | None] = lambda: None,
        file: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        """Take over `capture`, which is open.

        Args:
            name: for frames and messages, without credentials.
            fps: at most so many frames a second.
            silent_s: a frame that took so long is none: after its time-out FFmpeg hands out what its decoder held back.
            damaged_s: how long it may give damaged pictures and no whole one.
            reason: asked when no frame came; None where nothing more is known.
            file: asked for the frame's own file once it is decoded; None where there is none.
        Raises:
            SourceError: if its frames are larger than any picture may be.
        """
        require_size(capture, name=name)
        self._capture = capture
        self._name = name
        self._silent_s = silent_s
        self._damaged_s = damaged_s
        self._whole_s = time.monotonic()
        self._reason = reason
        self._file = file
        self._pace = Pace(fps)
        self._index = 0
        own = capture.get(cv2.CAP_PROP_FPS)
        # Streams that do not know their rate tell their clock's, such as 90000.
        known = own if 0 < own <= 1000 else None
        self.fps = min(fps, known) if fps and known else fps or known

    def read(self) -> Frame | None:
        while True:
            asked_s = time.monotonic()
            done = self._capture.grab()
            timestamp_s = time.monotonic()
            waited_s = timestamp_s - asked_s
            if not done or waited_s >= self._silent_s:
                raise self._lost(waited_s)
            if self._pace.wants(timestamp_s):
                break
        try:
            done, found = self._capture.retrieve()
        except cv2.error:
            done = False
        if not done:
            raise self._damaged()
        image = _as_picture(found, name=self._name)
        self._whole_s = time.monotonic()
        capture_ms = 1e3 * (time.monotonic() - timestamp_s)
        frame = Frame(image, self._index, timestamp_s, self._name, capture_ms=capture_ms, file=self._file())
        self._index += 1
        return frame

    def close(self) -> None:
        self._capture.release()

    def _damaged(self) -> SourceError:
        self.skipped += 1
        self._index += 1
        self._pace.take_next()  # in this one's place
        problem = self._reason() or "it cannot be decoded"
        damaged_s = time.monotonic() - self._whole_s
        if damaged_s < self._damaged_s:
            return FrameDamaged(f"a picture of {self._name} was skipped: {problem}; check the camera and its cable")
        return SourceError(
            f"{self._name} has given damaged pictures alone for {damaged_s:.1f} s: {problem}; check the camera and its "
            "cable"
        )

    def _lost(self, waited_s: float) -> SourceError:
        reason = self._reason() or (
            f"nothing came for {waited_s:.1f} s" if waited_s >= 1 else "its stream ended or it was unplugged"
        )
        return SourceError(f"{self._name} has stopped delivering frames: {reason}; check the camera and its cable")


def require_size(capture: Capture, *, name: str) -> None:
    """Release `capture` and raise `SourceError` if its frames are larger than any picture may be."""
    width, height = (int(capture.get(which)) for which in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > pixel_limit():
        capture.release()
        raise SourceError(
            f"{name} delivers {height} x {width} (height x width), expected at most {pixel_limit() / 1e6:g} "
            "megapixels; have it deliver a smaller size"
        )


def _as_picture(found: np.ndarray, *, name: str) -> Image:
    if found.dtype != np.uint8:
        raise SourceError(
            f"{name} delivers {found.dtype} pixels, expected 8 bits; set the camera's format to BGR or grey"
        )
    if found.ndim == 2 or found.shape[2] == 3:
        return found
    if found.shape[2] == 1:
        return found[:, :, 0]
    raise SourceError(
        f"{name} delivers {found.shape[2]} channels, expected 3 or 1; set the camera's format to BGR or grey"
    )
