from __future__ import annotations

import numpy as np
import pytest

from runtime.timing import RESOLUTION, FrameRate, LatencyHistogram


def test_percentiles_are_within_their_resolution() -> None:
    latencies_ms = np.random.default_rng(0).lognormal(3, 1, 5000)
    histogram = LatencyHistogram()
    for latency_ms in latencies_ms:
        histogram.add(float(latency_ms))
    found = histogram.percentiles()
    for share, value in ((50, found.p50_ms), (95, found.p95_ms), (99, found.p99_ms)):
        exact = float(np.percentile(latencies_ms, share, method="inverted_cdf"))
        assert exact <= value <= exact * (1 + RESOLUTION) * (1 + 1e-9)
    assert found.max_ms == latencies_ms.max()


def test_single_latency_is_all_percentiles() -> None:
    histogram = LatencyHistogram()
    histogram.add(7.0)
    found = histogram.percentiles()
    assert found.p50_ms == found.p99_ms == found.max_ms == 7.0


def test_no_latency_is_zero() -> None:
    assert LatencyHistogram().percentiles().p99_ms == 0


def test_memory_is_bounded() -> None:
    histogram = LatencyHistogram()
    for latency_ms in np.geomspace(1e-6, 600_000, 20_000):
        histogram.add(float(latency_ms))
    assert len(histogram._buckets) < 2100


def test_frame_rate_over_the_last_frames() -> None:
    rate = FrameRate(window=5)
    assert rate.tick(0.0) == 0
    for now_s in (10.0, 10.1, 10.2, 10.3, 10.4):
        found = rate.tick(now_s)
    assert found == pytest.approx(10)
