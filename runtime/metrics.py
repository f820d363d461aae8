"""What runs are like, for Prometheus: read when it is asked for, from what the lines count anyway (docs/metrics.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from runtime.closing import Closing
from runtime.event import KINDS
from runtime.gpu_state import SLOWED_BY, open_nvml, read_jetson_gpu
from runtime.page.watch import PAGE
from runtime.part import VERDICTS
from runtime.sources.base import Fault
from runtime.summary import SCORE_LIMITS, RunSummary
from stlm_edge import __version__
from stlm_edge.names import printable

if TYPE_CHECKING:
    from runtime.camera_run import CameraRun
    from runtime.judge import Judge
    from runtime.timing import Cumulative

ONLY_CAMERA = "camera"
"""Stands for the camera of a program that has but one, which has no name."""

LATENCY_LIMITS_S = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0),
)

_Values = float | Mapping[str, float] | None


@dataclass(frozen=True)
class _Seen:
    """One camera at one moment."""

    run: CameraRun
    summary: RunSummary
    judge: Judge


@dataclass(frozen=True)
class _Family:
    """A metric of each camera.

    Attributes:
        read: its value, one by each value of `label`, or None where the camera has none.
    """

    kind: Literal["counter", "gauge"]
    name: str
    text: str
    read: Callable[[_Seen], _Values]
    label: str | None = None

    def of(self, cameras: Mapping[str, _Seen]) -> Metric:
        """With all its samples."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        metric = make(f"stlm_{self.name}", self.text, labels=["camera", *([self.label] if self.label else [])])
        for camera, seen in cameras.items():
            values = self.read(seen)
            if isinstance(values, Mapping):
                for key, value in values.items():
                    metric.add_metric([camera, printable(key)], value)
            elif values is not None:
                metric.add_metric([camera], values)
        return metric


def _since_1970_s(monotonic_s: float) -> float:
    return time.time() - (time.monotonic() - monotonic_s)


def _each(found: Mapping[str, int], known: Sequence[str]) -> dict[str, float]:
    """With a 0 for what has not happened yet, so that its first time is an increase."""
    return {name: found.get(name, 0) for name in (*known, *(name for name in found if name not in known))}


def _own(outputs: Mapping[str, float]) -> dict[str, float]:
    """Without the page, beside which these are served."""
    return {name: value for name, value in outputs.items() if name != PAGE}


_FAMILIES = (
    _Family("counter", "frames", "Frames taken, those with a fault among them.", lambda s: s.summary.frames),
    _Family("counter", "frames_anomalous", "Frames whose score reached the threshold.", lambda s: s.summary.anomalies),
    _Family("counter", "frames_unclear", "Frames between both thresholds.", lambda s: s.summary.unclear),
    _Family(
        "counter",
        "frames_dropped",
        "Frames that newer ones overtook, or that had no room.",
        lambda s: s.summary.dropped,
    ),
    _Family(
        "counter",
        "frames_faulty",
        "Frames that show nothing or came damaged, and were not inspected.",
        lambda s: _each(s.summary.faults, get_args(Fault)),
        "fault",
    ),
    _Family("counter", "pictures_skipped", "Pictures that could not be decoded.", lambda s: s.summary.skipped),
    _Family("counter", "alarms", "How often the vote of the frames turned to anomalous.", lambda s: s.summary.alarms),
    _Family(
        "counter",
        "parts",
        "Parts that have their result.",
        lambda s: None if s.run.control.parts is None else _each(s.summary.part_results, VERDICTS),
        "verdict",
    ),
    _Family(
        "counter",
        "events",
        "What happened to the line and its outputs.",
        lambda s: _each(s.summary.events, KINDS),
        "kind",
    ),
    _Family("counter", "camera_reconnects", "How often a lost camera came back.", lambda s: s.summary.reconnects),
    _Family("gauge", "camera_connected", "0 while the camera is lost.", lambda s: s.run.source.is_connected),
    _Family(
        "gauge",
        "queue_frames",
        "Frames that wait for the network, of a camera with a trigger.",
        lambda s: None if s.run.source.queue is None else s.run.source.waiting,
    ),
    _Family("gauge", "queue_size_frames", "How many may wait.", lambda s: s.run.source.queue),
    _Family("gauge", "line_running", "0 once this camera has ended.", lambda s: not s.run.control.has_ended),
    _Family("gauge", "line_ready", "1 while a trigger would be taken.", lambda s: s.run.control.status().ready),
    _Family(
        "gauge",
        "line_progress_timestamp_seconds",
        "When a frame was last judged, or waited for in vain.",
        lambda s: _since_1970_s(s.run.control.status().progress_s),
    ),
    _Family(
        "gauge",
        "score_threshold",
        "From this score on a frame is anomalous.",
        lambda s: s.judge.detector.threshold.value,
    ),
    _Family(
        "gauge",
        "score_unclear_threshold",
        "From this score on it is unclear.",
        lambda s: s.judge.detector.threshold.unclear,
    ),
    _Family(
        "gauge",
        "drift",
        "1 while the scores of passed frames have moved; missing where that is not watched.",
        lambda s: None if s.judge.drift is None else s.judge.drift.has_drifted,
    ),
    _Family(
        "gauge",
        "output_up",
        "0 while an output cannot be written or nobody takes what it sends.",
        lambda s: _own({name: trouble is None for name, trouble in s.run.outputs.troubles.items()}),
        "output",
    ),
    _Family("gauge", "output_queue", "What waits to be written.", lambda s: _own(s.run.outputs.waiting), "output"),
    _Family(
        "counter",
        "output_dropped",
        "Frames and results that an output was too slow for.",
        lambda s: _own(s.run.outputs.drops),
        "output",
    ),
    _Family(
        "counter",
        "output_failures",
        "Frames and results that could not be written.",
        lambda s: _own(s.run.outputs.failures),
        "output",
    ),
)


class Metrics(Closing, Collector):
    """The metrics of a program with one or several cameras. Any thread may ask; holds NVML until `close`."""

    def __init__(self, runs: Sequence[CameraRun]) -> None:
        """Args: runs: that are open, and stay so until `close`."""
        self._runs = runs
        self._nvml = open_nvml()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All of them as Prometheus' text, or as OpenMetrics where that is asked for.

        Args:
            accept: the header of the request.
        Returns:
            The text and its content type.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Nothing: they are known when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        cameras = {
            printable(run.config.name or ONLY_CAMERA): _Seen(run, run.summary(), run.control.judge)
            for run in self._runs
        }
        build = InfoMetricFamily("stlm_build", "The toolkit.", {"version": __version__})
        found = [build, _engines(cameras), *(family.of(cameras) for family in _FAMILIES), *_histograms(cameras)]
        yield from (metric for metric in [*found, *self._of_gpu()] if metric.samples)

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.close()
            self._nvml = None

    def _of_gpu(self) -> Iterator[Metric]:
        nvml = self._nvml
        state = read_jetson_gpu() if nvml is None else nvml.read()
        for name, text, value in (
            ("clock_hertz", "Of the GPU's cores.", None if state.mhz is None else state.mhz * 1e6),
            ("temperature_celsius", "Of the GPU.", state.temperature_c),
            ("power_watts", "That the card, or all of a Jetson, takes.", state.power_w),
            ("busy_ratio", "Share of the last moments in which the GPU worked.", state.busy),
            ("memory_used_bytes", "Of the GPU's own memory.", state.memory_used),
            ("memory_bytes", "The GPU's own memory.", state.memory),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"stlm_gpu_{name}", text, value)
        if nvml is not None:
            slowed = GaugeMetricFamily("stlm_gpu_slowed", "1 while this holds the clock back.", labels=["reason"])
            reasons = nvml.slowed_by()
            for reason in SLOWED_BY.values():
                slowed.add_metric([reason], reason in reasons)
            yield slowed


def _engines(cameras: Mapping[str, _Seen]) -> Metric:
    metric = InfoMetricFamily("stlm_engine", "What judges the next part or frame.", labels=["camera"])
    for camera, seen in cameras.items():
        detector = seen.judge.detector
        record = detector.sidecar.engine
        told = {
            "engine": detector.path.name,
            "sha256": record.engine_sha256,
            "product": record.product,
            "precision": record.precision,
            "backend": detector.runs_by,
            "recipe": seen.judge.recipe or "",
        }
        metric.add_metric([camera], {key: printable(value) for key, value in told.items()})
    return metric


def _histograms(cameras: Mapping[str, _Seen]) -> tuple[Metric, Metric]:
    latency = HistogramMetricFamily(
        "stlm_latency_seconds", "What each stage of a frame, its outputs or a part took.", labels=["camera", "stage"]
    )
    scores = HistogramMetricFamily("stlm_score", "Scores of the inspected frames.", labels=["camera"])
    for camera, seen in cameras.items():
        for stage, each in seen.run.recorder.latencies([1e3 * limit for limit in LATENCY_LIMITS_S]).items():
            latency.add_metric([camera, stage], *_buckets(LATENCY_LIMITS_S, each, unit=1e-3))
        scores.add_metric([camera], *_buckets(SCORE_LIMITS, seen.run.recorder.scores()))
    return latency, scores


def _buckets(limits: Sequence[float], found: Cumulative, *, unit: float = 1.0) -> tuple[list[tuple[str, float]], float]:
    bounds = [*map(floatToGoString, limits), "+Inf"]
    return list(zip(bounds, map(float, found.counts), strict=True)), found.total * unit
