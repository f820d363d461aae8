"""How a line ends: by a signal of the terminal, by an engine that does not answer, by a machine without room."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.sources import Frame, FrameSource
from runtime.sources.live_camera import LiveCamera, Patience
from stlm_edge.errors import SourceError, SourceTimeout
from stlm_edge.imaging import write_image

from ..runtime.conftest import brightness_graph, picture, write_engine
from .line_process import QUICK, camera, frames, running

pytestmark = pytest.mark.heavy


def frames_in(path: Path) -> int:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def test_end_of_the_terminal_finishes_video_and_summary(engine: Path, tmp_path: Path) -> None:
    video, events = tmp_path / "line.mp4", tmp_path / "events.jsonl"
    with camera(tmp_path, engine, video, events) as line:
        line.until(lambda: len(frames(events)) > 10)
        for _ in range(20):  # the shell says it as well, and some say it again
            line.process.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        assert line.wait() == 0
    found = frames(events)
    assert f"frames inspected   {len(found)} in" in line.printed.read_text()
    assert frames_in(video) > 0


def test_terminal_that_is_closed_finishes_all_without_an_error(engine: Path, tmp_path: Path) -> None:
    video, events, summary = tmp_path / "line.mp4", tmp_path / "events.jsonl", tmp_path / "summary.json"
    arguments = ["--engine", engine, "--source", QUICK, "--output", video, "--output", events, "--summary", summary]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "runtime.camera", *map(str, arguments)])
    give_up_s = time.monotonic() + 60
    while len(frames(events)) < 10:
        assert time.monotonic() < give_up_s
        if select.select([terminal], [], [], 0.01)[0]:
            os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert json.loads(summary.read_text())["frames"] == len(frames(events)) >= 10
    assert frames_in(video) > 0


def test_nohup_is_respected(engine: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with camera(tmp_path, engine, events, **ignore) as line:
        line.until(lambda: len(frames(events)) > 5)
        line.process.send_signal(signal.SIGHUP)
        seen = frames(events)[-1]
        line.until(lambda: frames(events)[-1] > seen + 30)
        assert line.end() == 0


def test_batch_that_the_terminal_ends_goes_on_with_the_same_command(engine: Path, tmp_path: Path) -> None:
    for index in range(300):
        write_image(tmp_path / "parts" / f"{index:03d}.png", picture(index % 250, size=(32, 64)))
    results = tmp_path / "results"
    arguments = [engine, tmp_path / "parts", "-o", results, "--overlays", "all"]
    with running(tmp_path, "runtime.inspect", *arguments) as batch:
        batch.until(lambda: (results / "scores.csv").exists() and len(rows(results)) > 20)
        assert batch.end(signal.SIGHUP) == 130
    assert 20 < len(rows(results)) < 300
    with running(tmp_path, "runtime.inspect", *arguments) as batch:
        assert batch.wait() == 0
    assert [row["path"] for row in rows(results)] == [f"{index:03d}.png" for index in range(300)]


def rows(results: Path) -> list[dict[str, str]]:
    with (results / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def endless_graph(*, at_once: bool) -> onnx.ModelProto:
    """The brightness engine, which goes round in a circle for ever on bright pictures, or while it is opened."""
    model = brightness_graph()
    graph = model.graph
    graph.node[-1].output[0] = "first_score"
    values = {"often": np.array(2**62), "once": np.array(1), "bright": np.float32([0.7]), "yes": np.array(True)}
    values |= {"first": np.array([0]), "seed": np.float32([0.5])}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())
    ports = [("go_in", TensorProto.BOOL, []), ("value_in", TensorProto.FLOAT, [1])]
    inside = [helper.make_tensor_value_info(*port) for port in (("index", TensorProto.INT64, []), *ports)]
    outside = [helper.make_tensor_value_info(name.replace("in", "out"), *rest) for name, *rest in ports]
    nodes = [
        helper.make_node("Identity", ["go_in"], ["go_out"]),
        helper.make_node("Cos", ["value_in"], ["value_out"]),
    ]
    body = helper.make_graph(nodes, "circle", inside, outside)
    graph.node.extend(
        [
            helper.make_node("Greater", ["first_score", "bright"], ["are_bright"]),
            helper.make_node("Gather", ["are_bright", "first"], ["is_bright_1"]),
            helper.make_node("Squeeze", ["is_bright_1"], ["is_bright"]),
            helper.make_node("Where", ["is_bright", "often", "once"], ["times"]),
            helper.make_node(
                "Loop", ["often" if at_once else "times", "yes", "seed" if at_once else "first_score"], ["v"], body=body
            ),
            helper.make_node("Mul", ["v", "first_score"], ["score"]),
        ]
    )
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_engine(tmp_path_factory.mktemp("endless") / "endless.onnx", model=endless_graph(at_once=False))


def hang_at_the_fourth(folder: Path) -> Path:
    for index, value in enumerate((20, 40, 60, 250, 20)):
        write_image(folder / f"{index}.png", picture(value))
    return folder


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_inference_that_does_not_end_ends_the_line_with_all_before_it_written(
    endless: Path, tmp_path: Path, backend: str
) -> None:
    video, events, summary = tmp_path / "line.avi", tmp_path / "events.jsonl", tmp_path / "summary.json"
    arguments = ["--engine", endless, "--backend", backend, "--source", hang_at_the_fourth(tmp_path / "parts")]
    arguments += ["--output", video, "--output", events, "--summary", summary, "--inference-timeout", "1"]
    start_s = time.monotonic()
    with running(tmp_path, "runtime.camera", *arguments) as line:
        assert line.wait() == 1
    assert time.monotonic() - start_s < 30
    assert frames(events) == [0, 1, 2]
    assert frames_in(video) == json.loads(summary.read_text())["frames"] == 3
    assert "frames inspected   3 in" in line.printed.read_text()
    expected = f"error: inference by {endless} on {backend} has not ended for 1 s; check the device"
    assert line.said.read_text().splitlines()[-1].startswith(expected)


def test_inference_that_does_not_end_ends_a_batch_and_its_rows_stay(endless: Path, tmp_path: Path) -> None:
    arguments = [endless, hang_at_the_fourth(tmp_path / "parts"), "-o", tmp_path / "results"]
    with running(tmp_path, "runtime.inspect", *arguments, "--inference-timeout", "1") as batch:
        assert batch.wait() == 1
    assert [row["path"] for row in rows(tmp_path / "results")] == ["0.png", "1.png", "2.png"]
    assert "has not ended for 1 s" in batch.said.read_text().splitlines()[-1]


def test_engine_that_cannot_be_opened_in_time_ends_the_program(tmp_path: Path) -> None:
    engine = write_engine(tmp_path / "endless.onnx", model=endless_graph(at_once=True))
    arguments = ["--engine", engine, "--backend", "openvino", "--source", "test://?frames=1&size=64x128"]
    with running(tmp_path, "runtime.camera", *arguments, "--inference-timeout", "0.2") as line:
        assert line.wait() == 1
    said = line.said.read_text().splitlines()[-1]
    assert said.startswith(f"error: opening {engine} has not ended for 1 s")


_FEW_THREADS = """
import _thread, sys, threading
room, start = int(sys.argv[1]), threading._start_new_thread
def start_new_thread(*arguments):
    global room
    room -= 1
    if room < 0:
        raise RuntimeError("can't start new thread")
    return start(*arguments)
threading._start_new_thread = start_new_thread
from {program} import main
sys.exit(main(sys.argv[2:]))
"""
"""A machine that has room for so many threads; what it takes to reach a real limit differs from machine to machine."""


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 starts threads by another function")
@pytest.mark.parametrize("room", range(6))
def test_no_room_for_a_thread_is_one_line_and_no_hang(engine: Path, tmp_path: Path, room: int) -> None:
    hang_at_the_fourth(tmp_path / "parts")
    programs = {
        "runtime.camera": [
            *("--engine", engine, "--source", "test://?frames=4&fps=50&size=64x128"),
            *("--output", tmp_path / "events.jsonl", "--output", tmp_path / "line.avi"),
        ],
        "runtime.inspect": [engine, tmp_path / "parts", "-o", tmp_path / "results"],
    }
    for program, arguments in programs.items():
        command = [sys.executable, "-c", _FEW_THREADS.format(program=program), str(room), *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in ended.stderr
        if ended.returncode != 0:
            assert ended.returncode == 1
            assert "found no room for another thread" in ended.stderr.splitlines()[-1]
        assert room > 0 or ended.returncode == 1


class OneFrame(FrameSource):
    """A camera that is lost after each frame."""

    def __init__(self) -> None:
        self._is_spent = False

    def read(self) -> Frame | None:
        if self._is_spent:
            raise SourceError("the cable is loose")
        self._is_spent = True
        return Frame(picture(60), 0, time.monotonic(), "camera 0")


def test_camera_that_finds_no_room_for_its_thread_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start, attempts = threading.Thread.start, 0

    def seldom(thread: threading.Thread) -> None:
        nonlocal attempts
        if thread.name == "capture":
            attempts += 1
            if attempts in (2, 3):
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", seldom)
    patience = Patience(read_s=0.2, first_delay_s=0.01, most_delay_s=0.02)
    with LiveCamera(OneFrame, name="camera 0", patience=patience) as camera:
        found, give_up_s = 0, time.monotonic() + 20
        while found < 3:
            assert time.monotonic() < give_up_s
            try:
                found += camera.read() is not None
            except SourceTimeout:
                continue
    assert attempts >= 5
