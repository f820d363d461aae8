"""`display://`: the overlays on the screen."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import IO

import numpy as np

from runtime.control import LineControl
from runtime.inspection import Inspection
from runtime.overlay import add_part
from runtime.part import Part
from runtime.sinks.base import FrameSink, SinkContext, output_options
from runtime.sinks.viewer import HEADER, READY, TRIGGER
from stlm_edge.errors import ControlError, OutputError
from stlm_edge.imaging import Image

logger = logging.getLogger(__name__)

_OPENS_WITHIN_S = 20.0
_REOPENED_AFTER_S = 10.0


class Window(FrameSink):
    """Shows each overlay, below the last part's result; `q`, Esc or closing the window asks for the end of the run.

    The space bar triggers a part, where the line can be triggered.

    The window belongs to a process of its own, see `viewer`. Where that ends with the screen, frames fail, and another
    is tried every ten seconds.
    """

    def __init__(self, *, control: LineControl | None = None) -> None:
        """Raises `OutputError` where there is no screen."""
        self._control = control
        self._overlay: Image | None = None
        self._part: Part | None = None
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise self._no_screen("neither DISPLAY nor WAYLAND_DISPLAY is set")
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close
        try:
            self._viewer = self._open()
        except OutputError:
            self._messages.close()
            raise

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, {})

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> Window:
        """Raises `OutputError` on any option."""
        return cls(control=context.control, **output_options(uri, {}))

    @property
    def wants_stop(self) -> bool:
        return self._viewer.poll() == 0

    def write(self, inspection: Inspection) -> None:
        assert inspection.picture is not None
        if not self.wants_stop:
            self._overlay = inspection.picture()
            self._show()

    def write_part(self, part: Part) -> None:
        self._part = part
        if self._overlay is not None and not self.wants_stop:
            self._show()

    def _show(self) -> None:
        assert self._overlay is not None
        if self._viewer.poll() is not None and time.monotonic() - self._opened_s > _REOPENED_AFTER_S:
            self._end()
            self._viewer = self._open()
        image = np.ascontiguousarray(self._overlay if self._part is None else add_part(self._overlay, self._part))
        try:
            assert self._viewer.stdin is not None
            self._viewer.stdin.write(HEADER.pack(*image.shape[:2]))
            self._viewer.stdin.write(image.data)
            self._viewer.stdin.flush()
        except OSError:
            # The pipe breaks a moment before the process has ended.
            if self._viewer.wait() != 0:
                raise self._no_screen(self._message(-1)) from None

    def close(self) -> None:
        """Close the window."""
        self._end()
        self._messages.close()

    def _open(self) -> subprocess.Popen[bytes]:
        self._keys: threading.Thread | None
        self._opened_s = time.monotonic()
        self._messages.seek(0)
        self._messages.truncate()
        # With `-c` Python would look for `runtime` in the current folder first.
        code = f"import sys; sys.path[0] = {sys.path[0]!r}; from runtime.sinks.viewer import main; sys.exit(main())"
        viewer = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )
        self._viewer, self._keys = viewer, None
        assert viewer.stdout is not None
        is_answering = select.select([viewer.stdout], [], [], _OPENS_WITHIN_S)[0]
        if is_answering and viewer.stdout.readline() == READY:
            self._keys = threading.Thread(target=self._heed, args=(viewer.stdout,), name="window", daemon=True)
            self._keys.start()
            return viewer
        reason = self._message(0) if is_answering else "it does not answer"
        viewer.kill()
        self._end()
        raise self._no_screen(reason)

    def _heed(self, keys: IO[bytes]) -> None:
        """Trigger whenever the viewer says so, until it ends."""
        for line in keys:
            if line == TRIGGER and self._control is not None:
                try:
                    self._control.trigger()
                except ControlError as error:
                    logger.warning("the space bar: %s", error)

    def _end(self) -> None:
        stdin, stdout = self._viewer.stdin, self._viewer.stdout
        assert stdin is not None and stdout is not None
        with suppress(OSError):  # of pixels that the other end does not want any more
            stdin.close()
        self._viewer.wait()
        if self._keys is not None:
            self._keys.join()
        stdout.close()

    def _message(self, number: int) -> str:
        """One line of what the viewer said: the first is why it has no window, the last why it lost it."""
        self._messages.seek(0)
        lines = [line.strip() for line in self._messages.read().decode(errors="replace").split("\n") if line.strip()]
        return lines[number] if lines else "its process ended"

    @staticmethod
    def _no_screen(reason: str) -> OutputError:
        return OutputError(f"display:// found no screen to show a window on ({reason}); write a file: --output out.mp4")
