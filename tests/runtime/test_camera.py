from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from runtime.camera import main
from stlm_edge.imaging import read_image

QUICK = "test://?frames=6&size=64x128"


def inspect(engine: Path, source: str | Path, *options: str | Path) -> int:
    return main(["--engine", str(engine), "--source", str(source), *map(str, options)])


def events_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labelled_folder_is_judged(
    engine: Path, mvtec_test_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(engine, mvtec_test_folder, "--summary", tmp_path / "summary.json") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["frames"], summary["anomalies"], summary["skipped"], summary["dropped"]) == (4, 1, 1, 0)
    assert summary["truth"] == {"defects_found": 1, "defects_missed": 1, "false_alarms": 0, "good_passed": 2}
    assert summary["latency"]["infer"]["p50_ms"] > 0
    printed = capsys.readouterr().out
    assert "defects found      1 of 2, 1 missed" in printed
    assert "false alarms       0 on 2 good" in printed
    assert "pictures skipped   1" in printed
    assert "infer" in printed and "total" in printed


def test_threshold_by_hand_moves_the_verdicts(engine: Path, mvtec_test_folder: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    assert inspect(engine, mvtec_test_folder, "--summary", summary, "--threshold", "0.3") == 0
    truth = json.loads(summary.read_text())["truth"]
    assert truth == {"defects_found": 2, "defects_missed": 0, "false_alarms": 1, "good_passed": 1}


def test_all_outputs_at_once(engine: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("line.mp4", "overlays", "events.jsonl")]
    assert inspect(engine, QUICK, *(part for output in outputs for part in ("--output", output))) == 0
    video, folder, events = outputs
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert [read_image(path).shape[1] for path in sorted(folder.iterdir())] == [128] * 6
    assert [event["frame"] for event in events_of(events)] == list(range(6))


def test_frames_limits_the_run(engine: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    assert inspect(engine, "test://?size=64x64", "--frames", "3", "--output", events) == 0
    assert len(events_of(events)) == 3


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_backend_is_the_one_asked_for(engine: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(engine, QUICK, "--backend", name) == 0
    assert f"runs on {name}" in capfd.readouterr().err


def test_one_failing_output_does_not_spoil_the_others(
    engine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    video = tmp_path / "line.avi"
    assert inspect(engine, QUICK, "--output", video, "--output", tmp_path / "full.jsonl") == 1
    assert 1 <= cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) <= 6
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: cannot write")
    assert "No space left" in error


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("nowhere", "events.jsonl", "error: nowhere does not exist"),
        (QUICK, "events.xml", "unknown suffix '.xml'"),
        (QUICK, "/proc/overlays", "error: cannot write /proc"),
    ],
)
def test_what_cannot_be_opened_is_one_line_and_exit_code_1(
    engine: Path, source: str, output: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect(engine, source, "--output", output) == 1
    assert message in capfd.readouterr().err.splitlines()[-1]


def test_missing_engine_is_exit_code_1(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(tmp_path / "none.onnx", QUICK) == 1
    assert "is not a file" in capfd.readouterr().err


@pytest.mark.parametrize("options", [["--frames", "0"], ["--backend", "tflite"], ["--fsp", "3"]])
def test_wrong_usage_is_exit_code_2(engine: Path, options: list[str]) -> None:
    assert inspect(engine, QUICK, *options) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_with_everything_written(engine: Path, tmp_path: Path, number: signal.Signals) -> None:
    events, video = tmp_path / "events.jsonl", tmp_path / "line.mp4"
    command = [sys.executable, "-m", "runtime.camera", "--engine", str(engine)]
    command += ["--source", "test://?fps=20&size=64x128", "--output", str(events), "--output", str(video)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        give_up_s = time.monotonic() + 30
        while not (events.exists() and events.read_text().count("\n") >= 5):
            assert time.monotonic() < give_up_s and process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        printed, logged = process.communicate(timeout=30)
    assert process.returncode == 0, logged
    written = len(events_of(events))
    assert f"frames inspected   {written} in" in printed
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == written
    assert "Traceback" not in logged


def test_signal_is_heeded_while_waiting_for_a_frame(engine: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    command = [sys.executable, "-m", "runtime.camera", "--engine", str(engine)]
    command += ["--source", "test://?fps=0.25&size=64x64", "--output", str(events)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        give_up_s = time.monotonic() + 30
        while not (events.exists() and events.read_text()):
            assert time.monotonic() < give_up_s and process.poll() is None
            time.sleep(0.02)
        start_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert time.monotonic() - start_s < 2


def test_run_without_a_screen_imports_neither_torch_nor_onnx(engine: Path) -> None:
    program = (
        "import sys; from runtime.camera import main; "
        f"code = main(['--engine', {str(engine)!r}, '--source', {QUICK!r}]); "
        "print(code, sorted({'torch', 'onnx'} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    for_backend = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    assert for_backend.stdout.splitlines()[-1] == "0 []"


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys; from runtime.camera import main; main(['--help']); "
        "print(sorted({'torch', 'onnx', 'cv2', 'numpy', 'openvino', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "--engine" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
