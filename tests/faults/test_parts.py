"""Parts of a line whose network hangs, as a process: each has its result, on time."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from stlm_edge.imaging import write_image

from ..runtime.conftest import picture, write_engine
from .line_process import QUICK, running
from .test_ending import endless_graph

pytestmark = pytest.mark.heavy

DEADLINE_MS, HANG_S = 150, 1.0


def results(events: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
    return [line for line in lines if line.get("event") == "part-result"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_parts_have_their_results_on_time_while_the_network_hangs(tmp_path: Path, backend: str) -> None:
    engine = write_engine(tmp_path / "endless.onnx", model=endless_graph(at_once=False))
    for index in range(40):
        write_image(tmp_path / "parts" / f"{index:02}.png", picture(40 + index, spot=250 if index == 3 else None))
    events = tmp_path / "events.jsonl"
    arguments = ["--engine", engine, "--backend", backend, "--source", tmp_path / "parts", "--fps", "20"]
    arguments += ["--trigger", "hardware", "--deadline-ms", str(DEADLINE_MS), "--inference-timeout", str(HANG_S)]
    with running(tmp_path, "runtime.camera", *arguments, "--output", events) as line:
        line.until(lambda: len(results(events)) >= 3 + 10)  # the hang is not over by then
        assert line.process.poll() is None
        assert line.wait() == 1
    found = results(events)
    assert [each["part"] for each in found] == list(range(len(found)))
    assert [each["part_result"] for each in found] == ["good"] * 3 + ["missed"] * (len(found) - 3)
    # All but those that the end of the program has cut short, with what a busy machine adds.
    assert max(each["part_ms"] for each in found) < DEADLINE_MS + 100
    assert "has not ended for 1 s" in line.said.read_text().splitlines()[-1]


def test_stopped_line_leaves_no_part_without_a_result(engine: Path, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    arguments = ["--engine", engine, "--source", QUICK, "--trigger", "fifo", "--output", events]
    with running(tmp_path, "runtime.camera", *arguments) as line:
        line.until(lambda: len(results(events)) > 10)
        assert line.end(signal.SIGTERM) == 0
    found = results(events)
    assert [each["part"] for each in found] == list(range(len(found)))
    said = line.printed.read_text()
    assert f"parts              {len(found)}: " in said
