"""One connection to a camera, on its own thread: a read that hangs cannot be interrupted, but left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from runtime.sources.base import Frame, FrameSource
from stlm_edge.credentials import without_credentials
from stlm_edge.errors import FrameDamaged, SourceError, SourceTimeout, StlmError


class Connection:
    """Opens a camera, hands its frames on until it is lost, and closes it; all of that on its own thread.

    What it says of itself changes while it holds `changed`, by which it tells of the change.

    Attributes:
        is_open: the camera has been opened.
        is_over: the thread has ended, and the camera is closed.
        error: why it ended, None while it runs.
        fps: of the camera.
        opened_s: when, on the clock of `time.monotonic`.
    """

    def __init__(
        self,
        open_camera: Callable[[], FrameSource],
        *,
        deliver: Callable[[Connection, Frame], None],
        skip: Callable[[Connection, str], None],
        changed: threading.Condition,
    ) -> None:
        """
        Args:
            deliver: is given each frame.
            skip: is told of each picture that was none, and why.
        """
        self.is_open = False
        self.is_over = False
        self.error: Exception | None = None
        self.fps: float | None = None
        self.opened_s = time.monotonic()
        self._open_camera = open_camera
        self._deliver = deliver
        self._skip = skip
        self._changed = changed
        self._camera: FrameSource | None = None
        self._is_wanted = True
        self._busy_since_s = time.monotonic()
        # A daemon: a driver that never returns must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no room for a thread now; that is a lost camera, and tried again
            self.is_over, self.error = True, error

    @property
    def busy_since_s(self) -> float:
        """Since when the camera's driver has been asked to open or for the present frame."""
        return self._busy_since_s

    @property
    def is_left(self) -> bool:
        """Nobody wants its frames any more."""
        return not self._is_wanted

    @property
    def reason(self) -> str:
        """Why it ended, in one line without credentials."""
        kind = "" if isinstance(self.error, StlmError) else f"{type(self.error).__name__}: "
        return " ".join(without_credentials(f"{kind}{self.error}").split())

    def trigger(self) -> None:
        """Have the camera capture one frame. Raises `SourceError`."""
        camera = self._camera
        if camera is None or self.is_over:
            raise SourceError("the camera is lost and cannot be triggered; check it and its cable")
        camera.trigger()

    def leave(self) -> None:
        """Want no more frames; the thread closes the camera and ends as soon as the driver returns."""
        self._is_wanted = False

    def join(self, timeout_s: float) -> bool:
        """Whether the thread ended within this time."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with self._open_camera() as camera:
                with self._changed:
                    self._camera = camera
                    self.is_open, self.fps, self.opened_s = True, camera.fps, time.monotonic()
                    self._changed.notify_all()
                self._read(camera)
        except Exception as caught:  # whatever ends this thread, the camera is lost and another attempt is due
            error = caught
        with self._changed:
            self.is_over, self.error = True, error
            self._changed.notify_all()

    def _read(self, camera: FrameSource) -> None:
        while self._is_wanted:
            self._busy_since_s = time.monotonic()
            try:
                frame = camera.read()
            except FrameDamaged as skipped:
                self._skip(self, str(skipped))
                continue
            except SourceTimeout:  # nothing was asked of a camera that waits for its trigger
                continue
            if frame is None:
                raise SourceError("the camera's stream has ended, expected one without end; check the camera")
            self._deliver(self, frame)
