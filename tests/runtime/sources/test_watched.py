"""A drop folder: files that come whole or bit by bit, and folders that go."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.sources import FrameSource, SourceOptions, open_source, watched
from runtime.sources.watched import WatchedFolder
from stlm_edge.errors import SourceError, SourceTimeout
from stlm_edge.imaging import Image, read_with_file, write_image

from ..conftest import picture
from .conftest import read_until, wait_for_event


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "drop"
    path.mkdir()
    return path


def put(path: Path, value: int = 60, *, age_s: float = 0.0) -> None:
    """A picture that is there at once, as `replacing` and most cameras do it."""
    write_image(path, picture(value))
    if age_s:
        os.utime(path, (time.time() - age_s,) * 2)


def names(source: FrameSource, count: int) -> list[str]:
    return [Path(read_until(source, lambda _: True).source).name for _ in range(count)]


def encoded(suffix: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (96, 192, 3), np.uint8)
    return cv2.imencode(suffix, noise)[1].tobytes()


def test_pictures_that_are_there_come_oldest_first_and_then_new_ones(folder: Path) -> None:
    put(folder / "b.png", age_s=30)
    put(folder / "a.png", age_s=20)
    put(folder / "c.png", age_s=10)
    with open_source(f"{folder}?watch=1") as source:
        assert not source.is_live
        assert names(source, 3) == ["b.png", "a.png", "c.png"]
        put(folder / "0.png", 90)
        frame = read_until(source, lambda _: True)
        assert (Path(frame.source).name, frame.index, int(frame.image[0, 0, 0])) == ("0.png", 3, 90)
        assert frame.capture_ms > 0


def test_line_that_starts_again_may_leave_alone_what_is_there(folder: Path) -> None:
    put(folder / "a.png")
    with open_source(f"{folder}?watch=new") as source:
        put(folder / "b.png")
        assert names(source, 1) == ["b.png"]
        assert source.poll() is None


def test_each_picture_waits_until_it_is_read(folder: Path) -> None:
    with open_source(f"{folder}?watch=1") as source:
        for index in range(30):
            put(folder / f"{index:02d}.png")
        time.sleep(0.3)
        assert sorted(names(source, 30)) == [f"{index:02d}.png" for index in range(30)]
        assert source.dropped == source.skipped == 0


def test_empty_folder_is_a_timeout_and_not_the_end(folder: Path) -> None:
    with WatchedFolder(folder, timeout_s=0.1) as source:
        for _ in range(2):
            with pytest.raises(SourceTimeout, match=r"no new picture in .*/drop for 0\.1 s"):
                source.read()
        assert source.poll() is None
        put(folder / "a.png")
        assert names(source, 1) == ["a.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_file_that_is_still_being_written_is_not_read_half(folder: Path, suffix: str) -> None:
    content = encoded(suffix)
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    third = len(content) // 3

    def write_slowly() -> None:
        with (folder / f"slow{suffix}").open("wb", buffering=0) as file:
            for start in range(0, len(content), third):
                file.write(content[start : start + third])
                # Longer than a file needs to count as settled, so that it is tried and found to be cut off.
                time.sleep(0.35)

    with open_source(f"{folder}?watch=1") as source:
        writer = threading.Thread(target=write_slowly)
        writer.start()
        frame = read_until(source, lambda _: True)
        writer.join()
        np.testing.assert_array_equal(frame.image, whole)
        assert source.skipped == 0


def test_file_that_is_being_written_does_not_hold_up_others(folder: Path) -> None:
    content = encoded(".png")
    with open_source(f"{folder}?watch=1") as source:
        (folder / "a.png").write_bytes(content[:1000])
        put(folder / "b.png")
        assert names(source, 1) == ["b.png"]
        (folder / "a.png").write_bytes(content)
        assert names(source, 1) == ["a.png"]


def test_hidden_and_temporary_files_are_left_alone_until_they_are_renamed(folder: Path) -> None:
    put(folder / ".a.png.x7.png")
    put(folder / "~b.png")
    (folder / "c.png.part").write_bytes(encoded(".png"))
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub").mkdir()
    put(folder / "sub" / "d.png")
    with WatchedFolder(folder, timeout_s=0.5) as source:
        with pytest.raises(SourceTimeout):
            source.read()
        (folder / "c.png.part").rename(folder / "c.png")
        assert names(source, 1) == ["c.png"]


def test_file_that_never_becomes_readable_is_named_and_skipped(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_GIVEN_UP_S", 0.5)
    (folder / "bad.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING), open_source(f"{folder}?watch=1") as source:
        while source.skipped == 0:
            assert source.poll() is None
            time.sleep(0.01)
        put(folder / "good.png")
        frame = read_until(source, lambda _: True)
    assert Path(frame.source).name == "good.png"
    assert frame.index == 1
    assert caplog.text.count("bad.png is empty, truncated, damaged or not a picture") == 1


def test_picture_is_seen_once_and_again_after_it_was_removed(folder: Path) -> None:
    with WatchedFolder(folder, timeout_s=0.5) as source:
        put(folder / "a.png", 60)
        assert names(source, 1) == ["a.png"]
        with pytest.raises(SourceTimeout):
            source.read()
        (folder / "a.png").unlink()
        time.sleep(0.2)
        assert source.poll() is None
        put(folder / "a.png", 120)
        assert read_until(source, lambda _: True).image[0, 0, 0] == 120


@pytest.mark.parametrize("how", ["in place", "by renaming", "with the same content"])
def test_file_that_is_overwritten_is_a_new_part(folder: Path, how: str) -> None:
    put(folder / "a.bmp", 60, age_s=5)
    put(folder / "b.bmp", 70, age_s=4)
    with WatchedFolder(folder, timeout_s=0.6) as source:
        assert names(source, 2) == ["a.bmp", "b.bmp"]
        if how == "in place":
            (folder / "a.bmp").write_bytes(cv2.imencode(".bmp", picture(90))[1].tobytes())
        else:
            put(folder / "a.bmp", 90 if how == "by renaming" else 60)
        frame = read_until(source, lambda _: True)
        assert (Path(frame.source).name, int(frame.image[0, 0, 0])) == ("a.bmp", 60 if how[0] == "w" else 90)
        with pytest.raises(SourceTimeout):
            source.read()


def test_line_that_starts_again_takes_what_is_overwritten(folder: Path) -> None:
    put(folder / "a.png", age_s=5)
    with open_source(f"{folder}?watch=new") as source:
        put(folder / "a.png", 90)
        assert read_until(source, lambda _: True).image[0, 0, 0] == 90


def test_file_that_is_written_over_while_it_is_read_waits_and_one_that_is_moved_away_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and(path: Path) -> tuple[Image, bytes]:
        image, data = read_with_file(path)
        if path.name == "moved.bmp":
            path.unlink()
        elif image[0, 0, 0] == 60:
            path.write_bytes(cv2.imencode(".bmp", picture(90))[1].tobytes())
        return image, data

    monkeypatch.setattr(watched, "read_with_file", read_and)
    put(folder / "over.bmp", 60, age_s=5)
    put(folder / "moved.bmp", 30, age_s=4)
    with WatchedFolder(folder, timeout_s=0.6) as source:
        assert [int(read_until(source, lambda _: True).image[0, 0, 0]) for _ in range(2)] == [30, 90]
        with pytest.raises(SourceTimeout):
            source.read()


def test_entries_that_are_no_files_cost_themselves_alone_and_are_said_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "nowhere.png").symlink_to(folder / "gone")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    os.mknod(folder / "socket.png", stat.S_IFSOCK | 0o600)
    (folder / "notes.txt").write_text("no picture")
    put(folder / "a.png")
    with caplog.at_level(logging.WARNING), WatchedFolder(folder, timeout_s=0.5) as source:
        assert names(source, 1) == ["a.png"]
        with pytest.raises(SourceTimeout):
            source.read()
        assert (source.skipped, source.reconnects, source.take_events()) == (0, 0, [])
    for said in (
        "loop.png cannot be looked at",
        "nowhere.png cannot be looked at",
        "folder.png is a folder",
        "pipe.png is a pipe",
        "socket.png is a socket",
        "files like notes.txt are passed over",
    ):
        assert caplog.text.count(said) == 1


def test_bad_entries_without_number_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(30):
        (folder / f"{index}.png").symlink_to(folder / "gone")
    with caplog.at_level(logging.WARNING), open_source(f"{folder}?watch=new") as source:
        assert source.poll() is None
    assert len(caplog.records) == 6
    assert "25 more entries of that kind" in caplog.text


def test_entry_that_becomes_a_file_is_read(folder: Path) -> None:
    (folder / "a.png").symlink_to(folder / "later")
    with open_source(f"{folder}?watch=1") as source:
        assert source.poll() is None
        put(folder / "b.png")
        (folder / "b.png").rename(folder / "later")
        assert names(source, 1) == ["a.png"]


@pytest.mark.parametrize(
    "name", [b"gr\xfc\xdfe.png", "部".encode() * 78 + b".png", b"a\nb\x1b[31m.png", b"=1+1,'\".png"]
)
def test_names_of_every_kind_are_read(folder: Path, name: bytes) -> None:
    path = folder / os.fsdecode(name)
    try:
        path.write_bytes(encoded(".png"))
    except OSError:
        pytest.skip("this file system has no such names")
    with open_source(f"{folder}?watch=1") as source:
        assert names(source, 1) == [os.fsdecode(name)]


def test_overwritten_files_are_noticed_among_many_in_their_turn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_MOST_ASKED", 7)
    monkeypatch.setattr(watched, "_AT_ONCE", 3)
    for index in range(40):
        put(folder / f"{index:02d}.png", age_s=100)
    with open_source(f"{folder}?watch=new") as source:
        for index in (0, 17, 39):
            put(folder / f"{index:02d}.png", 90)
        assert sorted(names(source, 3)) == ["00.png", "17.png", "39.png"]


def test_only_what_lies_in_the_folder_is_remembered(folder: Path) -> None:
    with open_source(f"{folder}?watch=1") as source:
        assert isinstance(source, WatchedFolder)
        for turn in range(5):
            for index in range(10):
                put(folder / f"{turn}-{index}.png")
            assert len(names(source, 10)) == 10
            for path in folder.iterdir():
                path.unlink()
        while len(source._seen):
            assert source.poll() is None
            time.sleep(0.01)
        assert not source._waiting


def test_more_files_than_are_looked_at_at_once_all_come_oldest_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_MOST_WAITING", 4)
    monkeypatch.setattr(watched, "_AT_ONCE", 3)
    for index in range(15):
        put(folder / f"{index:02d}.png", age_s=100 - index)
    with open_source(f"{folder}?watch=1") as source:
        assert names(source, 15) == [f"{index:02d}.png" for index in range(15)]


def test_folder_that_is_deleted_is_an_outage_and_not_the_end(folder: Path) -> None:
    with WatchedFolder(folder, timeout_s=0.2) as source:
        put(folder / "a.png")
        assert names(source, 1) == ["a.png"]
        folder.rename(folder.with_name("away"))
        with pytest.raises(SourceTimeout):
            source.read()
        assert "/drop cannot be read any more (No such file or directory)" in wait_for_event(source, "camera-lost").text
        with pytest.raises(SourceTimeout):
            source.read()
        assert source.take_events() == []
        folder.with_name("away").rename(folder)
        put(folder / "b.png")
        # What was seen before the outage is not new after it.
        assert names(source, 1) == ["b.png"]
        wait_for_event(source, "camera-back")
        assert source.reconnects == 1


@pytest.fixture
def mounted(folder: Path) -> Iterator[Path]:
    """A file system in memory, where this user may mount one."""
    if subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], capture_output=True, check=False)


def test_share_that_is_unmounted_is_an_outage_and_not_an_empty_folder(mounted: Path) -> None:
    put(mounted / "a.png")
    with WatchedFolder(mounted, timeout_s=0.5) as source:
        assert names(source, 1) == ["a.png"]
        subprocess.run(["umount", mounted], check=True)
        with pytest.raises(SourceTimeout):
            source.read()
        assert "is not mounted" in wait_for_event(source, "camera-lost").text


def test_folder_that_is_not_there_or_not_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    with pytest.raises(SourceError, match=r"a\.png cannot be watched \(Not a directory\)"):
        open_source(f"{tmp_path / 'a.png'}?watch=1")


def test_watched_folder_has_no_rate(folder: Path) -> None:
    with pytest.raises(SourceError, match="is watched at a rate"):
        open_source(f"{folder}?watch=1", SourceOptions(fps=5))


def test_watched_pictures_are_turned_and_resized(folder: Path) -> None:
    put(folder / "a.png")
    with open_source(f"{folder}?watch=1", SourceOptions(width=48, height=64, rotate=90)) as source:
        assert read_until(source, lambda _: True).image.shape == (64, 48, 3)


@pytest.mark.heavy
def test_writer_in_another_process(folder: Path) -> None:
    """Files as another program's plain writes make them, many at a time; each arrives once and whole."""
    code = (
        "import cv2, numpy as np, sys\n"
        "for index in range(40):\n"
        "    cv2.imwrite(f'{sys.argv[1]}/{index:03d}.bmp', np.full((480, 640, 3), index, np.uint8))\n"
    )
    with open_source(f"{folder}?watch=1") as source:
        writer = subprocess.Popen([sys.executable, "-c", code, str(folder)])
        seen = [read_until(source, lambda _: True) for _ in range(40)]
        assert writer.wait() == 0
    assert sorted(int(frame.image[-1, -1, 0]) for frame in seen) == list(range(40))
    assert all((frame.image == frame.image[0, 0]).all() for frame in seen)
