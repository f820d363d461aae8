"""What is watched, for how long, and what the clock does while the program is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.detector import Detector
from runtime.watchdog import Watchdog
from stlm_edge.imaging import Image

from .conftest import picture


def test_block_that_does_not_end_is_told_of_once() -> None:
    told: list[str] = []
    heard = threading.Event()

    def hear(text: str) -> None:
        told.append(text)
        heard.set()

    with Watchdog(0.05, on_hang=hear) as watchdog, watchdog.watching("inference", pictures=2):
        start_s = time.monotonic()
        assert heard.wait(10)
        assert time.monotonic() - start_s >= 0.1
        time.sleep(0.2)
    (text,) = told
    assert text.startswith("inference has not ended for 0.1 s; check the device")


def test_many_short_blocks_are_not_one_long_one() -> None:
    told: list[str] = []
    with Watchdog(0.2, on_hang=told.append) as watchdog:
        end_s = time.monotonic() + 0.6
        while time.monotonic() < end_s:
            with watchdog.watching("inference"):
                time.sleep(0.001)
        time.sleep(0.4)  # nothing is watched
    assert told == []


_STOPPED = """
import os, sys, time
from runtime.watchdog import Watchdog
with Watchdog(0.5, on_hang=lambda _: os._exit(7)) as watchdog, watchdog.watching("inference"):
    print("begun", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.heavy
@pytest.mark.parametrize(("is_stopped", "code"), [(True, 0), (False, 7)])
def test_time_in_which_the_program_is_stopped_does_not_count(is_stopped: bool, code: int) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _STOPPED], cwd=Path(__file__).parents[2], **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if is_stopped:
            process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        if is_stopped:
            process.send_signal(signal.SIGCONT)
        process.communicate(b"\n", timeout=30)
    assert process.returncode == code


def test_detector_has_opening_inference_and_closing_watched(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[tuple[str, int]] = []
    image: Image = picture(60)
    with Watchdog(60, on_hang=print) as watchdog:
        watching = watchdog.watching

        def listen(what: str, *, pictures: int = 1) -> object:
            watched.append((what, pictures))
            return watching(what, pictures=pictures)

        monkeypatch.setattr(watchdog, "watching", listen)
        with Detector.open(engine, backend="openvino", watchdog=watchdog) as detector:
            detector.inspect(image)
    assert [what.split()[0] for what, _ in watched] == ["opening", "inference", "inference", "closing"]
    assert [pictures for _, pictures in watched] == [5, 1, 1, 1]
