"""A line behind a GigE Vision camera whose packets get lost, which is killed and started again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..runtime.sources.gige import SERIAL, gige_camera
from .line_process import camera, frames

pytestmark = pytest.mark.heavy

SOURCE = f"gige://{SERIAL}?region=0,0,256,256"


def lines(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_picture_that_lacks_packets_is_a_fault_and_no_verdict(engine: Path, tmp_path: Path) -> None:
    """Each picture has some fifty packets, of which one in a hundred is lost."""
    log = tmp_path / "events.jsonl"
    with (
        gige_camera("-r", "10"),
        camera(tmp_path, engine, log, source=SOURCE) as line,
    ):
        line.until(lambda: len(frames(log)) >= 100)
        assert line.end() == 0
    said = lines(log)
    faulty = [each for each in said if each.get("fault") == "incomplete"]
    whole = [each for each in said if "frame" in each and "fault" not in each]
    assert faulty and whole
    assert all(each.get("score") is None for each in faulty)
    assert all(each["score"] is not None for each in whole)
    told = [each for each in said if each.get("event") == "picture-incomplete"]
    assert len(told) == 1, "one a minute"
    assert f"a picture of gige://{SERIAL} lacks packets, so it is a fault and no verdict" in told[0]["text"]
    assert not [each for each in said if each.get("event", "").startswith("camera-")]
    assert f"{len(faulty)} frames incomplete" in line.printed.read_text()


def test_camera_that_is_killed_comes_back_and_the_line_goes_on(engine: Path, tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    with gige_camera() as gige, camera(tmp_path, engine, log, source=SOURCE) as line:
        line.until(lambda: len(frames(log)) >= 5)
        gige.kill()
        line.until_said("trying again until it is back")
        before = len(frames(log))
        gige.start()
        line.until(lambda: len(frames(log)) >= before + 5)
        assert line.end() == 0
    # The last picture before may have been cut.
    events = [each["event"] for each in lines(log) if each.get("event", "picture-incomplete") != "picture-incomplete"]
    assert events == ["camera-lost", "camera-back"]
    numbers = frames(log)
    assert numbers == sorted(set(numbers))
