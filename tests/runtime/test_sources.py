from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.sources import Frame, FrameSource, open_source
from runtime.sources.live import LiveSource
from stlm_edge.errors import SourceError, SourceTimeout
from stlm_edge.imaging import write_image

from .conftest import picture

FEW = "test://?frames=6&size=64x96&defect-rate=0.5&seed=3"


def read_all(source: FrameSource) -> list[Frame]:
    return list(frames(source))


def frames(source: FrameSource) -> Iterator[Frame]:
    while (frame := source.read()) is not None:
        yield frame


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames, each brighter than the one before."""
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (64, 48))
    for index in range(10):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_video_delivers_every_frame_in_order_and_then_none(video: Path) -> None:
    with open_source(str(video)) as source:
        seen = read_all(source)
        assert source.read() is None
        assert source.fps == 12.5
        assert source.dropped == source.skipped == 0
    assert [frame.index for frame in seen] == list(range(10))
    assert [round(float(frame.image.mean()), -1) for frame in seen] == [20.0 * index for index in range(10)]
    assert all(frame.source == str(video) and frame.label is None for frame in seen)
    assert [frame.timestamp_s for frame in seen] == sorted(frame.timestamp_s for frame in seen)


def test_video_cut_short_is_reported(video: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 3 // 4])
    with open_source(str(video)) as source:
        seen = read_all(source)
    assert 0 < len(seen) < 10
    assert f"ended after {len(seen)} of 10 frames" in caplog.text


def test_file_that_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        open_source(str(path))


def test_folder_is_read_in_order_with_labels_and_damaged_pictures_are_named(
    mvtec_test_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_source(str(mvtec_test_folder)) as source:
        seen = read_all(source)
        assert source.skipped == 1
    assert [(frame.label, Path(frame.source).name) for frame in seen] == [
        ("good", "000.png"),
        ("good", "001.png"),
        ("scratch", "000.png"),
        ("scratch", "001.png"),
    ]
    assert "scratch/002.png" in caplog.text


def test_folder_without_good_has_no_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "monday" / "a.png", picture(60))
    with open_source(str(tmp_path)) as source:
        assert [frame.label for frame in read_all(source)] == [None]


def test_whole_category_is_refused_in_favour_of_its_test_folder(mvtec_test_folder: Path) -> None:
    with pytest.raises(SourceError, match=f"give {mvtec_test_folder}"):
        open_source(str(mvtec_test_folder.parent))


def test_single_picture(tmp_path: Path) -> None:
    # Its name looks like one of a numbered sequence, which OpenCV's video reader would go on with.
    for index in range(3):
        write_image(tmp_path / f"part_{index:03d}.png", picture(60))
    with open_source(str(tmp_path / "part_000.png")) as source:
        assert len(read_all(source)) == 1


def test_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(SourceError, match="holds no picture"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("uri", ["nowhere.mp4", "rtsp://camera/1", "/no/such/folder"])
def test_unknown_source_says_what_is_known(uri: str) -> None:
    with pytest.raises(SourceError, match="known are a camera's index"):
        open_source(uri)


def test_camera_that_is_not_there() -> None:
    with pytest.raises(SourceError, match="camera 99 cannot be opened"):
        open_source("99")


def test_test_source_is_the_same_for_the_same_seed() -> None:
    with open_source(FEW) as first, open_source(FEW) as second:
        seen, again = read_all(first), read_all(second)
    assert len(seen) == 6
    for one, other in zip(seen, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.label == other.label
    assert len({frame.label for frame in seen}) > 1
    assert seen[0].image.shape == (64, 96, 3)


def test_test_source_differs_with_the_seed() -> None:
    with open_source(FEW) as first, open_source(FEW.replace("seed=3", "seed=4")) as second:
        assert not np.array_equal(read_all(first)[0].image, read_all(second)[0].image)


def test_frame_depends_on_seed_and_index_alone() -> None:
    with open_source(FEW) as short, open_source(FEW.replace("frames=6&", "")) as endless:
        for frame in read_all(short):
            other = endless.read()
            assert other is not None
            np.testing.assert_array_equal(frame.image, other.image)


@pytest.mark.parametrize(("rate", "expected"), [("0", {"good"}), ("1", {"scratch", "stain", "chip", "missing_hole"})])
def test_defect_rate(rate: str, expected: set[str]) -> None:
    with open_source(f"test://?frames=30&size=64x64&defect-rate={rate}") as source:
        assert {frame.label for frame in read_all(source)} == expected


@pytest.mark.parametrize(
    "uri",
    [
        "test://?fsp=10",
        "test://?fps=fast",
        "test://?fps=0",
        "test://?fps=nan",
        "test://?fps=1&fps=2",
        "test://?defect-rate=20",
        "test://?seed=-1",
        "test://?frames=0",
        "test://?size=512",
        "test://?size=8x8",
        "test://?fps",
        "test://part",
        "test://[",
    ],
)
def test_malformed_test_source_says_which_options_there_are(uri: str) -> None:
    with pytest.raises(SourceError, match="known are fps, defect-rate, seed, frames, size"):
        open_source(uri)


def test_newest_frame_wins_over_a_slow_reader() -> None:
    with open_source("test://?fps=50&frames=40&size=64x64") as source:
        seen = []
        for frame in frames(source):
            seen.append(frame.index)
            time.sleep(0.1)
    assert seen == sorted(seen)
    assert seen[-1] == 39
    assert len(seen) < 20
    assert source.dropped == 40 - len(seen)


def test_live_source_keeps_its_pace() -> None:
    start_s = time.monotonic()
    with open_source("test://?fps=20&frames=11&size=64x64") as source:
        read_all(source)
    assert time.monotonic() - start_s >= 0.5


def test_closing_a_live_source_ends_its_thread_at_once() -> None:
    source = open_source("test://?fps=0.1&size=64x64")
    assert source.read() is not None
    start_s = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - start_s < 1
    assert "capture" not in {thread.name for thread in threading.enumerate()}


class Scripted(FrameSource):
    """A camera that delivers one frame, and then hangs, fails or ends."""

    def __init__(self, then: threading.Event | Exception | None) -> None:
        self.then = then
        self.index = 0
        self.is_closed = False

    def read(self) -> Frame | None:
        if self.index == 0:
            self.index += 1
            return Frame(picture(60), 0, time.monotonic(), "scripted")
        if isinstance(self.then, Exception):
            raise self.then
        if self.then is not None:
            self.then.wait()
        return None

    def close(self) -> None:
        self.is_closed = True


def test_camera_that_hangs_is_a_timeout_and_not_the_end() -> None:
    hang = threading.Event()
    with LiveSource(Scripted(hang), timeout_s=0.1) as source:
        assert source.read() is not None
        with pytest.raises(SourceTimeout, match=r"no frame for 0\.1 s"):
            source.read()
        hang.set()


def test_camera_that_fails_delivers_its_last_frame_and_then_its_error() -> None:
    camera = Scripted(SourceError("camera 0 has stopped delivering frames"))
    with LiveSource(camera) as source:
        assert source.read() is not None
        with pytest.raises(SourceError, match="has stopped"):
            source.read()
    assert camera.is_closed


def test_live_source_that_has_ended_stays_ended() -> None:
    with LiveSource(Scripted(None)) as source:
        assert len(read_all(source)) == 1
        assert source.read() is None
