from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.sinks import FrameSink, Inspection, open_sink
from runtime.sources import Frame
from stlm_edge.errors import OutputError
from stlm_edge.imaging import Image, read_image

from .conftest import picture

NOISE = np.random.default_rng(0).integers(0, 256, (960, 1280, 3), np.uint8)
"""Cannot be compressed: a JPEG of it takes more than a MiB."""


def sink_for(uri: str | Path, *, fps: float | None = None) -> FrameSink:
    return open_sink(str(uri), threshold=0.5, engine_sha256="ab" * 32, fps=fps)


def inspection(index: int = 0, *, image: Image | None = None, label: str | None = None) -> Inspection:
    drawn = picture(60) if image is None else image
    frame = Frame(drawn, index, time.monotonic(), "test://", label)
    return Inspection(
        frame, Anomaly(0.75, np.zeros(drawn.shape[:2], np.float32), True, Latency(1, 2, 3)), lambda: drawn
    )


def never_drawn() -> Image:
    raise AssertionError("nobody looks at this picture")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video_has_every_overlay_at_the_pace_of_the_source(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"line{suffix}"
    with sink_for(path, fps=12.5) as sink:
        for index in range(5):
            sink.write(inspection(index))
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    frames = 0
    while capture.read()[0]:
        frames += 1
    capture.release()
    assert frames == 5


def test_video_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(b"the video of yesterday")
    with sink_for(path) as sink:
        sink.write(inspection())
        assert path.read_bytes() == b"the video of yesterday"
    assert cv2.VideoCapture(str(path)).isOpened()
    assert list(tmp_path.iterdir()) == [path]


def test_video_keeps_its_size_when_the_frames_change_theirs(tmp_path: Path) -> None:
    path = tmp_path / "line.avi"
    with sink_for(path) as sink:
        sink.write(inspection(0, image=picture(60, size=(96, 192))))
        sink.write(inspection(1, image=picture(200, size=(48, 48))))
    capture = cv2.VideoCapture(str(path))
    seen = [capture.read()[1] for _ in range(2)]
    assert [frame.shape for frame in seen] == [(96, 192, 3)] * 2
    assert [round(float(frame.mean()), -1) for frame in seen] == [60, 200]


def test_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with sink_for(tmp_path / "line.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_video_that_opencv_cannot_write(tmp_path: Path) -> None:
    with sink_for(tmp_path / "line.mp4", fps=1e9) as sink, pytest.raises(OutputError, match="codec mp4v"):
        sink.write(inspection())
    assert list(tmp_path.iterdir()) == []


def test_folder_gets_one_picture_per_frame_named_by_its_index(tmp_path: Path) -> None:
    with sink_for(tmp_path / "overlays") as sink:
        sink.write(inspection(3))
        sink.write(inspection(12))
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["000003.jpg", "000012.jpg"]
    assert read_image(tmp_path / "overlays" / "000003.jpg").shape == (96, 192, 3)


def test_event_has_all_that_is_needed_to_trace_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with sink_for(path) as sink:
        sink.write(inspection(7, label="scratch"))
        event = json.loads(path.read_text())
    captured = datetime.fromisoformat(event.pop("time"))
    assert captured.tzinfo == timezone.utc
    assert abs((datetime.now(timezone.utc) - captured).total_seconds()) < 5
    assert event == {
        "frame": 7,
        "source": "test://",
        "score": 0.75,
        "threshold": 0.5,
        "anomalous": True,
        "label": "scratch",
        "latency_ms": {"prepare": 1, "infer": 2, "decide": 3, "inspect": 6},
        "engine_sha256": "ab" * 32,
    }


def test_event_of_an_unlabelled_frame_has_no_label(tmp_path: Path) -> None:
    with sink_for(tmp_path / "events.jsonl") as sink:
        sink.write(inspection())
    assert "label" not in json.loads((tmp_path / "events.jsonl").read_text())


def test_events_alone_draw_nothing(tmp_path: Path) -> None:
    seen = inspection()
    with sink_for(tmp_path / "events.jsonl") as sink:
        sink.write(Inspection(seen.frame, seen.anomaly, never_drawn))


def test_events_start_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with sink_for(tmp_path / "events.jsonl") as sink:
            sink.write(inspection())
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1


def test_window_without_a_screen_suggests_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"no screen.*--output out\.mp4"):
        sink_for("display://")


def test_screen_that_does_not_answer_is_an_error_and_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(OutputError, match=r"trial window.*--output out\.mp4"):
        sink_for("display://")


@pytest.mark.parametrize("uri", ["mqtt://broker", "line.mkv", "events.json"])
def test_unknown_output_says_what_is_known(uri: str) -> None:
    with pytest.raises(OutputError, match="known are display://"):
        sink_for(uri)


@pytest.mark.parametrize("name", ["line.mp4", "events.jsonl", "overlays"])
def test_place_below_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        sink_for(tmp_path / "file" / name)


def test_events_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    sink = sink_for(tmp_path / "events.jsonl")
    with pytest.raises(OutputError, match="No space left"):
        sink.write(inspection())
    with pytest.raises(OutputError, match="No space left"):
        sink.close()
    sink.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many MiB; needs root."""
    mounted: list[Path] = []

    def mount(mebibytes: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_video_survives_the_disk_getting_full(small_disk: Callable[[int], Path]) -> None:
    path = small_disk(12) / "line.avi"
    sink = sink_for(path)
    with pytest.raises(OutputError, match="No space left"):
        for index in range(1000):
            sink.write(inspection(index, image=NOISE))
    sink.close()
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) > 3


def test_video_that_cannot_be_finished_is_discarded(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(12)
    sink = sink_for(folder / "line.mp4")
    for index in range(3):
        sink.write(inspection(index, image=NOISE))
    (folder / "others").write_bytes(bytes(shutil.disk_usage(folder).free))
    with pytest.raises(OutputError, match="holds 0 of 3 frames and is discarded"):
        sink.close()
    assert [path.name for path in folder.iterdir()] == ["others"]


def test_picture_on_a_full_disk_is_not_half_written(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1)
    with sink_for(folder) as sink, pytest.raises(OutputError, match="No space left"):
        sink.write(inspection(0, image=NOISE))
    assert list(folder.iterdir()) == []
