"""Aravis' own GigE Vision camera, `arv-fake-gv-camera-0.8`, as a process that can be killed and started again."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.sources.genicam.aravis import cameras_seen
from stlm_edge.errors import SourceError

PROGRAM = "arv-fake-gv-camera-0.8"
SERIAL = "STLM1"
URI = f"gige://{SERIAL}?region=0,0,96,64"
IN_TIME_S = 20.0


class GigeCamera:
    """The one at 127.0.0.1, since the program listens at a fixed port."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self.start()

    def start(self, *options: str) -> None:
        command = [PROGRAM, "-i", "127.0.0.1", "-s", SERIAL, *self._options, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until_s = time.monotonic() + IN_TIME_S
        while SERIAL not in [seen.serial for seen in cameras_seen()]:
            assert time.monotonic() < until_s and self._process.poll() is None

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def gige_camera(*options: str) -> Iterator[GigeCamera]:
    """Skips the test without Aravis; waits until no other worker has the port."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"there is no {PROGRAM}: apt install aravis-tools")
    try:
        cameras_seen()
    except SourceError as error:
        pytest.skip(str(error))
    with (Path(tempfile.gettempdir()) / "stlm-tests-gige.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        camera = GigeCamera(*options)
        try:
            yield camera
        finally:
            camera.kill()
