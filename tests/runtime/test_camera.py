from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.camera import main
from stlm_edge.imaging import read_image, write_image

from .conftest import picture

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
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'full.jsonl'} lacks 6 frames and failed up to the end: cannot write")
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


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--output", "line.mp4?hours=1", "no option 'hours'"),
        ("--output", "kept?what=raw&good=1%", "keeps a share of the good ones and all of them"),
        ("--shadow", "new.onnx?every=0", "every is '0', expected a whole number from 1 on"),
        ("--shadow", "new.onnx", "new.onnx is not a file"),
    ],
)
def test_what_cannot_be_beside_an_engine_is_told_before_it_is_opened(
    tmp_path: Path, option: str, value: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect(tmp_path / "none.onnx", QUICK, option, value) == 1
    assert message in capfd.readouterr().err.splitlines()[-1]


def test_place_for_the_summary_is_tried_before_the_run(
    engine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    events = tmp_path / "events.jsonl"
    assert inspect(engine, QUICK, "--output", events, "--summary", tmp_path / "file" / "summary.json") == 1
    assert "Not a directory" in capfd.readouterr().err.splitlines()[-1]
    assert not events.exists()


@pytest.mark.parametrize("name", ["none.onnx", "/", "", "."])
def test_missing_engine_is_exit_code_1(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert inspect(tmp_path / name if name == "none.onnx" else Path(name), QUICK) == 1
    assert "is not a file" in capfd.readouterr().err


@pytest.mark.parametrize("options", [["--frames", "0"], ["--backend", "tflite"], ["--fsp", "3"]])
def test_wrong_usage_is_exit_code_2(engine: Path, options: list[str]) -> None:
    assert inspect(engine, QUICK, *options) == 2


def shown(engine: Path, source: str | Path, folder: Path, *options: str | Path) -> list[dict[str, object]]:
    """The events of a run over a source that ends."""
    events = folder / "events.jsonl"
    events.unlink(missing_ok=True)
    assert inspect(engine, source, "--output", events, *options) == 0
    return events_of(events)


@pytest.fixture
def flickering(tmp_path: Path) -> Path:
    """A part that is bright in every other picture, at 0.98, else at 0.24."""
    folder = tmp_path / "flickering"
    for index in range(6):
        write_image(folder / f"{index}.png", picture(60, spot=250 if index % 2 else None))
    return folder


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [False, True, False, True, False, True]),
        (["--votes", "2/3"], [False, False, False, True, False, True]),
        (["--votes", "2/4"], [False, False, False, True, True, True]),
        (["--release", "0.2"], [False, True, True, True, True, True]),
        (["--votes", "2/4", "--part-gap", "1e-9"], [False] * 6),
    ],
)
def test_votes_release_and_gap_decide_about_the_part(
    engine: Path, flickering: Path, tmp_path: Path, options: list[str], expected: list[bool]
) -> None:
    events = [event for event in shown(engine, flickering, tmp_path, *options) if "frame" in event]
    assert [event["alarm"] for event in events] == expected
    assert [event["anomalous"] for event in events] == [False, True] * 3
    assert len({event["part"] for event in events}) == (6 if "--part-gap" in options else 1)


@pytest.mark.parametrize("way", ["roi", "ignore"])
def test_only_the_area_of_interest_is_judged(engine: Path, flickering: Path, tmp_path: Path, way: str) -> None:
    """The bright spot, at rows 24 to 48 and columns 48 to 72, lies outside."""
    if way == "roi":
        shape = {"label": "part", "shape_type": "rectangle", "points": [[96, 0], [192, 96]]}
        area = tmp_path / "area.json"
        area.write_text(json.dumps({"imageHeight": 96, "imageWidth": 192, "shapes": [shape]}))
    else:
        area = tmp_path / "area.png"
        mask = np.zeros((96, 192, 3), np.uint8)
        mask[:, :96] = 255
        write_image(area, mask)
    events = shown(engine, flickering, tmp_path, f"--{way}", area)
    assert not any(event["anomalous"] for event in events)


def test_tiles_cover_a_frame_that_is_larger(engine: Path, tmp_path: Path) -> None:
    """A spot of 4 x 4 pixels, which the resize to the network's 64 x 128 would average away."""
    image = picture(0, size=(512, 1024))
    image[300:304, 700:704] = 255
    write_image(tmp_path / "large" / "0.png", image)
    (whole,) = shown(engine, tmp_path / "large", tmp_path)
    (tiled,) = shown(engine, tmp_path / "large", tmp_path, "--tile", "64x128", "--threshold", "0.1")
    assert float(str(whole["score"])) < 0.3
    regions = tiled["regions"]
    assert isinstance(regions, list)
    left, top, width, height = regions[0]["box"]
    assert left <= 700 and top <= 300 and left + width >= 704 and top + height >= 304
    assert regions[0]["peak"] > 0.9


def test_frames_have_the_size_and_direction_that_is_asked_for(engine: Path, tmp_path: Path) -> None:
    options = ["--rotate", "90", "--width", "100", "--height", "200", "--output", tmp_path / "overlays"]
    assert inspect(engine, "test://?frames=1&size=64x128", *options) == 0
    (overlay,) = (tmp_path / "overlays").iterdir()
    rows, columns, _ = read_image(overlay).shape
    assert columns == 100 and rows > 200


def test_rate_plays_a_recording_as_a_live_source(engine: Path, flickering: Path, tmp_path: Path) -> None:
    start_s = time.monotonic()
    shown(engine, flickering, tmp_path, "--fps", "10")
    assert time.monotonic() - start_s >= 0.5


@pytest.mark.parametrize(("flag", "expected"), [([], "over-exposed"), (["--no-camera-faults"], None)])
def test_camera_faults_are_no_verdicts_unless_asked_for(
    engine: Path, tmp_path: Path, flag: list[str], expected: str | None
) -> None:
    for index in range(3):
        write_image(tmp_path / "white" / f"{index}.png", picture(255))
    events = shown(engine, tmp_path / "white", tmp_path, "--fps", "20", *flag)
    frames = [event for event in events if "frame" in event]
    assert {event.get("fault") for event in frames} == {expected}
    assert {event["anomalous"] for event in frames} == {None if expected else True}
    events = [event["event"] for event in events if "event" in event]
    assert events == (["camera-fault"] if expected else [])


@pytest.mark.heavy
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
    slow = re.search(r"(\d+) frames? not written to .*line\.mp4", printed)  # on a machine that is busy
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == written - int(slow[1] if slow else 0)
    assert "Traceback" not in logged


@pytest.mark.heavy
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


@pytest.mark.heavy
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


@pytest.mark.parametrize("content", [QUICK, f"{QUICK}\r\nanother line\n", f"\ufeff{QUICK}\n", f"  {QUICK}  \n"])
def test_source_may_stand_in_a_file(engine: Path, tmp_path: Path, content: str) -> None:
    file, events = tmp_path / "source", tmp_path / "events.jsonl"
    file.write_bytes(content.encode())
    assert main(["--engine", str(engine), "--source-file", str(file), "--output", str(events)]) == 0
    assert len(events_of(events)) == 6


def test_source_may_come_from_stdin(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{QUICK}\n".encode())))
    assert main(["--engine", str(engine), "--source-file", "-", "--output", str(events)]) == 0
    assert len(events_of(events)) == 6


def test_closed_stdin_is_one_line(
    engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["--engine", str(engine), "--source-file", "-"]) == 1
    assert "error: found standard input closed" in capsys.readouterr().err


def test_source_may_come_from_the_environment_and_an_option_takes_its_place(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, events = tmp_path / "source", tmp_path / "events.jsonl"
    monkeypatch.setenv("STLM_SOURCE", "test://?frames=2&size=64x64")
    file.write_text("test://?frames=3&size=64x64")
    for options in ([], ["--source-file", str(file)], ["--source", "test://?frames=4&size=64x64"]):
        assert main(["--engine", str(engine), "--output", str(events), *options]) == 0
    assert len(events_of(events)) == 2 + 3 + 4


def test_one_source_is_to_be_given(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STLM_SOURCE", raising=False)
    assert main(["--engine", str(engine)]) == 2
    assert "found no source, expected --source, --source-file or STLM_SOURCE" in capsys.readouterr().err
    assert main(["--engine", str(engine), "--source", QUICK, "--source-file", str(tmp_path)]) == 2
    assert "expected one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read (No such file or directory), expected a source in its first line"),
        (b"", "found nothing in the first line"),
        (b"\ntest://", "found nothing in the first line"),
        (b"\xff\xfe\x00", "cannot be read (it is not UTF-8)"),
        (bytes(5000), "does not exist; known are"),
        (os.mkfifo, "cannot be read (it is a named pipe)"),  # nobody writes to it
    ],
)
def test_source_file_that_holds_none_is_one_line(
    engine: Path,
    tmp_path: Path,
    content: bytes | Callable[[Path], None] | None,
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "source"
    if callable(content):
        content(file)
    elif content is not None:
        file.write_bytes(content)
    assert main(["--engine", str(engine), "--source-file", str(file)]) == 1
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_line_that_nothing_can_trigger_is_refused(engine, capsys):
    assert inspect(engine, "test://?frames=2", "--trigger", "software", "--output", "https://mes/hook") == 1
    assert "error: found nothing that triggers, expected it with --trigger software; give" in capsys.readouterr().err


def test_folder_of_which_nothing_can_be_decoded_is_an_error(engine, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "junk.png").write_bytes(b"no picture")
    summary = tmp_path / "summary.json"
    arguments = ["--engine", str(engine), "--source", str(tmp_path / "pictures"), "--summary", str(summary)]
    assert main(arguments) == 1
    assert "found 1 pictures and none that can be decoded" in capsys.readouterr().err
    assert json.loads(summary.read_text())["skipped"] == 1


def test_nothing_is_written_over_what_the_run_reads(
    engine: Path, flickering: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary would have taken the place of the verdicts, of the sidecar, or of the recording."""
    sidecar, events, video = Path(f"{engine}.json"), tmp_path / "events.jsonl", tmp_path / "line.avi"
    assert inspect(engine, flickering, "--output", video) == 0
    before = [path.read_bytes() for path in (sidecar, video)]
    for source, *options in (
        (QUICK, "--summary", sidecar),
        (flickering, "--output", events, "--summary", tmp_path / "." / "events.jsonl"),
        (video, "--output", video),
        (video, "--summary", video),
    ):
        assert inspect(engine, source, *options) == 1
        assert "read by this run" in (said := capsys.readouterr().err) or "for the summary" in said
    assert [path.read_bytes() for path in (sidecar, video)] == before
    assert not events.exists()


@pytest.mark.parametrize("watched", ["", "?watch=1"])
def test_overlays_do_not_come_among_the_pictures_that_are_inspected(
    engine: Path, flickering: Path, watched: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of them would be a part, with an overlay of its own, without end."""
    assert inspect(engine, f"{flickering}{watched}", "--output", flickering, "--frames", "12") == 1
    assert "overlays there would be taken for parts" in capsys.readouterr().err.splitlines()[-1]
    assert len(list(flickering.iterdir())) == 6
    assert inspect(engine, f"{flickering}{watched}", "--output", flickering / "overlays", "--frames", "6") == 0


def test_parts_are_in_every_output_and_the_summary(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "parts").mkdir()
    for index, spot in enumerate([None, None, 250, None, None]):
        write_image(tmp_path / "parts" / f"{index}.png", picture(60, spot=spot))
    log, table, folder, summary = (tmp_path / name for name in ("events.jsonl", "parts.csv", "rejected", "run.json"))
    outputs = ["--output", log, "--output", f"{table}?rows=parts", "--output", f"{folder}?only=reject"]
    assert inspect(engine, tmp_path / "parts", "--part-frames", "2", *outputs, "--summary", summary) == 0
    lines = events_of(log)
    assert [line["part"] for line in lines if "event" not in line] == [0, 0, 1, 1, 2]
    assert [line["part_result"] for line in lines if line.get("event") == "part-result"] == ["good", "reject", "missed"]
    assert [line.get("event") for line in lines[:3]] == [None, None, "part-result"]
    assert len(table.read_text().splitlines()) == 4
    assert [path.name.rpartition("-")[2] for path in folder.iterdir()] == ["000002.jpg"]
    found = json.loads(summary.read_text())
    assert found["part_results"] == {"good": 1, "reject": 1, "missed": 1}
    assert (found["frames"], found["parts"]) == (5, 3)
    assert found["latency"]["part"]["max_ms"] > 0
    assert "parts              3: 1 good, 0 unclear, 1 reject, 1 missed, 0 fault" in capsys.readouterr().out


def test_every_frame_of_a_triggered_camera_is_a_part(engine: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    source = "test://?fps=200&frames=40&size=64x128"
    assert inspect(engine, source, "--trigger", "hardware", "--queue", "40", "--output", events) == 0
    results = [line for line in events_of(events) if line.get("event") == "part-result"]
    assert [(line["part"], line["worst"]["frame"]) for line in results] == [(index, index) for index in range(40)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trigger", "hardware", "--votes", "2/3"], "a part has 1 frame, so 2 of 3 can never vote against it"),
        (["--queue", "4"], "of a camera that runs free the newest wins; give --trigger fifo"),
        (["--output", "parts.csv?rows=parts"], "parts.csv?rows=parts is for results of parts, and nothing tells one"),
        (["--output", "rejected?only=reject"], "rejected?only=reject is for results of parts"),
        (["--deadline-ms", "0"], None),
        (["--trigger", "laser"], None),
    ],
)
def test_parts_that_cannot_be_are_refused(
    engine: Path, options: list[str], message: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert inspect(engine, QUICK, *options) == (2 if message is None else 1)
    assert (message or "Invalid value") in capfd.readouterr().err.splitlines()[-1]
