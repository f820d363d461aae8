from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.overlay import ALARM, GOOD, draw_overlay
from runtime.sinks import FrameSink, Outputs
from stlm_edge.errors import OutputError
from stlm_edge.imaging import Image

from .conftest import inspection, sink_for


@dataclass
class Screen:
    """An X server without hardware, whose pixels lie in a file in the format of `xwd`."""

    server: subprocess.Popen[bytes]
    file: Path

    def pixels(self) -> Image:
        data = self.file.read_bytes()
        fields = np.frombuffer(data, ">u4", 25)
        head, width, height, row, colours = (int(fields[index]) for index in (0, 4, 5, 12, 19))
        start = head + 12 * colours
        rows = np.frombuffer(data, np.uint8, height * row, start).reshape(height, row)
        return rows[:, : 4 * width].reshape(height, width, 4)[..., :3]

    def share_of(self, colour: tuple[int, int, int]) -> float:
        return float((np.abs(self.pixels().astype(int) - colour).max(axis=-1) <= 2).mean())


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed: apt-get install xvfb")
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "800x600x24", "-fbdir", str(tmp_path)]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    with os.fdopen(read_end) as display:
        monkeypatch.setenv("DISPLAY", f":{display.readline().strip()}")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield Screen(server, tmp_path / "Xvfb_screen0")
    server.terminate()
    server.wait()


def eventually(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def overlay(*, alarm: bool) -> Image:
    anomaly = Anomaly(0.9 if alarm else 0.2, alarm, np.zeros((8, 8), np.float32), (240, 320), Latency(0, 0, 0, 0, 0))
    return draw_overlay(np.full((240, 320, 3), 60, np.uint8), anomaly, threshold=0.5, fps=25, alarm=alarm)


def test_overlay_is_on_the_screen_and_follows_the_line(screen: Screen) -> None:
    good, alarm = overlay(alarm=False), overlay(alarm=True)
    window = sink_for("display://")
    with Outputs({"display://": window}, drops=True, on_publish=lambda _: None) as running:
        running.write(inspection(0, picture=lambda: good))
        eventually(lambda: screen.share_of(GOOD) > 0.01)
        assert screen.share_of(ALARM) == 0
        # The picture, grey, takes its place in its own size.
        assert screen.share_of((60, 60, 60)) == pytest.approx(240 * 320 / (800 * 600), rel=0.1)
        running.write(inspection(1, picture=lambda: alarm))
        eventually(lambda: screen.share_of(ALARM) > 0.01)
        assert screen.share_of(GOOD) == 0
        assert not running.wants_stop
    eventually(lambda: screen.share_of(ALARM) == 0)


def test_key_q_asks_for_the_end_of_the_run(screen: Screen) -> None:
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool is not installed: apt-get install xdotool")
    with sink_for("display://") as window:
        window.write(inspection(0))
        eventually(lambda: screen.share_of((60, 60, 60)) > 0.01)
        (name,) = subprocess.run(
            ["xdotool", "search", "--name", "^stlm-edge$"], check=True, capture_output=True, text=True
        ).stdout.split()
        assert not window.wants_stop
        subprocess.run(["xdotool", "windowfocus", name, "key", "q"], check=True)
        eventually(lambda: window.wants_stop)
        window.write(inspection(1))


def test_screen_that_goes_away_fails_the_window_and_not_the_program(screen: Screen) -> None:
    def write(window: FrameSink) -> bool:
        window.write(inspection(1))
        return False

    with sink_for("display://") as window:
        window.write(inspection(0))
        screen.server.kill()
        with pytest.raises(OutputError, match=r"no screen.*--output out\.mp4"):
            eventually(lambda: write(window))
        assert not window.wants_stop


def test_window_without_a_screen_suggests_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"no screen.*--output out\.mp4"):
        sink_for("display://")


def test_screen_that_does_not_answer_is_an_error_and_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"no screen.*--output out\.mp4"):
        sink_for("display://")
