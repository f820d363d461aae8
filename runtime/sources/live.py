"""Live sources: a thread captures, and whoever reads gets the newest frame."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from runtime.sources.base import Frame, FrameSource
from stlm_edge.errors import SourceError, SourceTimeout

logger = logging.getLogger(__name__)

READ_TIMEOUT_S = 5.0


class LiveSource(FrameSource):
    """Reads another source on a thread of its own, so that an inspection never lags behind the line.

    A frame that is overtaken by a newer one is counted in `dropped`. The last frame before the end of the stream or
    an error is still delivered.
    """

    def __init__(self, inner: FrameSource, *, interval_s: float = 0.0, timeout_s: float = READ_TIMEOUT_S) -> None:
        """Start the thread, which owns `inner` and closes it.

        Args:
            interval_s: pace of the reading, for an inner source that has none of its own.
            timeout_s: how long `read` waits for a frame.
        """
        self.fps = inner.fps
        self._inner = inner
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._is_over = False
        self._error: Exception | None = None
        self._closing = threading.Event()
        # A daemon: a driver that never returns must not keep the program from ending.
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)
        self._thread.start()

    def read(self) -> Frame | None:
        with self._changed:
            arrived = self._changed.wait_for(lambda: self._newest is not None or self._is_over, self._timeout_s)
            if not arrived:
                raise SourceTimeout(
                    f"no frame for {self._timeout_s:g} s from a source that is open; check the camera and its cable"
                )
            frame, self._newest = self._newest, None
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def close(self) -> None:
        self._closing.set()
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            logger.warning("the capture thread does not end, its driver hangs; left behind")

    def _capture(self) -> None:
        try:
            with self._inner as inner:
                self._run(inner)
        except Exception as error:  # whatever ends this thread is for the reader to raise
            self._error = error
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _run(self, inner: FrameSource) -> None:
        due_s = time.monotonic()
        while not self._closing.wait(due_s - time.monotonic()):
            frame = inner.read()
            if frame is None:
                return
            with self._changed:
                self.dropped += self._newest is not None
                self._newest = frame
                self._changed.notify_all()
            due_s = max(due_s + self._interval_s, time.monotonic())


class Camera(FrameSource):
    """A camera by its index, at the size and rate that its driver chooses; `read` waits for the next exposure."""

    def __init__(self, index: int) -> None:
        """Raises `SourceError` if there is no such camera or it is in use."""
        self._name = f"camera {index}"
        self._index = 0
        device = Path(f"/dev/video{index}")
        # Asked first, since OpenCV complains in words of its own.
        capture = cv2.VideoCapture(index, cv2.CAP_V4L2) if device.exists() else None
        if capture is None or not capture.isOpened():
            raise SourceError(
                f"{self._name} cannot be opened, expected {device} to be there and not in use; "
                "list the cameras: ls /dev/video*"
            )
        self._capture = capture
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None

    def read(self) -> Frame | None:
        done, image = self._capture.read()
        timestamp_s = time.monotonic()
        if not done:
            raise SourceError(f"{self._name} has stopped delivering frames; check its cable and start again")
        frame = Frame(np.asarray(image, np.uint8), self._index, timestamp_s, self._name)
        self._index += 1
        return frame

    def close(self) -> None:
        self._capture.release()
