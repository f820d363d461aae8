"""What a run amounted to: counts, latencies, and right or wrong where the source knows the truth."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.detector import Anomaly
from runtime.sources import Frame, FrameSource
from runtime.timing import LatencyHistogram, Percentiles
from stlm_edge.datasets import GOOD

STAGES = ("prepare", "infer", "decide", "inspect", "capture to decision", "draw and write")


@dataclass(frozen=True)
class Truth:
    """How the verdicts compare with the labels of the frames that had one."""

    defects_found: int
    defects_missed: int
    false_alarms: int
    good_passed: int


@dataclass(frozen=True)
class RunSummary:
    """One run of the camera program.

    Attributes:
        frames: inspected.
        anomalies: frames whose score reached the threshold.
        dropped: frames of a live source that newer ones overtook.
        skipped: pictures that could not be decoded.
        frames_per_second: inspected, over the whole run.
        latency: by stage; `inspect` is prepare, infer and decide together, `capture to decision` adds the waiting
            between the camera and the detector.
        truth: None where no frame had a label.
    """

    frames: int
    anomalies: int
    dropped: int
    skipped: int
    duration_s: float
    frames_per_second: float
    latency: dict[str, Percentiles]
    truth: Truth | None

    def to_json(self) -> str:
        """One JSON object, its keys the attributes' names."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """The same for people."""
        yield f"frames inspected   {self.frames} in {self.duration_s:.1f} s, {self.frames_per_second:.1f} per second"
        yield f"anomalies          {self.anomalies}"
        yield f"frames dropped     {self.dropped}"
        yield f"pictures skipped   {self.skipped}"
        if self.truth is not None:
            defects = self.truth.defects_found + self.truth.defects_missed
            good = self.truth.false_alarms + self.truth.good_passed
            yield f"defects found      {self.truth.defects_found} of {defects}, {self.truth.defects_missed} missed"
            yield f"false alarms       {self.truth.false_alarms} on {good} good"
        if self.frames:
            yield f"{'latency in ms':<19} {'p50':>8} {'p95':>8} {'p99':>8} {'max':>8}"
            for stage, latency in self.latency.items():
                values = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
                yield f"{stage:<19} " + " ".join(f"{value:8.2f}" for value in values)


class RunRecorder:
    """Collects what `RunSummary` reports, in bounded memory; the run starts with it."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._latency = {stage: LatencyHistogram() for stage in STAGES}
        self._verdicts = {(is_defect, found): 0 for is_defect in (False, True) for found in (False, True)}
        self.frames = 0
        self._anomalies = 0

    def add(self, frame: Frame, anomaly: Anomaly, *, decided_s: float, written_s: float) -> None:
        """Count one frame; the times are on the clock of `time.monotonic`."""
        self.frames += 1
        self._anomalies += anomaly.is_anomalous
        if frame.label is not None:
            self._verdicts[frame.label != GOOD, anomaly.is_anomalous] += 1
        latency = anomaly.latency
        waited_ms, output_ms = 1e3 * (decided_s - frame.timestamp_s), 1e3 * (written_s - decided_s)
        stages_ms = (latency.prepare_ms, latency.infer_ms, latency.decide_ms, latency.total_ms, waited_ms, output_ms)
        for stage, stage_ms in zip(STAGES, stages_ms, strict=True):
            self._latency[stage].add(stage_ms)

    def summary(self, source: FrameSource) -> RunSummary:
        """The run so far."""
        duration_s = time.monotonic() - self._start_s
        counted = self._verdicts
        truth = Truth(
            defects_found=counted[True, True],
            defects_missed=counted[True, False],
            false_alarms=counted[False, True],
            good_passed=counted[False, False],
        )
        return RunSummary(
            frames=self.frames,
            anomalies=self._anomalies,
            dropped=source.dropped,
            skipped=source.skipped,
            duration_s=duration_s,
            frames_per_second=self.frames / duration_s if duration_s > 0 else 0.0,
            latency={stage: histogram.percentiles() for stage, histogram in self._latency.items()},
            truth=truth if any(counted.values()) else None,
        )
