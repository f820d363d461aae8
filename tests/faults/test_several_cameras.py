"""Several cameras as one process: signals end them all at once, also those that wait for a frame."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from .line_process import frames, running

pytestmark = pytest.mark.heavy


def write_line(folder: Path, engine: Path) -> Path:
    (folder / "drop").mkdir()
    (folder / "line.yaml").write_text(f"""
engine: {engine}
cameras:
  played: {{source: "test://?fps=60&size=64x128", output: {folder}/played.jsonl, summary: {folder}/played.json}}
  triggered:
    source: test://?size=64x128
    trigger: software
    output: ["{folder}/triggered.jsonl", "mqtt://127.0.0.1:1/nobody?queue={folder}"]
    summary: {folder}/triggered.json
  watched: {{source: "{folder}/drop?watch=1", width: 64, height: 64, summary: {folder}/watched.json}}
""")
    return folder / "line.yaml"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_cameras_also_those_that_wait(engine: Path, tmp_path: Path, number: int) -> None:
    with running(tmp_path, "runtime.camera", "--config", write_line(tmp_path, engine)) as line:
        line.until(lambda: len(frames(tmp_path / "played.jsonl")) > 20)
        asked_s = time.monotonic()
        assert line.end(number) == 0
        assert time.monotonic() - asked_s < 4  # each waits for five seconds
        printed = line.printed.read_text()
    told = [line for line in printed.splitlines() if line.startswith("camera ")]
    assert sorted(told) == ["camera played", "camera triggered", "camera watched"]
    counts = {name: json.loads((tmp_path / f"{name}.json").read_text())["frames"] for name in ("triggered", "watched")}
    assert counts == {"triggered": 0, "watched": 0}
    seen = frames(tmp_path / "played.jsonl")
    assert json.loads((tmp_path / "played.json").read_text())["frames"] == len(seen)


def test_camera_whose_source_fails_is_told_and_the_others_go_on(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "now").write_text("plate\n")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(b"no picture")
    (tmp_path / "line.yaml").write_text(f"""
engine: {engine}
recipes: {{plate: {{number: 1}}, disc: {{number: 2}}}}
recipe-file: {tmp_path}/now
cameras:
  broken: {{source: {tmp_path}/pictures, summary: {tmp_path}/broken.json}}
  played: {{source: "test://?fps=60&size=64x128", output: {tmp_path}/played.jsonl}}
""")
    with running(tmp_path, "runtime.camera", "--config", tmp_path / "line.yaml") as line:
        line.until_said("camera broken has ended, the others go on: found 1 pictures and none that can be decoded")
        before = len(frames(tmp_path / "played.jsonl"))
        (tmp_path / "now").write_text("disc\n")
        line.process.send_signal(signal.SIGUSR1)
        line.until_said("camera played: recipe disc (2) judges from the next frame on")
        line.until(lambda: len(frames(tmp_path / "played.jsonl")) > before + 20)
        assert line.end() == 1
        assert "1 camera of 2 failed (broken)" in line.said.read_text().splitlines()[-1]
    assert json.loads((tmp_path / "broken.json").read_text())["skipped"] == 1
