from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.overlay import ALARM, GOOD, draw_overlay
from runtime.sinks import FrameSink, Outputs, SinkContext, open_sink
from stlm_edge.errors import ControlError, OutputError
from stlm_edge.imaging import Image

from .conftest import inspection, part, sink_for


@dataclass
class Screen:
    """An X server without hardware, whose pixels lie in a file in the format of `xwd`."""

    folder: Path
    display: str = ""
    _looked: int = 0

    def start(self) -> None:
        """Raises `FileNotFoundError` where Xvfb is not installed."""
        read_end, write_end = os.pipe()
        where = [self.display] if self.display else ["-displayfd", str(write_end)]
        command = ["Xvfb", *where, "-noreset", "-screen", "0", "800x600x24", "-fbdir", str(self.folder)]
        self._server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
        os.close(write_end)
        with os.fdopen(read_end) as answer:
            if not self.display:
                self.display = f":{answer.readline().strip()}"

    def end(self) -> None:
        self._server.kill()
        self._server.wait()

    def pixels(self) -> Image:
        data = (self.folder / "Xvfb_screen0").read_bytes()
        fields = np.frombuffer(data, ">u4", 25)
        head, width, height, row, colours = (int(fields[index]) for index in (0, 4, 5, 12, 19))
        start = head + 12 * colours
        rows = np.frombuffer(data, np.uint8, height * row, start).reshape(height, row)
        return rows[:, : 4 * width].reshape(height, width, 4)[..., :3]

    def shows(self, colour: tuple[int, int, int]) -> bool:
        """Whether a window has a good deal of a colour.

        Without a window manager, which redraws windows for its own sake, Qt's window on a busy machine may miss that it
        has become visible; it is hidden and shown again then.
        """
        if self.share_of(colour) > 0.01:
            return True
        self._looked += 1
        if self._looked % 100 == 0 and shutil.which("xdotool") is not None:
            again = ["xdotool", "search", "--name", "^stlm-edge$", "windowunmap", "--sync", "windowmap", "--sync"]
            subprocess.run(again, check=False, timeout=10)
        return False

    def share_of(self, colour: tuple[int, int, int]) -> float:
        return float((np.abs(self.pixels().astype(int) - colour).max(axis=-1) <= 2).mean())


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed: apt-get install xvfb")
    started = Screen(tmp_path)
    started.start()
    monkeypatch.setenv("DISPLAY", started.display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield started
    started.end()


def eventually(condition: Callable[[], bool | None]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def overlay(*, alarm: bool) -> Image:
    score, latency = 0.9 if alarm else 0.2, Latency(0, 0, 0, 0, 0)
    anomaly = Anomaly(score, alarm, np.zeros((8, 8), np.float32), (240, 320), latency, 0.5)
    return draw_overlay(np.full((240, 320, 3), 60, np.uint8), anomaly, threshold=0.5, fps=25, alarm=alarm)


def test_overlay_is_on_the_screen_and_follows_the_line(screen: Screen) -> None:
    good, alarm = overlay(alarm=False), overlay(alarm=True)
    window = sink_for("display://")
    with Outputs({"display://": window}, drops=True, on_publish=lambda _: None) as running:
        running.write(inspection(0, picture=lambda: good))
        eventually(lambda: screen.shows(GOOD))
        assert screen.share_of(ALARM) == 0
        # The picture, grey, takes its place in its own size.
        assert screen.share_of((60, 60, 60)) == pytest.approx(240 * 320 / (800 * 600), rel=0.1)
        running.write(inspection(1, picture=lambda: alarm))
        eventually(lambda: screen.shows(ALARM))
        assert screen.share_of(GOOD) == 0
        assert not running.wants_stop
    eventually(lambda: screen.share_of(ALARM) == 0)


def test_result_of_the_last_part_stays_above_the_frames(screen: Screen) -> None:
    grey = np.full((360, 480, 3), 60, np.uint8)
    with sink_for("display://") as window:
        window.write(inspection(0, image=grey))
        eventually(lambda: screen.shows((60, 60, 60)))
        window.write_part(part(3, "reject"))
        eventually(lambda: screen.shows(ALARM))
        window.write(inspection(1, image=grey))
        assert screen.shows(ALARM)
        window.write_part(part(4, "good"))
        eventually(lambda: screen.shows(GOOD) and screen.share_of(ALARM) == 0)


class Control:
    """Of a line that takes one trigger."""

    def __init__(self) -> None:
        self.triggers = 0

    def trigger(self, part_id: str | None = None) -> int:
        self.triggers += 1
        if self.triggers > 1:
            raise ControlError("the line is not ready")
        return 0


def test_space_triggers_a_part_and_is_told_where_it_cannot(screen: Screen, caplog: pytest.LogCaptureFixture) -> None:
    control = Control()
    context = SinkContext(engine_sha256="ab" * 32, control=control)
    with open_sink("display://", context=context) as window:
        window.write(inspection(0))
        eventually(lambda: screen.shows((60, 60, 60)))
        for count in (1, 2):
            subprocess.run(["xdotool", "windowfocus", window_on_screen(), "key", "space"], check=True)
            eventually(lambda count=count: control.triggers == count)
        eventually(lambda: "the space bar: the line is not ready" in caplog.text)
        assert not window.wants_stop


def window_on_screen() -> str:
    """The number that X has for it."""
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool is not installed: apt-get install xdotool")
    search = ["xdotool", "search", "--name", "^stlm-edge$"]
    (number,) = subprocess.run(search, check=True, capture_output=True, text=True).stdout.split()
    return number


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_key_asks_for_the_end_of_the_run(screen: Screen, key: str) -> None:
    with sink_for("display://") as window:
        window.write(inspection(0))
        eventually(lambda: screen.shows((60, 60, 60)))
        assert not window.wants_stop
        subprocess.run(["xdotool", "windowfocus", window_on_screen(), "key", key], check=True)
        eventually(lambda: window.wants_stop)
        window.write(inspection(1))


_CLOSE = """
import ctypes, sys
x = ctypes.CDLL("libX11.so.6")
pointer, number, whole = ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int
x.XOpenDisplay.restype = pointer
x.XInternAtom.restype, x.XInternAtom.argtypes = number, [pointer, ctypes.c_char_p, whole]
x.XSendEvent.argtypes, x.XCloseDisplay.argtypes = [pointer, number, whole, ctypes.c_long, pointer], [pointer]

class ClientMessage(ctypes.Structure):
    _fields_ = [("type", whole), ("serial", number), ("is_sent", whole), ("display", pointer), ("window", number),
                ("kind", number), ("bits", whole), ("data", ctypes.c_long * 5), ("rest", ctypes.c_long * 16)]

display, window = x.XOpenDisplay(None), int(sys.argv[1])
protocols, delete = (x.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
message = ClientMessage(33, 0, 1, display, window, protocols, 32, (ctypes.c_long * 5)(delete))
x.XSendEvent(display, window, 0, 0, ctypes.byref(message))
x.XCloseDisplay(display)
"""
"""What a window manager does when the cross in a window's corner is clicked."""


def test_closing_the_window_asks_for_the_end_of_the_run(screen: Screen) -> None:
    with sink_for("display://") as window:
        window.write(inspection(0))
        eventually(lambda: screen.shows((60, 60, 60)))
        assert not window.wants_stop
        subprocess.run([sys.executable, "-c", _CLOSE, window_on_screen()], check=True)
        eventually(lambda: window.wants_stop)


def test_window_fails_while_the_screen_is_gone_and_comes_back_with_it(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.sinks.window._REOPENED_AFTER_S", 0.0)

    def is_shown(window: FrameSink) -> bool:
        try:
            window.write(inspection(1))
        except OutputError:
            return False
        return screen.shows((60, 60, 60))

    with sink_for("display://") as window:
        eventually(lambda: is_shown(window))
        screen.end()
        with pytest.raises(OutputError, match=r"no screen.*--output out\.mp4"):
            eventually(lambda: window.write(inspection(1)))
        assert not window.wants_stop
        screen.start()
        eventually(lambda: is_shown(window))


def test_window_without_a_screen_suggests_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"no screen.*neither DISPLAY.*--output out\.mp4"):
        sink_for("display://")


@pytest.mark.heavy
def test_screen_that_does_not_answer_is_an_error_and_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"no screen.*:4711.*--output out\.mp4"):
        sink_for("display://")
