"""Cameras whose driver hangs, fails or ends, which no machine without such a driver can show for real."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from runtime.sources import Frame, FrameSource
from runtime.sources.live_camera import MOST_LEFT_BEHIND, LiveCamera, Patience
from stlm_edge.errors import FrameDamaged, SourceError, SourceTimeout

from ..conftest import picture
from .conftest import IN_TIME_S, read_until, wait_for_event

QUICK = Patience(read_s=0.1, open_s=0.4, hang_s=0.4, first_delay_s=0.01, most_delay_s=0.05)

CALM = Patience(read_s=0.1, first_delay_s=0.01, most_delay_s=0.05)
"""For cameras that do not hang, however busy the machine is."""

FOREVER = 10**9


class FakeCamera(FrameSource):
    """Delivers some frames, and then hangs until `returns` is set, fails or ends."""

    def __init__(self, frames: int, then: threading.Event | Exception | None = None) -> None:
        self.left = frames
        self.then = then
        self.index = 0
        self.is_closed = threading.Event()
        self.fps = 200.0

    def read(self) -> Frame | None:
        if self.left == 0:
            if isinstance(self.then, Exception):
                raise self.then
            if self.then is None:
                return None
            self.then.wait()
        self.left -= 1
        time.sleep(0.005)
        frame = Frame(picture(60), self.index, time.monotonic(), "fake")
        self.index += 1
        return frame

    def close(self) -> None:
        self.is_closed.set()


class Opener:
    """Opens one camera after the other; where it is given an event or an error, opening hangs or fails."""

    def __init__(self, *cameras: FakeCamera | threading.Event | Exception) -> None:
        self.cameras = iter(cameras)
        self.opened = 0

    def __call__(self) -> FrameSource:
        self.opened += 1
        camera = next(self.cameras)
        if isinstance(camera, Exception):
            raise camera
        if isinstance(camera, threading.Event):
            camera.wait()
            camera = FakeCamera(FOREVER)
        return camera


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """A driver that hangs in it comes back at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


def live(*cameras: FakeCamera | threading.Event | Exception, patience: Patience = CALM) -> LiveCamera:
    return LiveCamera(Opener(*cameras), name="camera 0", patience=patience)


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_read_that_hangs_is_noticed_and_the_camera_opened_anew(hang: threading.Event) -> None:
    stuck = FakeCamera(3, hang)
    with live(stuck, FakeCamera(FOREVER), patience=QUICK) as source:
        lost = wait_for_event(source, "camera-lost")
        assert "camera 0 hangs, its driver is silent for 0.4 s" in lost.text
        wait_for_event(source, "camera-back")
        assert read_until(source, lambda frame: frame.index >= 5)
        assert source.reconnects == 1
        assert not stuck.is_closed.is_set()
        hang.set()
        assert stuck.is_closed.wait(IN_TIME_S)


def test_frame_of_a_driver_that_comes_back_late_is_not_delivered(hang: threading.Event) -> None:
    stuck = FakeCamera(1, hang)
    silent = threading.Event()
    with live(stuck, FakeCamera(0, silent), patience=QUICK) as source:
        assert source.read() is not None
        wait_for_event(source, "camera-lost")
        hang.set()
        assert stuck.is_closed.wait(IN_TIME_S)
        assert source.poll() is None
        assert source.reconnects == 0
        silent.set()


def test_first_open_that_hangs_is_an_error(hang: threading.Event) -> None:
    with pytest.raises(SourceError, match=r"camera 0 cannot be opened: its driver has not answered for 0\.4 s"):
        live(hang, patience=QUICK)


def test_first_open_that_fails_is_that_error() -> None:
    with pytest.raises(SourceError, match="no such camera"):
        live(SourceError("no such camera"))


def test_camera_is_opened_until_it_is_back(hang: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    no_camera = [SourceError("there is no camera at /dev/video0")] * 5
    with live(FakeCamera(2, SourceError("unplugged")), *no_camera, hang, FakeCamera(FOREVER), patience=QUICK) as source:
        assert wait_for_event(source, "camera-lost").text == "unplugged; trying again until it is back"
        wait_for_event(source, "camera-back")
        assert source.reconnects == 1
    # An outage of hours must not fill the log.
    assert caplog.text.count("still lost: there is no camera at /dev/video0") == 1


def test_frames_are_counted_on_after_an_outage() -> None:
    cameras = [FakeCamera(3, None) for _ in range(4)]
    with live(*cameras, FakeCamera(FOREVER)) as source:
        seen = []
        while len(seen) < 10:
            try:
                frame = source.read()
            except SourceTimeout:
                continue
            assert frame is not None
            seen.append(frame.index)
    assert seen == sorted(set(seen))
    assert seen[-1] + 1 - len(seen) <= source.dropped + 1


def test_frame_before_a_loss_is_still_delivered(hang: threading.Event) -> None:
    with live(FakeCamera(1, SourceError("unplugged")), hang) as source:
        wait_for_event(source, "camera-lost")
        assert source.read() is not None
        for expected in ("no frame for", "no frame for"):
            with pytest.raises(SourceTimeout, match=expected):
                source.read()


def test_waiting_reader_is_told_of_a_loss(hang: threading.Event) -> None:
    with live(FakeCamera(0, SourceError("unplugged")), hang) as source:
        with pytest.raises(SourceTimeout, match="unplugged; trying again"):
            source.read()
        with pytest.raises(SourceTimeout, match=r"no frame for 0\.1 s"):
            source.read()


def test_few_threads_hang_at_once_and_the_camera_is_tried_again_when_one_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hangs = [threading.Event() for _ in range(MOST_LEFT_BEHIND)]
    opener = Opener(FakeCamera(1, hangs[0]), *hangs[1:], FakeCamera(FOREVER))
    with LiveCamera(opener, name="camera 0", patience=QUICK) as source:
        wait_until(lambda: f"{MOST_LEFT_BEHIND} threads hang in the driver" in caplog.text)
        time.sleep(0.2)  # long enough for many more
        assert opener.opened == MOST_LEFT_BEHIND
        wait_for_event(source, "camera-lost")
        hangs[1].set()
        wait_for_event(source, "camera-back")
        assert opener.opened == MOST_LEFT_BEHIND + 1
        for event in hangs:
            event.set()


def test_driver_that_hangs_for_good_is_tried_again_ever_less_often_without_end(
    hang: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """No thread ever comes back, and yet the camera does."""
    patience = dataclasses.replace(QUICK, crowded_s=0.2)
    hung = MOST_LEFT_BEHIND + 2
    opener = Opener(FakeCamera(1, hang), *[hang] * (hung - 1), FakeCamera(FOREVER))
    with LiveCamera(opener, name="camera 0", patience=patience) as source:
        wait_for_event(source, "camera-lost")
        wait_for_event(source, "camera-back")
        assert opener.opened == hung + 1
    waits = [record.args for record in caplog.records if "threads hang in the driver" in record.msg]
    assert waits == [(MOST_LEFT_BEHIND + more, "camera 0", 0.2 * 2**more / 60) for more in range(3)]


class Flawed(FakeCamera):
    """Gives a damaged picture before each of its frames."""

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.is_due = True

    def read(self) -> Frame | None:
        self.is_due = not self.is_due
        if not self.is_due:
            self.skipped += 1
            raise FrameDamaged("a picture was skipped: see rtsp://adm:s3cret@camera/1")
        return super().read()


def test_damaged_pictures_are_counted_over_all_connections_and_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with live(Flawed(3), Flawed(3), FakeCamera(FOREVER)) as source:
        wait_until(lambda: source.reconnects == 2)
        assert source.skipped == 8  # the last one of each connection before its end
        kinds = [event.kind for event in source.take_events()]
        assert kinds.count("picture-skipped") == 1
        assert kinds[0] == "picture-skipped"
    monkeypatch.setattr("runtime.sources.live_camera._SKIPS_TOLD_S", 0.0)
    with live(Flawed(3), FakeCamera(FOREVER)) as source:
        wait_until(lambda: source.reconnects == 1)
        texts = [event.text for event in source.take_events() if event.kind == "picture-skipped"]
    assert texts == ["a picture was skipped: see rtsp://***@camera/1"] * 4


def test_error_of_the_library_tells_no_password() -> None:
    broken = FakeCamera(0, RuntimeError("cannot read rtsp://adm:s3cret@camera/1\n"))
    with live(broken, FakeCamera(FOREVER)) as source:
        text = wait_for_event(source, "camera-lost").text
    assert text.startswith("RuntimeError: cannot read rtsp://***@camera/1")
    assert "\n" not in text


def test_newest_frame_wins_and_the_others_are_counted() -> None:
    with live(FakeCamera(FOREVER)) as source:
        assert source.is_live
        wait_until(lambda: source.dropped >= 3)
        frame = source.poll()
        assert frame is not None
        assert frame.index >= 3
        assert source.fps == 200


def test_closing_a_camera_that_hangs_leaves_it_behind(hang: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    stuck = FakeCamera(1, hang)
    source = live(stuck)
    assert source.read() is not None
    start_s = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - start_s < IN_TIME_S
    assert "its driver hangs; left behind" in caplog.text
    assert source.read() is None
    hang.set()
    assert stuck.is_closed.wait(IN_TIME_S)


def test_closing_ends_all_threads() -> None:
    camera = FakeCamera(FOREVER)
    before = threading.active_count()
    with live(camera) as source:
        assert source.read() is not None
    assert camera.is_closed.is_set()
    wait_until(lambda: threading.active_count() == before)


def test_camera_that_comes_and_goes_is_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    pause = LiveCamera._pause

    def record(self: LiveCamera, delay_s: float) -> bool:
        delays.append(delay_s)
        return pause(self, 0.0)

    monkeypatch.setattr(LiveCamera, "_pause", record)
    patience = Patience(first_delay_s=0.5, most_delay_s=30)
    endless = itertools.chain([FakeCamera(1)], (FakeCamera(1) for _ in itertools.count()))
    with LiveCamera(lambda: next(endless), name="camera 0", patience=patience):
        wait_until(lambda: len(delays) >= 10)
    for delay, middle in zip(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30], strict=False):
        assert 0.75 * middle <= delay <= 1.25 * middle


def test_nothing_is_said_where_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), live(FakeCamera(FOREVER)) as source:
        read_until(source, lambda frame: frame.index > 20)
        assert source.take_events() == []
    assert caplog.text == ""


class Waiting(FakeCamera):
    """Waits for its trigger, as a camera does that has one."""

    def __init__(self) -> None:
        super().__init__(FOREVER)
        self.triggered = threading.Event()

    def trigger(self) -> None:
        self.triggered.set()

    def read(self) -> Frame | None:
        if not self.triggered.wait(0.05):
            raise SourceTimeout("no trigger came")
        self.triggered.clear()
        return super().read()


def test_camera_that_waits_for_its_trigger_is_not_lost() -> None:
    with LiveCamera(Opener(Waiting()), name="camera 0", patience=QUICK, queue=4) as source:
        time.sleep(2 * QUICK.hang_s)
        assert source.is_connected
        source.trigger()
        frame = source.read()
        assert frame is not None and frame.index == 0
        assert (source.take_events(), source.skipped, source.reconnects) == ([], 0, 0)


def test_lost_camera_cannot_be_triggered() -> None:
    with live(FakeCamera(1, SourceError("unplugged")), SourceError("still unplugged")) as source:
        wait_for_event(source, "camera-lost")
        assert not source.is_connected
        with pytest.raises(SourceError, match="the camera is lost and cannot be triggered"):
            source.trigger()
