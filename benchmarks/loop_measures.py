"""What `benchmarks.loop` measures, one function each, by parts of a camera line that cost nothing of their own.

What measures memory or a start is called in a process of its own, so nothing is imported that a camera line does not.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from runtime.backends import BackendChoice, open_engine
from runtime.backends.base import Backend, BatchAnswer
from runtime.detector import Detector
from runtime.drift_monitor import open_drift_monitor
from runtime.engines import Engines
from runtime.faults import FaultDetector
from runtime.judge import Judge
from runtime.line import Line
from runtime.line_control import Control
from runtime.options import leave_cores
from runtime.parts import PartRule
from runtime.signals import StopRequest, StopSignals
from runtime.sinks import FrameSink, Outputs, SinkContext, open_sink
from runtime.sources.base import Frame, FrameSource
from runtime.summary import RunRecorder
from runtime.voting import VotingRule
from runtime.watchdog import Watchdog
from stlm_edge.cli import give_up
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Image, Input, to_input, write_image
from stlm_edge.measure import Schedule, Subject, Work, measure, program, resident_mb
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import ModelSpec, Size, Threshold

SETTLING = 30
"""Frames at the beginning of a run that do not count."""

_POINTS = 20
"""How often the resident set is looked at."""

PICTURES = 4
"""Different ones: a camera that repeats itself is taken for frozen."""

CAMERAS = 4
"""That share an engine, where that is measured."""

_ANOMALOUS = 16
"""One frame in so many is called anomalous."""


def host_times_ms(*, frame_size: Size, input_size: Size, frames: int) -> list[float]:
    """From one frame to the next, with a network that takes no time: what the host needs for a frame, all in all."""
    with timeless_detector(input_size) as detector:
        taken_s: list[float] = []
        count, take = frames + SETTLING + 1, lambda _: taken_s.append(time.perf_counter())
        run_line(FreeSource(pictures_of(frame_size), frames=count, on_frame=take), detector)
    return [1e3 * float(step) for step in np.diff(taken_s[SETTLING:])]


def throughputs(
    engine: Path, *, backend: BackendChoice, frame_size: Size, frames: int, turns: int
) -> tuple[str, list[tuple[float, float, float]]]:
    """Name of the backend, and frames per second turn by turn: of it alone, on prepared pictures, of the loop of one
    camera, and of `CAMERAS` that share the engine, all together."""
    opener = partial(open_rate, engine, backend=backend, frame_size=frame_size, frames=frames)
    subjects = [Subject(f"cameras {count}", partial(opener, cameras=count)) for count in (0, 1, CAMERAS)]
    found = measure(subjects, Schedule(turns=turns, runs=1, settle=0, loads_apart=False))
    rates = [[1e3 * frames / ms for ms in one.pooled()] for one in found]
    return str(found[0].facts["library"]), list(zip(*rates, strict=True))


@contextmanager
def open_rate(engine: Path, *, backend: BackendChoice, frame_size: Size, frames: int, cameras: int) -> Iterator[Work]:
    """An engine that works on so many frames in a run, by itself or for the loops of cameras."""
    pictures = pictures_of(Sidecar.read(engine).spec.frame_size or frame_size)
    with ExitStack() as opened:
        if cameras <= 1:
            alone, sidecar = open_engine(engine, backend=backend)
            backends = [alone]
        else:
            watchdog = opened.enter_context(Watchdog(on_hang=give_up))
            engines = Engines(watchdog=watchdog, cameras=cameras)
            leases = [engines.open(engine, backend=backend) for _ in range(cameras)]
            backends, sidecar = [lease for lease, _ in leases], leases[0][1]
        threshold = sidecar.spec.require_threshold()
        detectors = [opened.enter_context(Detector(one, sidecar=sidecar, threshold=threshold)) for one in backends]
        leave_cores(detectors[0])
        inputs = [to_input(picture, spec=sidecar.spec) for picture in pictures]

        def infer(_: int) -> None:
            for index in range(frames):
                backends[0].infer(inputs[index % len(inputs)])

        def go_round(_: int) -> None:
            stop = StopRequest()
            shares = [frames // cameras + (place < frames % cameras) for place in range(cameras)]
            runs = [partial(run_line, FreeSource(pictures, frames=share), stop=stop) for share in shares]
            with ThreadPoolExecutor(cameras) as threads:
                lines = [threads.submit(run, each) for run, each in zip(runs, detectors, strict=True)]
                for line in lines:
                    line.result()

        yield Work.timed(go_round if cameras else infer, {"library": backends[0].name})


def memory_of_line_mb(*, size: Size, frames: int) -> list[float]:
    """The resident set at even distances over a run, from when it has settled, that writes and rotates an event log."""
    # The queue before the log must be full, and the heap must have found its size.
    settled, seen = max(2000, frames // 20), []
    marks = {settled + round(point * frames / _POINTS) for point in range(_POINTS + 1)}

    def look(index: int) -> None:
        if index in marks:
            seen.append(resident_mb())

    with tempfile.TemporaryDirectory() as folder, timeless_detector(size) as detector:
        uri = f"{folder}/events.jsonl?rotate=1MB&keep=3"
        sink = open_sink(uri, context=SinkContext(engine_sha256="0" * 64))
        source = FreeSource(pictures_of(size), frames=settled + frames + 1, on_frame=look)
        run_line(source, detector, sinks={uri: sink})
    return seen


def memory_of_engine_mb(engine: Path, *, backend: str, frame_size: Size) -> dict[str, float]:
    """The resident set before an engine is opened, its library imported; after; and after some frames in the loop."""
    importlib.import_module(f"runtime.backends.{backend}")  # each has the name of its module
    before = resident_mb()
    with Detector.open(engine, backend=cast(BackendChoice, backend)) as detector:
        opened = resident_mb()
        run_line(FreeSource(pictures_of(detector.spec.frame_size or frame_size), frames=SETTLING), detector)
        return {"before_mb": before, "opened_mb": opened, "running_mb": resident_mb()}


def opening_s(engine: Path, *, backend: str) -> float:
    """How long it takes to open an engine, its library imported and started."""
    with Detector.open(engine, backend=cast(BackendChoice, backend)):
        pass  # the first time starts the library too, which is not the engine's loading
    start_s = time.perf_counter()
    with Detector.open(engine, backend=cast(BackendChoice, backend)):
        return time.perf_counter() - start_s


def first_verdict_s(engine: Path, *, backend: str, frame_size: Size) -> tuple[float, float]:
    """From the command `stlm camera` on one picture to its verdict, and the network's part of that.

    Raises `EngineError` if that program fails.
    """
    size = Sidecar.read(engine).spec.frame_size or frame_size
    with tempfile.TemporaryDirectory() as folder:
        picture, events = Path(folder) / "part.png", Path(folder) / "events.jsonl"
        write_image(picture, pictures_of(size)[0])
        command = [*program("runtime.camera"), "--engine", str(engine), "--backend", backend]
        command += ["--source", str(picture), "--output", str(events)]
        start_s = time.time()
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise EngineError(f"the camera program ended with exit code {done.returncode} ({said}); run it by hand")
        event = json.loads(events.read_text())
    captured_s = datetime.fromisoformat(event["time"]).timestamp()
    latency_ms = event["latency_ms"]
    return captured_s + latency_ms["total"] / 1e3 - start_s, latency_ms["infer"] / 1e3


class TimelessBackend(Backend):
    """Answers at once."""

    name = "timeless"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(Path("timeless"), spec=spec)
        maps = np.zeros((2, 1, *spec.map_size), np.float32)
        maps[1, 0, :2, :2] = 1
        self._good, self._bad = (
            BatchAnswer(one, np.array([score], np.float32), infer_ms=0.0) for score, one in enumerate(maps)
        )
        self._count = 0

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:  # noqa: ARG002
        self._count += 1
        answer = self._good if self._count % _ANOMALOUS else self._bad
        return lambda: answer

    def _release(self) -> None:
        pass


class FreeSource(FrameSource):
    """A camera that has always just delivered the next of a few pictures."""

    is_live = True

    def __init__(
        self, pictures: Sequence[Image], *, frames: int, on_frame: Callable[[int], None] = lambda _: None
    ) -> None:
        """`on_frame` is told the number of each frame before that is delivered."""
        self._pictures, self._indices, self._on_frame = pictures, iter(range(frames)), on_frame

    def read(self) -> Frame | None:
        if (index := next(self._indices, None)) is None:
            return None
        self._on_frame(index)
        return Frame(self._pictures[index % len(self._pictures)], index, time.monotonic(), "memory", "good")

    def poll(self) -> Frame | None:
        return self.read()


def pictures_of(size: Size) -> list[Image]:
    """Pictures of the synthetic part."""
    return [render_part(np.random.default_rng(seed), size=size, defect=None).image for seed in range(PICTURES)]


def timeless_detector(size: Size) -> Detector:
    """A detector for an input of `size` whose network takes no time; the caller closes it."""
    spec = ModelSpec(
        category="none",
        architecture="none",
        input_size=size,
        map_size=(size[0] // 16, size[1] // 16),
        weights_sha256="0" * 64,
        threshold=Threshold(value=0.5, method="quantile", images=100, false_alarm_rate=0.01),
        normal_score_range=(0.0, 0.4),
    )
    record = EngineRecord(product="onnx", version="0", device="any", precision="fp32", engine_sha256="0" * 64)
    sidecar = Sidecar(spec=spec, engine=record)
    return Detector(TimelessBackend(spec), sidecar=sidecar, threshold=spec.require_threshold())


def run_line(
    source: FrameSource,
    detector: Detector,
    *,
    sinks: Mapping[str, FrameSink] | Callable[[Control], Mapping[str, FrameSink]] | None = None,
    rule: PartRule | None = None,
    stop: StopRequest | None = None,
) -> RunRecorder:
    """Run the camera program's own loop, with its checks of camera and drift, until the source ends.

    Args:
        sinks: by name, or what opens them for the line.
        rule: of the parts; None for frames alone.
        stop: of a line that is not on the main thread, where signals are heard.
    """
    recorder = RunRecorder()
    drift = open_drift_monitor(detector.spec, threshold=detector.threshold.value)
    judge = Judge(rule=rule or PartRule(), votes=VotingRule(), detector=detector, drift=drift)
    control = Control(judge, source=source)
    opened = sinks(control) if callable(sinks) else sinks or {}
    with (
        nullcontext(stop) if stop is not None else StopSignals() as heard,
        # Nothing is dropped: every frame shall leave its trace in the outputs.
        Outputs(opened, drops=False, on_publish=partial(recorder.add_stage, "publish")) as outputs,
        control,
    ):
        Line(source, control, outputs=outputs, recorder=recorder, faults=FaultDetector()).run(heard)
    return recorder
