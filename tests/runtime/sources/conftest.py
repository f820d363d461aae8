"""What tests of several sources share."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.event import Event
from runtime.sources import Frame, FrameSource
from stlm_edge.errors import SourceTimeout

SERVERS = {
    scheme: Path(__file__).with_name(f"{name}_server.py") for scheme, name in (("http", "mjpeg"), ("rtsp", "rtsp"))
}

IN_TIME_S = 15.0
"""What a test waits for at most, on a machine that is busy with others."""


def frames(source: FrameSource) -> Iterator[Frame]:
    while (frame := source.read()) is not None:
        yield frame


def read_until(source: FrameSource, condition: Callable[[Frame], bool]) -> Frame:
    """The first frame that fits; time-outs in between are waited for, as a line does."""
    until_s = time.monotonic() + IN_TIME_S
    while time.monotonic() < until_s:
        with contextlib.suppress(SourceTimeout):
            frame = source.read()
            assert frame is not None
            if condition(frame):
                return frame
    raise AssertionError(f"no such frame within {IN_TIME_S:g} s")


def wait_for_event(source: FrameSource, kind: str) -> Event:
    """The next event, which must be of this kind."""
    until_s = time.monotonic() + IN_TIME_S
    while time.monotonic() < until_s:
        for event in source.take_events():
            assert event.kind == kind
            return event
        time.sleep(0.005)
    raise AssertionError(f"no event {kind} within {IN_TIME_S:g} s")


class CameraServer:
    """A network camera in a process of its own, that can be killed and started again at the same address."""

    def __init__(self, scheme: str, *sizes: str) -> None:
        self._scheme = scheme
        self._sizes = sizes
        self._port = 0
        self.start()

    def address(self, path: str, *, login: str = "") -> str:
        return f"{self._scheme}://{login}127.0.0.1:{self._port}{path}"

    def start(self) -> None:
        arguments = [sys.executable, str(SERVERS[self._scheme]), str(self._port), *self._sizes]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def camera_server() -> Iterator[CameraServer]:
    server = CameraServer("http", "48x64")
    yield server
    server.kill()


@pytest.fixture(scope="session")
def standing_server() -> Iterator[CameraServer]:
    """The same for tests that do not kill it."""
    server = CameraServer("http", "48x64")
    yield server
    server.kill()
