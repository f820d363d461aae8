from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from stlm_edge.errors import OutputError
from stlm_edge.imaging import Image

from .conftest import NOISE, inspection, sink_for


def grey(value: int, *, size: tuple[int, int]) -> Image:
    return np.full((*size, 3), value, np.uint8)


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
        sink.write(inspection(0, image=grey(60, size=(96, 192))))
        sink.write(inspection(1, image=grey(200, size=(48, 48))))
    capture = cv2.VideoCapture(str(path))
    seen = [capture.read()[1] for _ in range(2)]
    assert [frame.shape for frame in seen] == [(96, 192, 3)] * 2
    assert [round(float(frame.mean()), -1) for frame in seen] == [60, 200]


def test_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with sink_for(tmp_path / "line.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_video_that_opencv_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"line\.mp4 cannot be written at 1e\+09 fps.*codec mp4v"):
        sink_for(tmp_path / "line.mp4", fps=1e9)
    assert list(tmp_path.iterdir()) == []


def test_video_survives_the_disk_getting_full(small_disk: Callable[[int], Path]) -> None:
    path = small_disk(12 << 10) / "line.avi"
    sink = sink_for(path)
    with pytest.raises(OutputError, match="No space left"):
        for index in range(1000):
            sink.write(inspection(index, image=NOISE))
    sink.close()
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) > 3


def test_video_that_cannot_be_finished_is_discarded(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(12 << 10)
    sink = sink_for(folder / "line.mp4")
    for index in range(3):
        sink.write(inspection(index, image=NOISE))
    (folder / "others").write_bytes(bytes(shutil.disk_usage(folder).free))
    with pytest.raises(OutputError, match="holds 0 of 3 frames and is discarded"):
        sink.close()
    assert [path.name for path in folder.iterdir()] == ["others"]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_video_survives_a_limit_on_the_size_of_files(
    tmp_path: Path, limit_files: Callable[[int], None], suffix: str
) -> None:
    path = tmp_path / f"line{suffix}"
    sink = sink_for(path)
    limit_files(4 << 20)
    with pytest.raises(OutputError, match=r"File too large.*ulimit -f"):
        for index in range(1000):
            sink.write(inspection(index, image=NOISE))
    sink.close()
    assert frames_in(path) > 3


def test_video_that_a_limit_on_files_has_cut_says_so(tmp_path: Path, limit_files: Callable[[int], None]) -> None:
    sink = sink_for(tmp_path / "line.mp4")
    for index in range(3):
        sink.write(inspection(index, image=NOISE))
    limit_files(1)
    with pytest.raises(OutputError, match=r"holds 0 of 3 frames and is discarded \(File too large\).*ulimit -f"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("act", ["delete", "move", "file in the way"])
def test_video_whose_folder_vanishes_is_begun_anew(tmp_path: Path, act: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "videos" / "line.avi"
    with sink_for(path) as sink:
        for index in range(3):
            sink.write(inspection(index))
        if act == "delete":
            shutil.rmtree(path.parent)
        else:
            path.parent.rename(tmp_path / "away")
        if act == "file in the way":
            path.parent.touch()
            with pytest.raises(OutputError, match="cannot write"):
                sink.write(inspection(3))
            path.parent.unlink()
        for index in range(4, 9):
            sink.write(inspection(index))
        assert sink.lost == 3
    assert frames_in(path) == 5
    assert "line.avi had 3 frames in .line.avi." in caplog.text
    if act != "delete":
        (left,) = (tmp_path / "away").iterdir()
        assert frames_in(left) == 3


@pytest.mark.parametrize("uri", ["line.mp4", "line.mp4?minutes=5"])
def test_video_that_was_taken_away_up_to_the_end_is_an_error(tmp_path: Path, uri: str) -> None:
    sink = sink_for(tmp_path / "videos" / uri)
    sink.write(inspection(0))
    shutil.rmtree(tmp_path / "videos")
    with pytest.raises(OutputError, match="was moved or deleted"):
        sink.close()
    assert sink.lost == 1


def test_segment_that_is_lost_costs_no_frame_of_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start_s = time.monotonic() - 600
    with sink_for(f"{tmp_path / 'videos' / 'line.avi'}?minutes=1") as sink:
        sink.write(inspection(0, timestamp_s=start_s))
        shutil.rmtree(tmp_path / "videos")
        for minute in (2, 3):
            sink.write(inspection(minute, timestamp_s=start_s + 60 * minute))
    assert [frames_in(path) for path in (tmp_path / "videos").iterdir()] == [1, 1]
    assert (sink.lost, caplog.text.count("was moved or deleted")) == (1, 1)


def frames_in(path: Path) -> int:
    return int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT))


def test_segments_begin_every_so_many_minutes_and_bear_the_time_of_their_first_frame(tmp_path: Path) -> None:
    start_s = time.monotonic() - 600
    with sink_for(f"{tmp_path / 'line.mp4'}?minutes=2") as sink:
        for minute in range(5):
            sink.write(inspection(minute, timestamp_s=start_s + 60 * minute))
    paths = sorted(tmp_path.iterdir())
    assert [frames_in(path) for path in paths] == [2, 2, 1]
    begun = [datetime.strptime(path.name, "line-%Y%m%dT%H%M%S.%fZ.mp4") for path in paths]
    assert [round((later - begun[0]).total_seconds()) for later in begun] == [0, 120, 240]
    assert abs((datetime.now(timezone.utc).replace(tzinfo=None) - begun[0]).total_seconds() - 600) < 5


def test_oldest_segments_make_room_for_new_ones(tmp_path: Path) -> None:
    (tmp_path / "line-of-1999.mp4").write_bytes(bytes(2_000_000))
    start_s = time.monotonic() - 6000
    with sink_for(f"{tmp_path / 'line.avi'}?minutes=1&limit=3MB") as sink:
        for minute in range(12):
            sink.write(inspection(minute, image=NOISE, timestamp_s=start_s + 60 * minute))
    segments = sorted(tmp_path.glob("line-2*.avi"))
    assert 0 < len(segments) < 12
    assert sum(path.stat().st_size for path in segments) <= 3_000_000
    assert (tmp_path / "line-of-1999.mp4").exists()


def test_limit_for_a_single_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="minutes=60&limit=20GB"):
        sink_for(f"{tmp_path / 'line.mp4'}?limit=5GB")


_WRITER = """
import os, signal, sys
from tests.runtime.sinks.conftest import NOISE, inspection, sink_for
sink = sink_for(sys.argv[1])
for index in range(20):
    sink.write(inspection(index, image=NOISE))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.heavy
def test_avi_of_a_killed_program_can_be_played(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "line.avi")]
    writer = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert writer.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".line.avi.")
    capture = cv2.VideoCapture(str(left))
    assert sum(1 for _ in iter(lambda: capture.read()[0], False)) >= 18
