"""What systemd hears, at a real socket: that a line is ready, works as long as it makes progress, and ends."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.camera import main
from runtime.line_control import Control
from runtime.parts import PartRule
from runtime.service import Service

from .test_camera import QUICK
from .test_line import FirstPixel, Script, judge_of
from .test_part_line import Camera, Gated, running, wait_until

pytestmark = pytest.mark.heavy


class Manager:
    """Hears what is told at one address."""

    def __init__(self, address: str) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def count(self, line: str) -> int:
        return sum(line in message.splitlines() for message in self.heard)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.heard.append(message.decode())


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "file" else f"stlm-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "file" else f"@{name}")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    made = Manager(name if request.param == "file" else f"\0{name}")
    yield made
    made.close()


def idle(recipe: str | None = None) -> Control:
    return Control(judge_of(FirstPixel(), recipe=recipe), source=Script([]))


def test_program_says_when_it_is_ready_and_when_it_ends(manager: Manager, engine: Path) -> None:
    assert main(["--engine", str(engine), "--source", QUICK]) == 0
    wait_until(lambda: len(manager.heard) == 2)
    assert manager.heard[0].splitlines()[0] == "READY=1"
    assert manager.heard[1] == "STOPPING=1"


def test_program_that_cannot_start_is_never_ready(manager: Manager, tmp_path: Path) -> None:
    assert main(["--engine", str(tmp_path / "nowhere.onnx"), "--source", QUICK]) == 1
    assert manager.heard == []


def test_hung_network_stops_the_heartbeat_until_it_goes_on(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    backend = Gated()
    # An idle camera times out every few milliseconds, which is progress.
    with running(camera := Camera(queue=8, timeout_s=0.005), PartRule("hardware"), backend=backend) as line:
        with Service([line.control]):
            wait_until(lambda: manager.count("WATCHDOG=1") > 3)
            backend.gate.clear()
            camera.give(10)
            wait_until(lambda: len(backend.batches) == 1)
            time.sleep(0.05)
            before = manager.count("WATCHDOG=1")
            time.sleep(0.3)
            assert manager.count("WATCHDOG=1") <= before + 1
            backend.gate.set()
            wait_until(lambda: manager.count("WATCHDOG=1") > before + 3)
        wait_until(lambda: manager.count("STOPPING=1") == 1)


def test_one_of_several_lines_that_hangs_stops_it_and_one_that_has_ended_does_not(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "80000")
    lines = [idle("plate"), idle()]
    with Service(lines):
        wait_until(lambda: manager.count("WATCHDOG=1") == 1)  # nothing is known of progress before
        for _ in range(20):
            lines[0].progressed()
            time.sleep(0.01)
        assert manager.count("WATCHDOG=1") == 1
        lines[1].ended()
        for _ in range(20):
            lines[0].progressed()
            time.sleep(0.01)
        assert manager.count("WATCHDOG=1") > 3
    wait_until(lambda: manager.heard[-1] == "STOPPING=1")
    assert manager.heard[0] == "READY=1\nSTATUS=recipe plate; running"
    assert manager.heard[-2].splitlines()[-1] == "STATUS=recipe plate; ended"


@pytest.mark.parametrize("usec", [None, "0", "soon"])
def test_heartbeat_is_for_whoever_asks_for_it(
    manager: Manager, usec: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.service._STATUS_S", 0.01)
    if usec is None:  # of the process that started this one
        monkeypatch.setenv("WATCHDOG_USEC", "10000")
        monkeypatch.setenv("WATCHDOG_PID", "1")
    else:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    with Service([idle()]):
        wait_until(lambda: manager.count("STATUS=running") > 3)
    assert manager.count("WATCHDOG=1") == 0


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-listens", "vsock:2:1"])
def test_manager_that_cannot_be_told_is_said_once(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with Service([idle()]):
        pass
    assert caplog.text.count(f"systemd cannot be told at NOTIFY_SOCKET={address}") == 1
