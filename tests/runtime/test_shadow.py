"""A candidate beside the engine: what is told of it, and that nothing that happens to it is the line's affair."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.anomaly import Anomaly, Latency
from runtime.camera import main
from runtime.closing import Closing
from runtime.event import Event
from runtime.inspection import FrameLatency, Inspection
from runtime.shadow import Shadow
from runtime.sources import Frame
from runtime.watchdog import Watchdog
from stlm_edge import Sidecar, Threshold
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.files import sha256

from .conftest import INPUT_SIZE, MAP_SIZE, SPEC, THRESHOLD, write_engine
from .test_camera import events_of
from .test_part_line import wait_until
from .test_recipes import options

LOW = Threshold(value=0.35, method="quantile", images=20)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with a lower threshold, which also finds the dark scratch."""
    path = tmp_path_factory.mktemp("candidate") / "new.onnx"
    return write_engine(path, spec=dataclasses.replace(SPEC, threshold=LOW))


class Candidate(Closing):
    """A detector that answers when it may; watched as a real one is."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[np.ndarray] = []
        self.fails = False
        self.watchdog: Watchdog | None = None

    def open(self, *, watchdog: Watchdog) -> Candidate:
        self.watchdog = watchdog
        return self

    def inspect(self, image: np.ndarray) -> Anomaly:
        self.asked.append(image)
        assert self.watchdog is not None
        with self.watchdog.watching("the candidate"):
            self.may_answer.wait()
        if self.fails:
            raise EngineError("the GPU is gone")
        return answer(float(image[0, 0, 0]) / 100)

    def close(self) -> None:
        pass


def answer(score: float) -> Anomaly:
    nothing = np.zeros(MAP_SIZE, np.float32)
    return Anomaly(score, score >= THRESHOLD, nothing, INPUT_SIZE, Latency(0, 0, 0, 0, 0), THRESHOLD)


def judged(index: int, *, score: float = 0.2, value: int = 20) -> Inspection:
    frame = Frame(np.full((*INPUT_SIZE, 3), value, np.uint8), index, time.monotonic(), "camera <1>", None, 0.0)
    latency = FrameLatency(0, 0, 0, 0, 0, 0, 0, 0)
    return Inspection(frame, answer(score), None, False, 0, THRESHOLD, latency, None)


@dataclasses.dataclass
class Running:
    shadow: Shadow
    detector: Candidate
    events: list[Event]

    def offer(self, index: int, **said: float) -> None:
        self.shadow.offer(judged(index, **said), recipe=None)  # type: ignore[arg-type]


@pytest.fixture
def running(candidate: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A live line's shadow; parameters are of how many frames it looks at one, and its time for an inference."""
    said = {"every": 1, "limit_s": 60.0} | getattr(request, "param", {})
    config = options(inference_timeout=said["limit_s"])
    shadow = Shadow(f"{candidate}?every={said['every']}", config, recipe=None, may_wait=False)
    detector, events = Candidate(), list[Event]()
    shadow._open = detector.open  # type: ignore[assignment]
    shadow.start(events.append)
    wait_until(lambda: not shadow._is_busy)
    yield Running(shadow, detector, events)
    detector.may_answer.set()
    shadow.close()
    assert shadow._thread is not None
    shadow._thread.join(30)
    assert not shadow._thread.is_alive()


def test_differences_are_told_as_table_and_as_events(
    engine: Path, candidate: Path, mvtec_test_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, events = tmp_path / "summary.json", tmp_path / "events.jsonl"
    source, shadow = ["--engine", str(engine), "--source", str(mvtec_test_folder)], f"{candidate}?every=1"
    assert main([*source, "--shadow", shadow, "--summary", str(summary), "--output", str(events)]) == 0
    found = json.loads(summary.read_text())["shadow"]
    assert found["verdicts"] == {"both_good": 2, "only_engine": 0, "only_shadow": 1, "both_anomalous": 1}
    assert found["good"]["both_good"] == 2 and found["defective"]["only_shadow"] == 1
    assert (found["too_slow"], found["failures"], found["gave_up"]) == (0, 0, None)
    (pair,) = found["differ"]
    assert pair["score"] == pair["shadow_score"] == pytest.approx(100 / 255, abs=0.01)
    assert (pair["threshold"], pair["shadow_threshold"], pair["label"]) == (0.5, 0.35, "scratch")
    (told,) = [event for event in events_of(events) if event.get("event") == "shadow-differs"]
    assert told["frame"] == pair["frame"] and told["shadow_score"] == pair["shadow_score"]
    assert "is good" in str(told["text"]) and "anomalous by new.onnx" in str(told["text"])
    # The verdicts are the engine's alone.
    assert [event["anomalous"] for event in events_of(events) if "anomalous" in event].count(True) == 1
    printed = capsys.readouterr().out
    assert "shadow             new.onnx, every frame: 4 compared\n" in printed
    assert printed.split("labelled defect")[1].split()[:4] == ["0", "0", "1", "1"]


def test_candidate_that_is_not_there_ends_the_start_in_one_line(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--engine", str(engine), "--source", "test://?frames=1&size=64x128", "--shadow", "missing.onnx"]) == 1
    assert "missing.onnx is not a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("evry=2", "there is no option 'evry', did you mean every; give it as ENGINE.every=10"),
        ("every=0", "every is '0', expected a whole number from 1 on"),
    ],
)
def test_wrong_option_is_told_with_the_right_one(candidate: Path, query: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shadow(f"{candidate}?{query}", options(), recipe=None, may_wait=False)


@pytest.mark.parametrize("running", [{"every": 3}], indirect=True)
def test_one_frame_in_n_is_compared(running: Running) -> None:
    running.detector.may_answer.set()
    for number in range(7):
        wait_until(lambda: not running.shadow._is_busy)
        running.offer(number, value=number)
    running.shadow.close()
    assert [int(image[0, 0, 0]) for image in running.detector.asked] == [0, 3, 6]
    assert next(running.shadow.summary.lines()).endswith("new.onnx, one frame in 3: 3 compared")


def test_busy_candidate_leaves_frames_out(running: Running) -> None:
    running.offer(0)
    wait_until(lambda: running.detector.asked)
    running.offer(1)
    running.offer(2)
    assert running.shadow.summary.too_slow == 2
    running.detector.may_answer.set()
    wait_until(lambda: running.shadow.summary.verdicts.both_good == 1)
    running.offer(3, value=80, score=0.9)
    running.shadow.close()
    verdicts = running.shadow.summary.verdicts
    assert (verdicts.both_good, verdicts.both_anomalous, verdicts.count) == (1, 1, 2)
    assert running.events == []


def test_frames_of_another_recipe_are_not_compared(running: Running) -> None:
    running.shadow.offer(judged(0), recipe="other")
    running.shadow.close()
    assert running.detector.asked == []


def test_failing_candidate_is_given_up(running: Running) -> None:
    running.detector.may_answer.set()
    running.detector.fails = True
    for number in range(5):
        wait_until(lambda: not running.shadow._is_busy or running.shadow.summary.gave_up)
        running.offer(number)
    running.shadow.close()
    assert [event.kind for event in running.events] == ["shadow-failed"] * 2
    assert "compared no more, and the line goes on: it failed 3 times" in running.events[1].text
    assert (running.shadow.summary.failures, len(running.detector.asked)) == (3, 3)
    assert any("the GPU is gone" in line for line in running.shadow.summary.lines())


@pytest.mark.parametrize("running", [{"limit_s": 0.05}], indirect=True)
def test_hanging_candidate_is_given_up_and_waited_for_no_more(running: Running) -> None:
    running.offer(0)
    wait_until(lambda: running.events)
    assert "has not ended for 0.05 s" in running.events[0].text
    running.offer(1)
    running.shadow.close()
    assert running.shadow.summary.gave_up is not None and len(running.detector.asked) == 1


def test_candidate_that_cannot_be_opened_leaves_the_line_alone(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(engine.read_bytes()[:200])
    record = dataclasses.replace(Sidecar.read(engine).engine, engine_sha256=sha256(broken))
    Sidecar(spec=SPEC, engine=record).write(broken)
    events = tmp_path / "events.jsonl"
    arguments = ["--engine", str(engine), "--source", "test://?frames=3&size=64x128", "--output", str(events)]
    assert main([*arguments, "--shadow", f"{broken}?every=1"]) == 0
    printed = capsys.readouterr().out
    assert "frames inspected   3" in printed and "shadow ended" in printed
    assert [event["event"] for event in events_of(events) if "event" in event] == ["shadow-failed"]
