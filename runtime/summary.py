"""What a run amounted to: counts, latencies, and right or wrong where the source knows the truth."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from runtime.event import Event
from runtime.inspection import VERDICT_STAGES, Inspection
from runtime.part import VERDICTS, Part
from runtime.shadow import ShadowSummary
from runtime.sources import FrameSource
from runtime.timing import Cumulative, LatencyHistogram, Percentiles
from stlm_edge.datasets import GOOD
from stlm_edge.errors import counted

OUTPUT_STAGES = ("draw", "publish")
"""What comes after the verdict, on the threads of the outputs."""
PART_STAGE = "part"
"""From a part's trigger, or its first frame, to its result."""

SCORE_LIMITS = (*(round(step / 20, 2) for step in range(1, 21)), 1.25, 1.5, 2.0, 4.0)
"""Buckets of scores: most networks score up to 1, none above 4."""


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
        frames: taken, those with a fault among them.
        anomalies: frames whose score reached the threshold.
        alarms: how often the vote of the frames turned to anomalous.
        parts: how many have begun; 1 where nothing tells one from the next.
        faults: kind of fault → frames that had it and were not inspected.
        events: kind of event → how many.
        dropped: frames of a live source that newer ones overtook.
        skipped: pictures that could not be decoded.
        reconnects: how often a lost camera came back.
        output_drops: output → inspected frames that it was too slow for.
        output_failures: output → inspected frames that it could not write.
        frames_per_second: over the whole run.
        latency: by stage, `FrameLatency` and after it drawing, publishing and `part`, from its trigger to its result.
        truth: None where no frame had a label.
        unclear: frames whose score lay between the engine's two thresholds.
        part_results: verdict → parts that have it; empty where nothing tells one part from the next.
        shadow: how the candidate compares that ran beside the engine; None where there was none.
    """

    frames: int
    anomalies: int
    alarms: int
    parts: int
    faults: dict[str, int]
    events: dict[str, int]
    dropped: int
    skipped: int
    reconnects: int
    output_drops: dict[str, int]
    output_failures: dict[str, int]
    duration_s: float
    frames_per_second: float
    latency: dict[str, Percentiles]
    truth: Truth | None
    unclear: int = 0
    part_results: dict[str, int] = field(default_factory=dict)
    shadow: ShadowSummary | None = None

    def to_json(self) -> str:
        """One JSON object, its keys the attributes' names."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """The same for people; what did not happen is left out, except for what a line must not do."""
        yield f"frames inspected   {self.frames} in {self.duration_s:.1f} s, {self.frames_per_second:.1f} per second"
        yield f"anomalies          {self.anomalies}, {counted(self.alarms, 'alarm')}"
        if self.unclear:
            yield f"unclear            {self.unclear}"
        if self.part_results:
            results = ", ".join(f"{self.part_results.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
            yield f"parts              {sum(self.part_results.values())}: {results}"
        yield f"frames dropped     {self.dropped}"
        yield f"pictures skipped   {self.skipped}"
        for kind, count in self.faults.items():
            yield f"camera fault       {counted(count, 'frame')} {kind}"
        if self.reconnects:
            yield f"camera came back   {counted(self.reconnects, 'time')}"
        for output, count in self.output_drops.items():
            yield f"output too slow    {counted(count, 'frame')} not written to {output}"
        for output, count in self.output_failures.items():
            yield f"output failed      {counted(count, 'frame')} not written to {output}"
        if self.truth is not None:
            defects = self.truth.defects_found + self.truth.defects_missed
            good = self.truth.false_alarms + self.truth.good_passed
            yield f"defects found      {self.truth.defects_found} of {defects}, {self.truth.defects_missed} missed"
            yield f"false alarms       {self.truth.false_alarms} on {good} good"
        if self.shadow is not None:
            yield from self.shadow.lines()
        if self.frames:
            yield f"{'latency in ms':<19} {'p50':>8} {'p95':>8} {'p99':>8} {'max':>8}"
            for stage, latency in self.latency.items():
                values = (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.max_ms)
                yield f"{stage:<19} " + " ".join(f"{value:8.2f}" for value in values)


class RunRecorder:
    """Collects what `RunSummary` reports, in bounded memory; the run starts with it. All threads may add to it."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._lock = threading.Lock()
        self._latency = {stage: LatencyHistogram() for stage in (*VERDICT_STAGES, *OUTPUT_STAGES, PART_STAGE)}
        self._verdicts: Counter[tuple[bool, bool]] = Counter()
        self._part_results: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._frames = self._anomalies = self._unclear = self._alarms = self._parts = 0
        self._alarmed_part: int | None = None
        self._scores, self._score_sum = [0] * (len(SCORE_LIMITS) + 1), 0.0

    def add(self, inspection: Inspection) -> None:
        """Count one frame."""
        with self._lock:
            self._frames += 1
            self._parts = max(self._parts, inspection.part + 1)
            self._alarms += inspection.alarm and self._alarmed_part != inspection.part
            self._alarmed_part = inspection.part if inspection.alarm else None
            if inspection.fault is not None:
                self._faults[inspection.fault] += 1
            if inspection.anomaly is None:
                return
            found, label = inspection.anomaly.is_anomalous, inspection.frame.label
            self._anomalies += found
            self._scores[bisect_left(SCORE_LIMITS, inspection.anomaly.score)] += 1
            self._score_sum += inspection.anomaly.score
            self._unclear += inspection.anomaly.is_unclear
            if label is not None:
                self._verdicts[label != GOOD, found] += 1
            for stage in VERDICT_STAGES:
                self._latency[stage].add(getattr(inspection.latency, f"{stage}_ms"))

    def add_part(self, part: Part) -> None:
        """Count the result of one part."""
        with self._lock:
            self._parts = max(self._parts, part.number + 1)
            self._part_results[part.verdict] += 1
            self._latency[PART_STAGE].add(part.latency_ms)

    def add_stage(self, stage: str, latency_ms: float) -> None:
        """Count what one of `OUTPUT_STAGES` took."""
        with self._lock:
            self._latency[stage].add(latency_ms)

    def add_event(self, event: Event) -> None:
        """Count one event."""
        with self._lock:
            self._events[event.kind] += 1

    def latencies(self, limits_ms: Sequence[float]) -> dict[str, Cumulative]:
        """Histogram of each stage that has taken any time; see `LatencyHistogram.cumulative`."""
        with self._lock:
            return {stage: each.cumulative(limits_ms) for stage, each in self._latency.items() if each.count}

    def scores(self) -> Cumulative:
        """Histogram of the scores of all inspected frames, in buckets up to each of `SCORE_LIMITS`."""
        with self._lock:
            return Cumulative.of(self._scores, total=self._score_sum)

    def summary(
        self,
        source: FrameSource,
        *,
        output_drops: Mapping[str, int],
        output_failures: Mapping[str, int],
        shadow: ShadowSummary | None = None,
    ) -> RunSummary:
        """The run so far. Outputs that dropped or failed nothing may be missing or 0."""
        with self._lock:
            duration_s = time.monotonic() - self._start_s
            counted = self._verdicts
            truth = Truth(
                defects_found=counted[True, True],
                defects_missed=counted[True, False],
                false_alarms=counted[False, True],
                good_passed=counted[False, False],
            )
            return RunSummary(
                frames=self._frames,
                anomalies=self._anomalies,
                alarms=self._alarms,
                parts=self._parts,
                faults=dict(self._faults),
                events=dict(self._events),
                dropped=source.dropped,
                skipped=source.skipped,
                reconnects=source.reconnects,
                output_drops={name: count for name, count in output_drops.items() if count},
                output_failures={name: count for name, count in output_failures.items() if count},
                duration_s=duration_s,
                frames_per_second=self._frames / duration_s if duration_s > 0 else 0.0,
                latency={
                    stage: histogram.percentiles() for stage, histogram in self._latency.items() if histogram.count
                },
                truth=truth if any(counted.values()) else None,
                unclear=self._unclear,
                part_results=dict(self._part_results),
                shadow=shadow,
            )
