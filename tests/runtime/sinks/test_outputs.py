from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from runtime.event import Event
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.sinks import FrameSink, Outputs
from stlm_edge.errors import EngineError, OutputError

from .conftest import inspection, never_drawn, part, sink_for

LOST = Event("camera-lost", "camera 0 is gone", 0.0)


class Recording(FrameSink):
    """Remembers what it is given; waits with each frame until `gate` is set."""

    def __init__(self, *, gate: threading.Event | None = None, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.frames: list[int] = []
        self.seen: list[Inspection] = []
        self.events: list[Event] = []
        self.parts: list[Part] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.stop = False
        self._gate = gate
        self._fails = fails

    @property
    def wants_stop(self) -> bool:
        return self.stop

    def write(self, inspection: Inspection) -> None:
        self.threads.add(threading.current_thread().name)
        if self._gate is not None:
            self._gate.wait()
        if self._fails(inspection.frame.index):
            raise OutputError(f"frame {inspection.frame.index} does not fit")
        self.frames.append(inspection.frame.index)
        self.seen.append(inspection)

    def write_part(self, part: Part) -> None:
        self.threads.add(threading.current_thread().name)
        if self._gate is not None:
            self._gate.wait()
        self.parts.append(part)

    def write_event(self, event: Event) -> None:
        self.threads.add(threading.current_thread().name)
        self.events.append(event)

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed += 1


class Blind(Recording):
    takes_pictures: ClassVar[bool] = False


class Hanging(Recording):
    closes_within_s: ClassVar[float] = 0.2


def outputs(*, drops: bool = True, **sinks: FrameSink) -> Outputs:
    return Outputs(sinks, drops=drops, on_publish=lambda _: None)


def eventually(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_slow_output_drops_its_own_frames(caplog: pytest.LogCaptureFixture) -> None:
    gate, quick, blind = threading.Event(), Recording(), Blind()
    slow = Recording(gate=gate)
    with outputs(slow=slow, quick=quick, blind=blind) as running:
        for index in range(500):
            running.write(inspection(index))
            eventually(lambda index=index: len(quick.frames) == index + 1)
        gate.set()
    assert quick.frames == blind.frames == list(range(500))
    assert slow.frames == [0, 1, 2, 3]
    assert running.drops == {"slow": 496, "quick": 0, "blind": 0}
    # Said at the first one, and not 496 times.
    assert [record.getMessage() for record in caplog.records] == [
        "slow is too slow for the line: 1 frame not written there"
    ]


def test_slow_output_of_a_recorded_source_gets_every_frame() -> None:
    class Slow(Recording):
        def write(self, inspection: Inspection) -> None:
            time.sleep(0.002)
            super().write(inspection)

    slow = Slow()
    with outputs(drops=False, slow=slow) as running:
        for index in range(100):
            running.write(inspection(index))
    assert slow.frames == list(range(100))
    assert running.drops == {"slow": 0}


def test_everything_is_called_on_the_output_s_own_thread() -> None:
    first, second = Recording(), Recording()
    with outputs(first=first, second=second) as running:
        running.write(inspection())
        running.write_event(LOST)
    assert (first.threads, second.threads) == ({"output first"}, {"output second"})
    assert (first.closed, second.closed) == (1, 1)


def test_notices_are_not_dropped_and_keep_their_place() -> None:
    gate = threading.Event()
    slow = Recording(gate=gate)
    with outputs(slow=slow) as running:
        for index in range(200):
            running.write(inspection(index))
            running.write_event(Event("drift", str(index), 0.0))
        gate.set()
    assert [event.text for event in slow.events] == [str(index) for index in range(200)]


def test_result_of_a_part_comes_after_its_frames_and_waits_for_nobody() -> None:
    gate = threading.Event()
    slow = Recording(gate=gate)
    with Outputs({"slow": slow}, drops=True, on_publish=lambda _: None) as running:
        for number in range(20):
            running.write(inspection(number))
            running.write_part(part(number, worst=inspection(number)))
        gate.set()
    assert [part.number for part in slow.parts] == list(range(20))  # though frames were dropped
    assert 0 < running.drops["slow"] == 20 - len(slow.frames)
    have_pictures = [part.worst is not None and part.worst.picture is not None for part in slow.parts]
    assert have_pictures[:3] == [True] * 3 and not have_pictures[-1]


def test_results_for_an_output_that_hangs_take_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    slow = Recording(gate=gate)
    with Outputs({"slow": slow}, drops=True, on_publish=lambda _: None) as running:
        for number in range(1500):
            running.write_part(part(number))
        gate.set()
    assert 1000 <= len(slow.parts) <= 1002
    assert running.drops["slow"] == 1500 - len(slow.parts)
    assert "results of parts are not written there" in caplog.text


def test_frames_wait_without_their_pixels_for_an_output_that_looks_at_none() -> None:
    gate = threading.Event()
    blind = Blind(gate=gate)
    with outputs(blind=blind) as running:
        running.write(inspection(0))
        tracemalloc.start()
        for index in range(1, 1500):
            running.write(inspection(index, image=np.zeros((480, 640, 3), np.uint8), picture=never_drawn))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gate.set()
    assert held < 20_000_000
    assert len(blind.frames) == 1001
    assert running.drops == {"blind": 499}
    assert all(seen.picture is None and seen.frame.image.size == 0 for seen in blind.seen)


def test_failed_frame_is_counted_and_the_next_one_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = Recording(fails=lambda index: 3 <= index < 6)
    with outputs(disk=sink) as running:
        for index in range(10):
            running.write(inspection(index))
            eventually(lambda index=index: len(sink.frames) + running.failures["disk"] == index + 1)
    assert sink.frames == [0, 1, 2, 6, 7, 8, 9]
    assert running.failures == {"disk": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "frame 3 does not fit (1 frame failed)",
        "disk is written again and lacks 3 frames",
    ]


def test_output_that_had_nothing_to_write_has_not_recovered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = sink_for(f"{tmp_path / 'kept'}?only=anomalies")
    (tmp_path / "kept").rmdir()
    (tmp_path / "kept").touch()
    with pytest.raises(OutputError, match=r"kept lacks 5 frames and failed up to the end"):  # noqa: SIM117
        with outputs(kept=folder) as running:
            for index in range(5):
                running.write(inspection(index, score=0.9))
                running.write(inspection(index, score=0.2))
                running.write_part(part(index))
                eventually(lambda index=index: running.failures["kept"] == index + 1)
    assert len([record for record in caplog.records if record.name == "runtime.sinks.outputs"]) == 1


def test_output_that_fails_now_and_then_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with outputs(disk=Recording(fails=lambda index: index % 2 == 0)) as running:
        for index in range(100):
            running.write(inspection(index))
            eventually(lambda index=index: running._workers["disk"]._frames_waiting == 0)
    assert [record.getMessage() for record in caplog.records] == [
        "frame 0 does not fit (1 frame failed)",
        "disk is written again and lacks 1 frame",
    ]


def test_output_that_does_not_recover_is_an_error_at_the_end() -> None:
    sink, other = Recording(fails=lambda index: index >= 1), Recording()
    with pytest.raises(OutputError, match=r"disk lacks 2 frames and failed up to the end: frame 2 does not fit"):  # noqa: SIM117
        with outputs(disk=sink, other=other) as running:
            for index in range(3):
                running.write(inspection(index))
                eventually(lambda index=index: len(other.frames) == index + 1)
    assert (sink.closed, other.closed) == (1, 1)
    assert other.frames == [0, 1, 2]


def test_frame_that_a_recording_lacks_somewhere_is_an_error_at_the_end_and_the_others_get_all() -> None:
    sink, other = Recording(fails=lambda index: index == 5), Recording()
    running = outputs(drops=False, disk=sink, other=other)
    for index in range(100):
        running.write(inspection(index))
    with pytest.raises(OutputError, match=r"disk lacks 1 frame that could not be written, expected all"):
        running.close()
    running.close()
    assert sink.frames == [index for index in range(100) if index != 5]
    assert other.frames == list(range(100))
    assert (sink.closed, other.closed) == (1, 1)


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("mistake", [ZeroDivisionError("a\nb"), FileNotFoundError(2, "No such file"), MemoryError()])
def test_whatever_an_output_raises_is_its_own_failure(drops: bool, mistake: Exception) -> None:
    def fails(index: int) -> bool:
        if index >= 5:
            raise mistake
        return False

    sink, other = Recording(fails=fails), Recording()
    running = outputs(drops=drops, disk=sink, other=other)
    for index in range(20):
        running.write(inspection(index))
        eventually(lambda index=index: len(other.frames) == index + 1)
        eventually(lambda index=index: len(sink.frames) + running.failures["disk"] == index + 1)
    with pytest.raises(OutputError) as caught:
        running.close()
    assert f"disk cannot be written ({type(mistake).__name__}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (sink.frames, running.failures) == ([0, 1, 2, 3, 4], {"disk": 15, "other": 0})
    assert (sink.closed, other.closed) == (1, 1)


def test_output_that_raises_while_it_is_closed_is_an_error_and_the_others_are_closed() -> None:
    class Unclosable(Recording):
        def close(self) -> None:
            raise NotADirectoryError(20, "Not a directory")

    other = Recording()
    running = outputs(first=Unclosable(), other=other)
    with pytest.raises(OutputError, match=r"first cannot be written \(NotADirectoryError"):
        running.close()
    assert other.closed == 1


def test_what_was_handed_in_is_written_when_the_loop_fails(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(EngineError, match="the GPU is lost"), outputs(events=sink_for(path)) as running:
        for index in range(500):
            running.write(inspection(index))
        raise EngineError("the GPU is lost")
    assert len(path.read_text().splitlines()) == 500


def test_error_of_the_loop_is_not_hidden_by_one_of_an_output(caplog: pytest.LogCaptureFixture) -> None:
    sink = Recording(fails=lambda _: True)
    with pytest.raises(EngineError, match="the GPU is lost"), outputs(disk=sink) as running:
        running.write(inspection())
        raise EngineError("the GPU is lost")
    assert "disk lacks 1 frame" in caplog.text


def test_output_that_hangs_is_given_up_and_the_others_are_finished() -> None:
    hanging, other = Hanging(gate=threading.Event()), Recording()
    running = outputs(share=hanging, other=other)
    for index in range(3):
        running.write(inspection(index))
    with pytest.raises(OutputError, match=r"share hangs for 0\.2 s and is given up; 2 frames .* are lost"):
        running.close()
    assert other.frames == [0, 1, 2]
    assert other.closed == 1


_HANGS = """
import threading
from tests.runtime.sinks.test_outputs import Hanging, inspection, outputs
with outputs(share=Hanging(gate=threading.Event())) as running:
    running.write(inspection())
"""


@pytest.mark.heavy
def test_output_that_hangs_does_not_keep_the_program_from_ending() -> None:
    command = [sys.executable, "-c", _HANGS]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert "OutputError: share hangs" in ended.stderr


def test_slow_output_that_makes_progress_is_waited_for() -> None:
    class Slow(Recording):
        closes_within_s: ClassVar[float] = 1.0

        def write(self, inspection: Inspection) -> None:
            time.sleep(0.3)
            super().write(inspection)

    slow = Slow()
    with outputs(slow=slow) as running:
        for index in range(4):
            running.write(inspection(index))
    assert len(slow.frames) + running.drops["slow"] == 4
    assert len(slow.frames) >= 3


def test_one_output_may_ask_for_the_end_of_the_run() -> None:
    window = Recording()
    with outputs(window=window, other=Recording()) as running:
        assert not running.wants_stop
        window.stop = True
        assert running.wants_stop


def test_time_of_each_write_is_told() -> None:
    class Slow(Recording):
        def write(self, inspection: Inspection) -> None:
            time.sleep(0.02)

    taken: list[float] = []
    with Outputs({"slow": Slow()}, drops=False, on_publish=taken.append) as running:
        for index in range(3):
            running.write(inspection(index))
    assert len(taken) == 3
    assert min(taken) >= 20
