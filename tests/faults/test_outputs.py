"""An output whose place goes away is alone with that: the others go on, and it comes back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import pytest

from stlm_edge.imaging import write_image

from ..runtime.conftest import picture
from .line_process import camera, frames, running

pytestmark = pytest.mark.heavy


def frames_in(path: Path) -> int:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


@pytest.mark.parametrize("name", ["line.mp4", "line.avi", "line.avi?minutes=5", "overlays"])
def test_folder_of_pictures_or_a_video_that_vanishes_costs_nobody_else_a_frame(
    engine: Path, tmp_path: Path, name: str
) -> None:
    place, events = tmp_path / "place", tmp_path / "events.jsonl"
    with camera(tmp_path, engine, place / name, events) as line:
        line.until(lambda: len(frames(events)) > 10 and list(place.rglob("*.*")))
        shutil.rmtree(place.rename(tmp_path / "gone"))
        line.until(lambda: list(place.rglob("*.*")))
        seen = frames(events)[-1]
        line.until(lambda: frames(events)[-1] > seen + 10)
        assert line.end() == 0
    assert f"frames inspected   {len(frames(events))} in" in line.printed.read_text()
    left = [path for path in place.rglob("*.*") if path.is_file()]
    assert left and not any(path.name.startswith(".") for path in left)
    if name != "overlays":
        assert frames_in(left[0]) > 5
        assert "was moved or deleted; they are lost" in line.said.read_text()
        assert f"frames not written to {place / name}" in line.printed.read_text()


@pytest.mark.parametrize("kind", ["recording", "drop folder"])
def test_output_that_fails_up_to_the_end_does_not_end_the_run_of_a_source_that_waits(
    engine: Path, tmp_path: Path, kind: str
) -> None:
    pictures, events, place = tmp_path / "pictures", tmp_path / "events.jsonl", tmp_path / "place"
    for index in range(40):
        write_image(pictures / f"{index:03d}.png", picture(index))
    place.mkdir()
    (place / "scores.csv").symlink_to(tmp_path / "nowhere" / "scores.csv")
    (tmp_path / "nowhere").mkdir()
    source = f"{pictures}?watch=1" if kind == "drop folder" else str(pictures)
    with camera(tmp_path, engine, place / "scores.csv", events, source=source) as line:
        if kind == "drop folder":
            line.until(lambda: len(frames(events)) == 40)
            shutil.rmtree(tmp_path / "nowhere")
            (tmp_path / "nowhere").touch()
            for index in range(40, 60):
                write_image(pictures / f"{index:03d}.png", picture(index))
            line.until(lambda: len(frames(events)) == 60)
            assert line.end() == 1
            expected = f"error: {place / 'scores.csv'} lacks 20 frames and failed up to the end: cannot write"
            assert line.said.read_text().splitlines()[-1].startswith(expected)
        else:
            assert line.wait() == 0
    assert frames(events) == list(range(60 if kind == "drop folder" else 40))


@pytest.mark.parametrize("where", ["closed pipe", "full disk"])
def test_summary_that_cannot_be_printed_is_one_line_after_all_is_written(
    engine: Path, tmp_path: Path, where: str
) -> None:
    video, summary = tmp_path / "line.avi", tmp_path / "summary.json"
    read_end, write_end = os.pipe()
    os.close(read_end)
    stdout = write_end if where == "closed pipe" else os.open("/dev/full", os.O_WRONLY)
    arguments = ["--engine", engine, "--source", "test://?frames=6&size=64x128", "--output", video]
    with running(tmp_path, "runtime.camera", *arguments, "--summary", summary, stdout=stdout) as line:
        assert line.wait() == 1
    assert frames_in(video) == json.loads(summary.read_text())["frames"] == 6
    reason = "Broken pipe" if where == "closed pipe" else "No space left on device"
    assert line.said.read_text().splitlines()[-1].startswith(f"error: cannot print the results ({reason})")
