"""Videos and folders of pictures: every frame, and then the end."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.sources import open_source
from stlm_edge.errors import SourceError
from stlm_edge.imaging import write_image

from ..conftest import picture
from .conftest import frames


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
        seen = list(frames(source))
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
        seen = list(frames(source))
    assert 0 < len(seen) < 10
    assert f"ended after {len(seen)} of 10 frames" in caplog.text


def test_damaged_frames_of_a_video_are_skipped_and_those_after_them_read(
    video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(video.read_bytes())
    starts = [match.end() for match in re.finditer(rb"00dc....(?=\xff\xd8)", content, re.DOTALL)]
    assert len(starts) == 10
    for index in (0, 4, 5):
        content[starts[index] : starts[index] + 200] = bytes(200)  # of 230
    video.write_bytes(content)
    with open_source(str(video)) as source:
        seen = [frame.index for frame in frames(source)]
        assert seen == [1, 2, 3, 6, 7, 8, 9]
        assert source.skipped == 3
    assert "skipped: 2 damaged frames of" in caplog.text
    assert "ended after" not in caplog.text


def test_file_that_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "line.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        open_source(str(path))


def test_folder_is_read_in_order_with_labels_and_damaged_pictures_are_named(
    mvtec_test_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_source(str(mvtec_test_folder)) as source:
        seen = list(frames(source))
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
        assert [frame.label for frame in list(frames(source))] == [None]


def test_whole_category_is_refused_in_favour_of_its_test_folder(mvtec_test_folder: Path) -> None:
    with pytest.raises(SourceError, match=f"give {mvtec_test_folder}"):
        open_source(str(mvtec_test_folder.parent))


def test_single_picture(tmp_path: Path) -> None:
    # Its name looks like one of a numbered sequence, which OpenCV's video reader would go on with.
    for index in range(3):
        write_image(tmp_path / f"part_{index:03d}.png", picture(60))
    with open_source(str(tmp_path / "part_000.png")) as source:
        assert len(list(frames(source))) == 1


def test_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(SourceError, match="holds no picture"):
        open_source(str(tmp_path))


def test_frame_tells_when_its_file_was_opened_and_how_long_decoding_took(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(60))
    before_s = time.monotonic()
    with open_source(str(tmp_path)) as source:
        frame = source.read()
    after_s = time.monotonic()
    assert frame is not None
    assert before_s <= frame.timestamp_s <= frame.timestamp_s + frame.capture_ms / 1e3 <= after_s
    assert frame.capture_ms > 0


def test_next_picture_is_there_without_waiting_and_the_end_is_told_by_reading(tmp_path: Path, video: Path) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "folder" / name, picture(60))
    for uri, count in ((str(tmp_path / "folder"), 2), (str(video), 10), ("test://?frames=3&size=64x64", 3)):
        with open_source(uri) as source:
            assert not source.is_live
            for index in range(count):
                frame = source.poll()
                assert frame is not None
                assert frame.index == index
            assert source.poll() is None
            assert source.read() is None


def test_video_in_a_codec_that_is_missing_says_how_to_convert_it(video: Path) -> None:
    content = video.read_bytes()
    assert content.count(b"MJPG") >= 1
    video.write_bytes(content.replace(b"MJPG", b"XQZW"))
    with (
        pytest.raises(SourceError, match=r"ffmpeg -i line\.avi -c:v mjpeg line-converted\.avi"),
        open_source(str(video)) as source,
    ):
        source.read()
