"""Parts of a running line: triggers, queues, deadlines and hangs, with the line's own threads."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from runtime.backends.base import BatchAnswer
from runtime.line import Line
from runtime.line_control import Control
from runtime.parts import PartRule
from runtime.signals import StopSignals
from runtime.sources import Frame, FrameSource
from runtime.sources.live import LiveSource, TriggeredSource
from runtime.summary import RunRecorder
from runtime.voting import VotingRule
from stlm_edge.errors import ControlError, SourceError
from stlm_edge.imaging import Input

from .conftest import INPUT_SIZE
from .test_line import Everything, FirstPixel, Script, judge_of, run, verdicts

SOON_S = 5.0


class Camera(LiveSource):
    """Gives the frames that the test gives it."""

    def __init__(self, *, queue: int | None, timeout_s: float = 0.05) -> None:
        super().__init__(name="camera", timeout_s=timeout_s, queue=queue)
        self.count = 0

    def give(self, value: int) -> None:
        image = np.full((*INPUT_SIZE, 3), value, np.uint8)
        with self._lock:
            self._put(Frame(image, self.count, time.monotonic(), "camera"))
            self.count += 1

    def damage(self) -> None:
        with self._lock:
            self._damage()

    def lose(self) -> None:
        with self._lock:
            self._interrupt("the cable is out")

    def end(self) -> None:
        with self._lock:
            self._end(None)


class Gated(FirstPixel):
    """A network that hangs while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        finish = super()._start(batch)

        def wait() -> BatchAnswer:
            assert self.gate.wait(SOON_S)
            return finish()

        return wait


class Running:
    """A line on a thread of its own."""

    def __init__(self, source: FrameSource, rule: PartRule, *, votes: VotingRule, backend: FirstPixel) -> None:
        self.kept, self.recorder = Everything(), RunRecorder()
        self.control = Control(judge_of(backend, rule=rule, votes=votes), source=source)
        self._source = source
        self._line = Line(source, self.control, outputs=self.kept, recorder=self.recorder)

    def run(self) -> None:
        self._line.run(NoSignals())

    def wait_for(self, parts: int) -> list[str]:
        """The verdicts, once there are so many."""
        wait_until(lambda: len(self.kept.parts) >= parts)
        return verdicts(self.kept)

    @property
    def events(self) -> list[str]:
        return [event.kind for event in self.kept.events]


class NoSignals(StopSignals):
    """Of a line that is not on the main thread."""


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.001)


@contextmanager
def running(
    source: FrameSource, rule: PartRule, *, votes: VotingRule | None = None, backend: FirstPixel | None = None
) -> Iterator[Running]:
    line = Running(source, rule, votes=votes or VotingRule(), backend=backend or FirstPixel())
    thread = threading.Thread(target=line.run)
    thread.start()
    wait_until(lambda: line.control.parts._is_running)
    try:
        yield line
    finally:
        if isinstance(source, Camera):
            source.end()
        else:
            source.close()
        thread.join(SOON_S)
        line.control.close()
        assert not thread.is_alive()


def test_frames_of_a_recording_make_parts_of_so_many() -> None:
    kept, summary = run(Script([10, 20, 10, 250, 10, 10, 30]), parts=PartRule(frames=3))
    assert verdicts(kept) == ["good", "reject", "missed"]
    assert [(part.frames, part.worst.frame.index) for part in kept.parts] == [(3, 1), (3, 3), (1, 6)]
    assert [inspection.part for inspection in kept.inspections] == [0, 0, 0, 1, 1, 1, 2]
    assert summary.part_results == {"good": 1, "reject": 1, "missed": 1}


def test_without_anything_that_tells_parts_there_are_none() -> None:
    kept, summary = run(Script([10, 250]))
    assert (kept.parts, summary.part_results, summary.parts) == ([], {}, 1)


def test_each_frame_of_a_queue_is_judged_in_order() -> None:
    backend = Gated()
    with running(camera := Camera(queue=8), PartRule("hardware"), backend=backend) as line:
        backend.gate.clear()
        for value in (10, 250, 20, 30):
            camera.give(value)
        backend.gate.set()
        assert line.wait_for(4) == ["good", "reject", "good", "good"]
    assert [inspection.frame.index for inspection in line.kept.inspections] == [0, 1, 2, 3]


def test_overrun_is_an_event_and_a_missed_part_in_its_place(caplog: pytest.LogCaptureFixture) -> None:
    backend = Gated()
    with running(camera := Camera(queue=2), PartRule("hardware"), backend=backend) as line:
        backend.gate.clear()
        camera.give(10)
        wait_until(lambda: camera.waiting == 0)  # the network has it
        for _ in range(4):
            camera.give(10)
        assert line.events == ["overrun", "overrun"]
        assert caplog.text.count("was lost since 2 frames waited") == 1  # in the log seldom, in the outputs each time
        backend.gate.set()
        assert line.wait_for(5) == ["good", "good", "good", "missed", "missed"]
        camera.give(10)
        assert line.wait_for(6)[-1] == "good"
    assert camera.dropped == 2


def test_part_that_was_named_while_the_queue_is_full_is_the_one_whose_frame_is_lost() -> None:
    backend = Gated()
    with running(camera := Camera(queue=1), PartRule("hardware"), backend=backend) as line:
        backend.gate.clear()
        camera.give(10)
        wait_until(lambda: camera.waiting == 0)  # the network has it
        camera.give(10)
        assert not line.control.status().ready
        assert line.control.trigger("A") == 2
        camera.give(10)
        backend.gate.set()
        assert line.wait_for(3) == ["good", "good", "missed"]
        assert line.kept.parts[2].part_id == "A"
        wait_until(lambda: line.control.status().ready)


def test_deadline_fires_on_time_while_the_network_hangs_and_the_late_verdict_changes_nothing() -> None:
    backend = Gated()
    with running(camera := Camera(queue=8), PartRule("hardware", deadline_s=0.1), backend=backend) as line:
        backend.gate.clear()
        camera.give(10)
        assert line.wait_for(1) == ["missed"]
        assert 100 <= line.kept.parts[0].latency_ms < 200
        backend.gate.set()
        wait_until(lambda: line.events == ["late"])
        assert len(line.kept.inspections) == 1
        camera.give(10)
        assert line.wait_for(2) == ["missed", "good"]


def test_gap_ends_a_part_while_nothing_comes() -> None:
    with running(camera := Camera(queue=None), PartRule(gap_s=0.1)) as line:
        camera.give(10)
        wait_until(lambda: len(line.kept.inspections) == 1)
        camera.give(20)
        assert line.wait_for(1) == ["good"]
        assert line.kept.parts[0].frames == 2
        camera.give(250)
        assert line.wait_for(2) == ["good", "reject"]


def test_damaged_frame_and_lost_camera_are_faults_of_their_part() -> None:
    with running(camera := Camera(queue=8), PartRule("hardware", frames=2)) as line:
        camera.give(10)
        camera.damage()
        assert line.wait_for(1) == ["fault"]
        camera.give(10)
        camera.lose()
        assert line.wait_for(2) == ["fault", "fault"]


def test_trigger_by_command_has_one_frame_captured_for_each_part() -> None:
    source = TriggeredSource(Script([10, 250, 20]), name="script", queue=8)
    with running(source, PartRule("software")) as line:
        for name in ("A", "B", None):
            wait_until(lambda: line.control.status().ready)
            line.control.trigger(name)
        assert line.wait_for(3) == ["good", "reject", "good"]
    assert [part.part_id for part in line.kept.parts] == ["A", "B", None]


def test_part_of_several_frames_has_each_of_them_triggered() -> None:
    source = TriggeredSource(Script([10, 250, 20, 10]), name="script", queue=8)
    with running(source, PartRule("software", frames=2)) as line:
        line.control.trigger()
        assert line.wait_for(1) == ["reject"]
        assert line.kept.parts[0].frames == 2


class Deaf(Camera):
    """Takes the trigger and delivers nothing by itself."""

    def trigger(self) -> None:
        pass


def test_trigger_before_the_camera_has_delivered_is_a_missed_part() -> None:
    with running(camera := Deaf(queue=8), PartRule("software")) as line:
        line.control.trigger("A")
        assert not line.control.status().ready
        with pytest.raises(ControlError, match="part 1 is missed, the camera has not delivered"):
            line.control.trigger("B")
        camera.give(10)
        assert line.wait_for(2) == ["good", "missed"]


def test_camera_that_cannot_be_triggered_is_a_fault_and_an_event() -> None:
    class Refuses(Camera):
        def trigger(self) -> None:
            raise SourceError("the cable is out")

    with running(Refuses(queue=8), PartRule("software")) as line:
        line.control.trigger()
        assert line.wait_for(1) == ["fault"]
        assert line.events == ["trigger-failed"]


def test_camera_that_runs_free_is_not_triggered_from_outside() -> None:
    with (
        running(Camera(queue=None), PartRule(gap_s=0.1)) as line,
        pytest.raises(ControlError, match="its camera runs free"),
    ):
        line.control.trigger()
    with pytest.raises(ControlError, match="this line has no parts"):
        Control(judge_of(FirstPixel()), source=Script([])).trigger()


def test_every_part_has_its_result_at_the_end() -> None:
    backend = Gated()
    with running(camera := Camera(queue=8), PartRule("hardware"), backend=backend) as line:
        backend.gate.clear()
        for _ in range(3):
            camera.give(10)
        line.control.close()
        backend.gate.set()
    assert verdicts(line.kept) == ["missed"] * 3


class Hiccups(FirstPixel):
    """A network that takes its time, and now and then very long."""

    def __init__(self, *, seed: int, longest_s: float) -> None:
        super().__init__()
        self._chance, self._longest_s = random.Random(seed), longest_s

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        roll = self._chance.random()
        self.delay_s = self._longest_s if roll < 0.003 else 0.003 if roll < 0.05 else 0.0
        return super()._start(batch)


@pytest.mark.heavy
@pytest.mark.parametrize("deadline_s", [None, 0.02])
def test_ten_thousand_parts_have_ten_thousand_results_whatever_happens(deadline_s: float | None) -> None:
    """Frames come in bursts, overrun the queue, are damaged and late; none is without its own result."""
    parts, chance = 10_000, random.Random(0)
    camera, came = Camera(queue=4), []
    with running(camera, PartRule("hardware", deadline_s=deadline_s), backend=Hiccups(seed=1, longest_s=0.04)) as line:
        while len(came) < parts:
            if chance.random() < 0.02:
                camera.damage()
                came.append(None)
            else:
                value = chance.choice([10, 20, 30, 250])
                came.append((camera.count, value))
                camera.give(value)
            if chance.random() < 0.6:
                time.sleep(chance.choice([0.0, 0.0002, 0.001]))
        results = line.wait_for(parts)
    assert len(results) == parts == len(line.kept.parts)
    assert sum(line.recorder.summary(camera, output_drops={}, output_failures={}).part_results.values()) == parts
    assert Counter(results).keys() == {"good", "reject", "missed", "fault"}
    assert results.count("fault") == came.count(None)
    assert camera.dropped == line.events.count("overrun")
    for part, known in zip(line.kept.parts, came, strict=True):
        if known is None:
            assert part.verdict == "fault"
        elif part.verdict in ("good", "reject"):  # by its own frame, and rightly so
            assert (part.worst.frame.index, part.verdict == "reject") == (known[0], known[1] == 250)
            assert deadline_s is None or part.latency_ms < 1e3 * deadline_s
        else:
            assert part.verdict == "missed"
    late = line.events.count("late")
    assert results.count("missed") == line.events.count("overrun") + late
    assert (late > 0) == (deadline_s is not None)


class Moody(Camera):
    """Answers a trigger soon, late, by a damaged frame, or not at all."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(queue=4)
        self._chance = random.Random(seed)
        self._asked = threading.Semaphore(0)
        self._ends = False
        self.values: list[int] = []
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def trigger(self) -> None:
        if self._chance.random() < 0.02:
            raise SourceError("the cable is out")
        self._asked.release()

    def end(self) -> None:
        self._ends = True
        self._asked.release()
        self._thread.join()
        super().end()

    def _answer(self) -> None:
        while self._asked.acquire() and not self._ends:
            roll = self._chance.random()
            time.sleep(0.02 if roll < 0.05 else 0.0005)
            if roll > 0.98:
                continue
            if roll > 0.95:
                self.damage()
            else:
                self.values.append(self._chance.choice([10, 20, 250]))
                self.give(self.values[-1])


@pytest.mark.heavy
def test_impatient_triggers_have_one_result_each_and_none_by_another_s_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.parts.FRAME_WITHIN_S", 0.05)
    chance, named, refused = random.Random(0), [], []
    camera = Moody(seed=1)
    with running(camera, PartRule("software", deadline_s=0.015), backend=Hiccups(seed=2, longest_s=0.03)) as line:
        while len(named) < 1500:
            if not line.control.status().ready and chance.random() < 0.9:
                time.sleep(0.0005)
                continue
            name = f"A-{len(named)}"
            named.append(name)
            try:
                assert line.control.trigger(name) == len(named) - 1
            except ControlError:
                refused.append(name)
        results = line.wait_for(len(named))
    assert [part.part_id for part in line.kept.parts] == named
    assert set(results) == {"good", "reject", "missed", "fault"}
    assert all(part.verdict == "missed" for part in line.kept.parts if part.part_id in refused)
    seen = [part.worst.frame.index for part in line.kept.parts if part.verdict in ("good", "reject")]
    assert seen == sorted(set(seen))
    for part in line.kept.parts:
        if part.verdict in ("good", "reject"):
            assert part.begun_s <= part.worst.frame.timestamp_s <= part.decided_s <= part.begun_s + 0.015
            assert (part.verdict == "reject") == (camera.values[part.worst.frame.index] == 250)
