"""Parts of a camera line that cost nothing, so that what is left is the loop's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends.base import Backend, BatchAnswer
from runtime.detector import Detector
from runtime.sources.base import Frame, FrameSource
from stlm_edge.imaging import Image, Input
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.spec import ModelSpec, Size, Threshold

if TYPE_CHECKING:
    from runtime.sinks import FrameSink
    from runtime.summary import RunRecorder

PICTURES = 4
"""Different ones: a camera that repeats itself is taken for frozen."""

_ANOMALOUS = 16
"""One frame in so many is called anomalous."""


class TimelessBackend(Backend):
    """Answers at once."""

    name = "timeless"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(Path("timeless"), spec=spec)
        self._good = np.zeros((1, *spec.map_size), np.float32)
        self._bad = self._good.copy()
        self._bad[0, :2, :2] = 1
        self._count = 0

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        self._count += 1
        is_bad = self._count % _ANOMALOUS == 0
        maps = np.repeat(self._bad if is_bad else self._good, len(batch), axis=0)
        answer = BatchAnswer(maps, np.full(len(batch), is_bad, np.float32), infer_ms=0.0)
        return lambda: answer

    def _release(self) -> None:
        pass


class FreeSource(FrameSource):
    """A camera that has always just delivered the next of a few pictures.

    Attributes:
        taken_s: when each frame was taken, on the clock of `time.perf_counter`, unless `on_frame` is given.
    """

    is_live = True

    def __init__(
        self, pictures: Sequence[Image], *, frames: int, on_frame: Callable[[int], None] | None = None
    ) -> None:
        """
        Args:
            on_frame: is told the number of each frame before that is delivered.
        """
        self.taken_s: list[float] = []
        self._pictures = pictures
        self._frames = frames
        self._next = 0
        self._on_frame = on_frame or (lambda _: self.taken_s.append(time.perf_counter()))

    def read(self) -> Frame | None:
        if self._next == self._frames:
            return None
        index, self._next = self._next, self._next + 1
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
    return Detector(
        TimelessBackend(spec), sidecar=Sidecar(spec=spec, engine=record), threshold=spec.require_threshold()
    )


def run_line(source: FrameSource, detector: Detector, *, sinks: Mapping[str, FrameSink] | None = None) -> RunRecorder:
    """Run the camera program's own loop, with its checks of camera and drift, until the source ends."""
    from runtime.drift_monitor import open_drift_monitor
    from runtime.faults import FaultDetector
    from runtime.line import Line
    from runtime.signals import StopSignals
    from runtime.sinks import Outputs
    from runtime.summary import RunRecorder
    from runtime.voting import PartVote, VotingRule

    recorder = RunRecorder()
    with (
        StopSignals() as stop,
        # Nothing is dropped: every frame shall leave its trace in the outputs.
        Outputs(sinks or {}, drops=False, on_publish=partial(recorder.add_stage, "publish")) as outputs,
    ):
        line = Line(
            source,
            detector,
            outputs=outputs,
            recorder=recorder,
            vote=PartVote(VotingRule(), threshold=detector.threshold.value),
            faults=FaultDetector(),
            drift=open_drift_monitor(detector.spec, threshold=detector.threshold.value),
        )
        line.run(stop)
    return recorder
