"""Synthetic parts, and recordings that are played as if a camera saw them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtime.sources import Frame, FrameSource, SourceOptions, open_source
from runtime.sources.live import PlayedSource
from stlm_edge.errors import SourceError, SourceTimeout
from stlm_edge.imaging import write_image

from ..conftest import picture
from .conftest import IN_TIME_S, frames


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def read_all(source: FrameSource) -> list[Frame]:
    return list(frames(source))


FEW = "test://?frames=6&size=64x96&defect-rate=0.5&seed=3"


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


def test_queue_delivers_every_frame_in_order_and_counts_those_without_room() -> None:
    with open_source("test://?fps=200&frames=20&size=64x64", SourceOptions(trigger="fifo", queue=6)) as source:
        wait_until(lambda: source.dropped == 14)
        assert source.waiting == source.queue == 6
        assert [frame.index for frame in read_all(source)] == list(range(6))


def test_each_trigger_captures_one_picture_until_there_is_none() -> None:
    with open_source("test://?frames=2&size=64x64", SourceOptions(trigger="software")) as source:
        assert source.poll() is None
        for index in range(2):
            before_s = time.monotonic()
            source.trigger()
            frame = source.read()
            assert frame is not None
            assert frame.index == index
            assert before_s <= frame.timestamp_s <= time.monotonic()
        assert source.read() is None
        with pytest.raises(SourceError, match="has no other picture"):
            source.trigger()


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
    assert "playing" not in {thread.name for thread in threading.enumerate()}


def test_folder_is_played_at_the_rate_asked_for(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / f"{index}.png", picture(60))
    (tmp_path / "1a.png").write_bytes(b"no picture")
    with open_source(str(tmp_path), SourceOptions(fps=20)) as source:
        assert source.is_live
        assert source.fps == 20
        seen = [(frame.timestamp_s, Path(frame.source).name) for frame in frames(source)]
        assert source.skipped == 1
    assert len(seen) + source.dropped == 4
    assert seen[-1][1] == "3.png"
    assert seen[-1][0] - seen[0][0] >= 0.15 * (len(seen) == 4)


def test_rate_asked_for_takes_the_place_of_the_test_sources_own() -> None:
    with open_source("test://?fps=0.1&frames=5&size=64x64", SourceOptions(fps=100)) as source:
        assert source.fps == 100
        assert read_all(source)[-1].index == 4


class Scripted(FrameSource):
    """A recording that delivers one frame, and then hangs, fails or ends."""

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


def played(inner: FrameSource) -> PlayedSource:
    return PlayedSource(inner, fps=100, name="the tape", timeout_s=0.1)


def test_disk_that_hangs_is_a_timeout_and_not_the_end() -> None:
    hang = threading.Event()
    with played(Scripted(hang)) as source:
        assert source.read() is not None
        with pytest.raises(SourceTimeout, match=r"no frame for 0\.1 s from the tape"):
            source.read()
        hang.set()


def test_recording_that_fails_delivers_its_last_frame_and_then_its_error() -> None:
    tape = Scripted(SourceError("the tape is torn"))
    with played(tape) as source:
        assert source.read() is not None
        with pytest.raises(SourceError, match="is torn"):
            source.read()
        with pytest.raises(SourceError, match="is torn"):
            source.poll()
    assert tape.is_closed


def test_recording_that_has_ended_stays_ended() -> None:
    with played(Scripted(None)) as source:
        assert len(read_all(source)) == 1
        assert source.read() is None
        assert source.poll() is None
