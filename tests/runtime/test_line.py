"""The loop between a source and the outputs, with a network whose answers and delays are known."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.backends.base import IN_FLIGHT, Backend, BatchAnswer
from runtime.detector import Detector
from runtime.event import Event
from runtime.inspection import Fault, Inspection
from runtime.judge import Judge
from runtime.line import Line
from runtime.line_control import Control
from runtime.part import Part
from runtime.parts import PartRule
from runtime.signals import StopSignals
from runtime.sources import Frame, FrameSource
from runtime.summary import RunRecorder, RunSummary
from runtime.voting import VotingRule
from stlm_edge import EngineRecord, Sidecar
from stlm_edge.errors import ControlError, EngineError, SourceError, SourceTimeout
from stlm_edge.imaging import Input
from stlm_edge.spec import ModelSpec

from .conftest import INPUT_SIZE, MAP_SIZE, SPEC, THRESHOLD


class FirstPixel(Backend):
    """The score is the first pixel, the map is that everywhere; each batch takes its time on a thread of its own."""

    name = "first-pixel"

    def __init__(self, *, spec: ModelSpec = SPEC, delay_s: float = 0.0) -> None:
        super().__init__(Path("first-pixel.onnx"), spec=spec)
        self.delay_s = delay_s
        self.batches: list[int] = []
        self.most_in_hand = 0
        self.broken = False

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        self.batches.append(len(batch))
        self.most_in_hand = max(self.most_in_hand, self._in_flight + 1)
        due_s = time.perf_counter() + self.delay_s

        def finish() -> BatchAnswer:
            if self.broken:
                raise EngineError("the GPU is gone")
            time.sleep(max(0.0, due_s - time.perf_counter()))
            scores = batch[:, 0, 0, 0].astype(np.float32) / 255
            maps = np.broadcast_to(scores[:, None, None], (len(batch), *MAP_SIZE))
            return BatchAnswer(np.array(maps), scores, infer_ms=1e3 * self.delay_s)

        return finish

    def _release(self) -> None:
        pass


class Script(FrameSource):
    """Frames of one grey value each, as fast as they are asked for; exceptions among them are raised."""

    def __init__(self, steps: Sequence[int | Exception], *, is_live: bool = False, label: str | None = None) -> None:
        self.is_live = is_live
        self._steps = deque(steps)
        self._index = 0
        self._label = label
        self.events: list[Event] = []

    def read(self) -> Frame | None:
        if not self._steps:
            return None
        step = self._steps.popleft()
        if isinstance(step, Exception):
            raise step
        image = np.full((*INPUT_SIZE, 3), step, np.uint8)
        self._index += 1
        return Frame(image, self._index - 1, time.monotonic(), "script", self._label, capture_ms=0.0)

    def poll(self) -> Frame | None:
        return self.read() if self._steps and not isinstance(self._steps[0], Exception) else None

    def take_events(self) -> list[Event]:
        events, self.events = self.events, []
        return events


class Everything:
    """Outputs that keep what they are given."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.inspections: list[Inspection] = []
        self.events: list[Event] = []
        self.parts: list[Part] = []
        self._stop_after = stop_after

    @property
    def wants_stop(self) -> bool:
        return self._stop_after is not None and len(self.inspections) >= self._stop_after

    def write(self, inspection: Inspection) -> None:
        self.inspections.append(inspection)

    def write_part(self, part: Part) -> None:
        self.parts.append(part)

    def write_event(self, event: Event) -> None:
        self.events.append(event)


def verdicts(outputs: Everything) -> list[str]:
    """Of the parts, which must be all there are, in their order."""
    assert [part.number for part in outputs.parts] == list(range(len(outputs.parts)))
    return [part.verdict for part in outputs.parts]


class DarkIsFaulty:
    def check(self, frame: Frame) -> Fault | None:
        return "black" if frame.image[0, 0, 0] == 0 else None


def detector_of(backend: Backend, *, spec: ModelSpec = SPEC) -> Detector:
    record = EngineRecord(product="onnx", version="1", device="any", precision="fp32", engine_sha256="0" * 64)
    return Detector(backend, sidecar=Sidecar(spec, record), threshold=spec.require_threshold())


def judge_of(
    backend: Backend,
    *,
    spec: ModelSpec = SPEC,
    rule: PartRule | None = None,
    votes: VotingRule | None = None,
    recipe: str | None = None,
) -> Judge:
    detector = detector_of(backend, spec=spec)
    return Judge(rule=rule or PartRule(), votes=votes or VotingRule(), recipe=recipe, detector=detector)


def run(
    source: FrameSource,
    backend: Backend | None = None,
    *,
    outputs: Everything | None = None,
    limit: int | None = None,
    faults: bool = False,
    rule: VotingRule | None = None,
    spec: ModelSpec = SPEC,
    parts: PartRule | None = None,
) -> tuple[Everything, RunSummary]:
    kept, recorder, votes = outputs or Everything(), RunRecorder(), rule or VotingRule()
    judge = judge_of(backend or FirstPixel(), spec=spec, rule=parts or PartRule(), votes=votes)
    control = Control(judge, source=source)
    line = Line(source, control, outputs=kept, recorder=recorder, faults=DarkIsFaulty() if faults else None)
    with StopSignals() as stop, control:
        line.run(stop, limit=limit)
    return kept, recorder.summary(source, output_drops={}, output_failures={})


def test_each_frame_gets_its_own_verdict_in_order() -> None:
    values = [10 * number for number in range(25)]
    kept, summary = run(Script(values))
    assert [inspection.frame.index for inspection in kept.inspections] == list(range(25))
    assert [round(255 * inspection.anomaly.score) for inspection in kept.inspections] == values
    assert summary.frames == 25
    assert summary.anomalies == sum(value / 255 >= THRESHOLD for value in values)


def test_next_frame_is_taken_while_the_network_runs() -> None:
    backend = FirstPixel(delay_s=0.01)
    run(Script([1] * 6), backend)
    assert backend.most_in_hand == IN_FLIGHT


def test_frames_that_wait_are_inspected_in_batches() -> None:
    spec = dataclasses.replace(SPEC, max_batch=4)
    backend = FirstPixel(spec=spec)
    kept, _ = run(Script(list(range(10))), backend, spec=spec)
    assert backend.batches == [4, 4, 2]
    assert [round(255 * inspection.anomaly.score) for inspection in kept.inspections] == list(range(10))


def test_live_source_is_never_inspected_in_batches() -> None:
    spec = dataclasses.replace(SPEC, max_batch=4)
    backend = FirstPixel(spec=spec)
    run(Script(list(range(5)), is_live=True), backend, spec=spec)
    assert backend.batches == [1] * 5


class LosesPackets(Script):
    """Its second and fourth frame lack packets."""

    def read(self) -> Frame | None:
        frame = super().read()
        return frame if frame is None or frame.index % 2 == 0 else dataclasses.replace(frame, fault="incomplete")


@pytest.mark.parametrize("faults", [False, True])
def test_frame_that_lacks_packets_is_a_fault_and_no_verdict_whatever_it_shows(faults: bool) -> None:
    backend = FirstPixel()
    kept, summary = run(LosesPackets([250] * 5, is_live=True), backend, faults=faults, rule=VotingRule.parse("3/3"))
    assert [inspection.fault for inspection in kept.inspections] == [None, "incomplete", None, "incomplete", None]
    assert [inspection.anomaly is None for inspection in kept.inspections] == [False, True, False, True, False]
    assert backend.batches == [1] * 3
    assert summary.faults == {"incomplete": 2}
    assert kept.inspections[-1].alarm and not kept.inspections[-2].alarm, "it has no vote"
    assert kept.events == [], "its source tells of it, now and then"


def test_frames_that_wait_for_a_live_source_are_inspected_in_batches_without_the_faulty_ones() -> None:
    spec = dataclasses.replace(SPEC, max_batch=4)
    backend = FirstPixel(spec=spec)
    source = Script([10, 0, 20, 30, 0, 0, 0, 0, 40], is_live=True)
    source.queue = 9
    kept, summary = run(source, backend, spec=spec, faults=True)
    seen = [None if each.anomaly is None else round(255 * each.anomaly.score) for each in kept.inspections]
    assert seen == [10, None, 20, 30, None, None, None, None, 40]
    assert backend.batches == [3, 1]
    assert (summary.frames, summary.faults) == (9, {"black": 5})


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limit_is_exact(limit: int) -> None:
    kept, _ = run(Script([1] * 9), limit=limit)
    assert len(kept.inspections) == limit


def test_output_that_asks_for_the_end_gets_it_with_what_is_in_hand() -> None:
    source = Script([1] * 50)
    kept, _ = run(source, outputs=Everything(stop_after=3))
    assert 3 <= len(kept.inspections) <= 3 + IN_FLIGHT


def test_silence_of_the_source_is_not_the_end() -> None:
    kept, _ = run(Script([1, SourceTimeout("no frame"), SourceTimeout("no frame"), 2], is_live=True))
    assert len(kept.inspections) == 2


def test_notices_of_the_source_are_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    source = Script([1, 2], is_live=True)
    source.events = [Event("camera-lost", "camera 0 is gone", 0.0)]
    kept, summary = run(source)
    assert [event.kind for event in kept.events] == ["camera-lost"]
    assert summary.events == {"camera-lost": 1}
    assert "camera 0 is gone" in caplog.text


def test_faulty_frames_are_neither_good_nor_anomalous_nor_inspected() -> None:
    backend = FirstPixel()
    kept, summary = run(Script([10, 0, 0, 250], is_live=True), backend, faults=True)
    assert [inspection.fault for inspection in kept.inspections] == [None, "black", "black", None]
    assert [inspection.anomaly is None for inspection in kept.inspections] == [False, True, True, False]
    assert sum(backend.batches) == 2
    assert [event.kind for event in kept.events] == ["camera-fault", "camera-fault-over"]
    assert (summary.frames, summary.anomalies, summary.faults) == (4, 1, {"black": 2})


def test_recorded_frames_are_not_looked_at_for_faults() -> None:
    kept, _ = run(Script([0, 0]), faults=True)
    assert [inspection.fault for inspection in kept.inspections] == [None, None]


def test_alarm_is_the_vote_of_the_last_frames() -> None:
    kept, summary = run(Script([250, 0, 250, 250, 0, 0]), rule=VotingRule(needed=2, frames=3))
    assert [inspection.anomaly.is_anomalous for inspection in kept.inspections] == [
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert [inspection.alarm for inspection in kept.inspections] == [False, False, True, True, True, False]
    assert (summary.anomalies, summary.alarms) == (3, 1)


def test_stages_add_up_to_the_time_from_capture_to_verdict() -> None:
    kept, summary = run(Script([1] * 5), FirstPixel(delay_s=0.005))
    for inspection in kept.inspections:
        latency = inspection.latency
        stages = (
            latency.capture_ms + latency.wait_ms + latency.prepare_ms + latency.upload_ms + latency.infer_ms
            + latency.download_ms + latency.decide_ms
        )  # fmt: skip
        assert stages == pytest.approx(latency.total_ms)
        assert latency.infer_ms == 5
    assert set(summary.latency) == {"capture", "wait", "prepare", "upload", "infer", "download", "decide", "total"}


def test_source_that_fails_ends_the_run_after_the_verdicts_on_what_came_before() -> None:
    kept = Everything()

    class Fails(Script):
        def poll(self) -> Frame | None:
            return self.read()

    with pytest.raises(SourceError, match="damaged"):
        run(Fails([1, 2, 3, SourceError("the video is damaged")]), outputs=kept)
    assert [inspection.frame.index for inspection in kept.inspections] == [0, 1, 2]


def test_network_that_fails_ends_the_run_after_the_verdicts_before_it() -> None:
    backend = FirstPixel()
    kept = Everything()
    source = Script([1] * 10)

    class BreaksAfterThree(Everything):
        def write(self, inspection: Inspection) -> None:
            super().write(inspection)
            backend.broken = len(self.inspections) == 3

    kept = BreaksAfterThree()
    with pytest.raises(EngineError, match="the GPU is gone"):
        run(source, backend, outputs=kept)
    assert len(kept.inspections) == 3


class Newest(FrameSource):
    """A camera of 500 frames a second: `poll` and `read` give the newest exposure, once."""

    is_live = True

    def __init__(self, frames: int) -> None:
        self._start_s = time.monotonic()
        self._last = -1
        self._frames = frames

    def read(self) -> Frame | None:
        while (frame := self.poll()) is None:
            if self._last >= self._frames - 1:
                return None
            time.sleep(0.0005)
        return frame

    def poll(self) -> Frame | None:
        newest = min(int(500 * (time.monotonic() - self._start_s)), self._frames - 1)
        if newest == self._last:
            return None
        self._last = newest
        exposed_s = self._start_s + newest / 500
        return Frame(np.zeros((*INPUT_SIZE, 3), np.uint8), newest, exposed_s, "newest")


def test_frame_of_a_fast_camera_does_not_wait_for_the_whole_of_the_one_before() -> None:
    """Taken right after the frame before it, it would wait almost 30 ms; taken late, a few."""
    kept, _ = run(Newest(750), FirstPixel(delay_s=0.03))
    waits = sorted(inspection.latency.wait_ms for inspection in kept.inspections[35:])
    assert waits[len(waits) // 2] < 22


def test_line_that_has_ended_changes_no_recipe() -> None:
    control = Control(judge_of(FirstPixel()), source=Script([]))
    asked: list[str] = []
    control.on_change = asked.append
    control.change_recipe("disc")
    control.ended()
    with pytest.raises(ControlError, match="this line has ended"):
        control.change_recipe("disc")
    assert asked == ["disc"]
