"""What Prometheus is told of a line, read back by its own parsers."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import types
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from runtime.camera_run import CameraRun
from runtime.event import KINDS, Event
from runtime.gpu_state import GpuState
from runtime.line import Line
from runtime.line_control import Control
from runtime.metrics import LATENCY_LIMITS_S, Metrics
from runtime.parts import PartRule
from runtime.signals import StopSignals
from runtime.sinks import FrameSink, Outputs
from runtime.sources import FrameSource
from runtime.summary import RunRecorder
from runtime.timing import LatencyHistogram

from .test_line import FirstPixel, Script, judge_of

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Away(FrameSink):
    """Its other side is gone."""

    takes_pictures = False

    @property
    def away(self) -> str:
        return "the cable is out"

    def write(self, inspection: object) -> None:
        pass

    def close(self) -> None:
        pass


class Gpu:
    is_open = True

    def read(self) -> GpuState:
        return GpuState(mhz=1695, temperature_c=64, power_w=251.3, busy=0.5, memory_used=3 << 30, memory=48 << 30)

    def slowed_by(self) -> set[str]:
        return {"power cap"}

    def close(self) -> None:
        self.is_open = False


def camera(name: str | None, stack: ExitStack, *, rule: PartRule | None = None, recipe: str | None = None) -> CameraRun:
    """That has run: scores 0, just below 0.2, 0.8 and 0.8."""
    source: FrameSource = Script([0, 50, 204, 204])
    source.dropped, source.skipped, source.reconnects = 7, 3, 2
    control, recorder = Control(judge_of(FirstPixel(), rule=rule, recipe=recipe), source=source), RunRecorder()
    outputs = Outputs({"a.csv": Away()}, drops=True, on_publish=lambda ms: recorder.add_stage("publish", ms))
    stack.enter_context(outputs)
    Line(source, control, outputs=outputs, recorder=recorder).run(StopSignals())
    control.close()
    source.queue = 8
    recorder.add_event(Event("output-lost", "", time.monotonic()))
    return CameraRun(types.SimpleNamespace(name=name), source, control, outputs, recorder, None, None, stack)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    """Of a camera with parts and one without, whose name is markup; on a machine with a GPU."""
    gpu = Gpu()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("runtime.metrics.open_nvml", lambda: gpu)
        rule = PartRule(None, frames=2, gap_s=None, deadline_s=None)
        runs = [camera("left", stack, rule=rule), camera('"<b>\n', stack, recipe="bolt\n")]
        with Metrics(runs) as made:
            yield made
    assert not gpu.is_open


@pytest.fixture(scope="module")
def values(metrics: Metrics) -> dict[str, float]:
    """Sample as text, its labels sorted → value."""
    return {
        f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in plain_text(metrics.exposition()[0].decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ("stlm_frames_total{camera=left}", 4),
        ("stlm_frames_anomalous_total{camera=left}", 2),
        ("stlm_parts_total{camera=left,verdict=good}", 1),
        ("stlm_parts_total{camera=left,verdict=reject}", 1),
        ("stlm_parts_total{camera=left,verdict=fault}", 0),
        ("stlm_frames_dropped_total{camera=left}", 7),
        ("stlm_pictures_skipped_total{camera=left}", 3),
        ("stlm_camera_reconnects_total{camera=left}", 2),
        ("stlm_frames_faulty_total{camera=left,fault=black}", 0),
        ("stlm_events_total{camera=left,kind=output-lost}", 1),
        ("stlm_queue_size_frames{camera=left}", 8),
        ("stlm_queue_frames{camera=left}", 0),
        ("stlm_camera_connected{camera=left}", 1),
        ("stlm_output_up{camera=left,output=a.csv}", 0),
        ("stlm_output_dropped_total{camera=left,output=a.csv}", 0),
        ("stlm_score_threshold{camera=left}", 0.5),
        ("stlm_score_bucket{camera=left,le=0.05}", 1),
        ("stlm_score_bucket{camera=left,le=0.2}", 2),
        ("stlm_score_bucket{camera=left,le=0.75}", 2),
        ("stlm_score_bucket{camera=left,le=+Inf}", 4),
        ("stlm_latency_seconds_count{camera=left,stage=total}", 4),
        ("stlm_latency_seconds_count{camera=left,stage=part}", 2),
        ("stlm_gpu_clock_hertz{}", 1.695e9),
        ("stlm_gpu_memory_bytes{}", 48 << 30),
        ("stlm_gpu_slowed{reason=power cap}", 1),
        ("stlm_gpu_slowed{reason=hardware's heat limit}", 0),
    ],
)
def test_counts_are_those_of_the_run(sample: str, value: float, values: dict[str, float]) -> None:
    assert values[sample] == value


def test_what_a_camera_has_not_is_left_out(values: dict[str, float]) -> None:
    assert not [sample for sample in values if "stlm_parts" in sample and "left" not in sample]
    assert not [sample for sample in values if sample.startswith(("stlm_drift", "stlm_score_unclear"))]


def test_markup_in_names_stays_text(metrics: Metrics) -> None:
    text = metrics.exposition()[0].decode()
    assert 'stlm_frames_total{camera="\\"<b>\\\\x0a"} 4.0' in text
    assert 'recipe="bolt\\\\x0a"' in text


def test_open_metrics_are_given_where_they_are_asked_for(metrics: Metrics) -> None:
    text, content_type = metrics.exposition(OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text")
    counted = {family.name: family.type for family in open_metrics(text.decode())}
    assert (counted["stlm_frames"], counted["stlm_engine"], counted["stlm_score"]) == ("counter", "info", "histogram")
    assert metrics.exposition()[1].startswith("text/plain")


def test_line_progress_is_a_time_of_day(values: dict[str, float]) -> None:
    assert 0 <= time.time() - values["stlm_line_progress_timestamp_seconds{camera=left}"] < 3600


def test_table_of_the_docs_has_each_metric_and_no_other(metrics: Metrics) -> None:
    told = {
        f"{family.name}{'_total' if family.type == 'counter' else '_info' if family.type == 'info' else ''}"
        for family in open_metrics(metrics.exposition(OPEN_METRICS)[0].decode())
        if family.name.startswith("stlm_")
    }
    written = set(re.findall(r"^\| `(stlm_\w+)`", DOCS.read_text(), re.MULTILINE))
    assert written == told | {"stlm_drift", "stlm_score_unclear_threshold"}  # which this camera has not
    assert set(KINDS) <= set(re.findall(r"`([\w-]+)`", DOCS.read_text()))


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt: prometheus)")
def test_promtool_finds_nothing_to_mend(metrics: Metrics) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.exposition()[0], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt: prometheus)")
def test_each_alert_is_raised_by_what_it_is_for_and_by_nothing_else() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(Path(__file__).with_name("alerts.yml"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["grafana/stlm-dashboard.json", "prometheus/stlm-alerts.yml"])
def test_dashboard_and_alerts_ask_for_metrics_that_there_are(file: str) -> None:
    documented = re.findall(r"^\| `(stlm_\w+)`", DOCS.read_text(), re.MULTILINE)
    parts = [f"{name}_{part}" for name in ("stlm_latency_seconds", "stlm_score") for part in ("bucket", "sum", "count")]
    asked = set(re.findall(r"\bstlm_\w+", (DOCS.parents[1] / "contrib" / file).read_text()))
    assert len(asked) > 10
    assert asked <= {*documented, *parts}


@pytest.mark.parametrize("latency_ms", [0.0, 0.4, 9.8, 10.2, 14.0, 21.0, 80.0, 700.0, 20000.0])
def test_latencies_fall_into_their_buckets(latency_ms: float) -> None:
    histogram = LatencyHistogram()
    histogram.add(latency_ms)
    counts = histogram.cumulative([1e3 * limit for limit in LATENCY_LIMITS_S]).counts
    assert counts == (*(int(latency_ms <= 1e3 * limit) for limit in LATENCY_LIMITS_S), 1)
