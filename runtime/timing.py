"""Latencies and frame rates of a run that may last for months: bounded memory, exact maximum."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

RESOLUTION = 0.01
"""A percentile is at most this share above the true one."""

_SHORTEST_MS = 1e-3
_SELDOM_S = 60.0


@dataclass(frozen=True)
class Percentiles:
    """Latencies of one stage in milliseconds; 95 % of the frames took at most `p95_ms`, and so on."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Cumulative:
    """A histogram as Prometheus takes it.

    Attributes:
        counts: of values up to each limit, and last of all values.
        total: sum of the values.
    """

    counts: tuple[int, ...]
    total: float

    @classmethod
    def of(cls, counts: Sequence[int], *, total: float) -> Cumulative:
        """Args: counts: of values up to each limit that are above the one before, and last of those beyond."""
        return cls(tuple(accumulate(counts)), total)


class LatencyHistogram:
    """Counts latencies in buckets that widen by 1 %, some 2000 of them between a microsecond and ten minutes."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._max_ms = 0.0
        self.sum_ms = 0.0

    def add(self, latency_ms: float) -> None:
        """Count one latency; shorter than a microsecond counts as one."""
        self._buckets[math.ceil(math.log(max(latency_ms, _SHORTEST_MS), 1 + RESOLUTION))] += 1
        self._max_ms = max(self._max_ms, latency_ms)
        self.sum_ms += latency_ms

    def add_all(self, latencies_ms: NDArray[np.float64]) -> None:
        """Count many at once. Args: latencies_ms: (N,), finite."""
        if latencies_ms.size:
            logarithms = np.log(np.maximum(latencies_ms, _SHORTEST_MS)) / math.log(1 + RESOLUTION)
            buckets, counts = np.unique(np.ceil(logarithms).astype(int), return_counts=True)
            self._buckets.update(dict(zip(buckets.tolist(), counts.tolist(), strict=True)))
            self._max_ms = max(self._max_ms, float(latencies_ms.max()))

    @property
    def count(self) -> int:
        """How many were counted."""
        return self._buckets.total()

    def percentiles(self) -> Percentiles:
        """Nearest-rank percentiles; all 0 before the first `add`."""
        return Percentiles(self._rank(0.50), self._rank(0.95), self._rank(0.99), self._max_ms)

    def cumulative(self, limits_ms: Sequence[float]) -> Cumulative:
        """The same in fewer buckets, of latencies up to each of these; those within 1 % below a limit may be above."""
        counts = [0] * (len(limits_ms) + 1)
        for bucket, count in self._buckets.items():
            counts[bisect_left(limits_ms, (1 + RESOLUTION) ** bucket * (1 - 1e-9))] += count
        return Cumulative.of(counts, total=self.sum_ms)

    def _rank(self, share: float) -> float:
        wanted = share * self._buckets.total()
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min((1 + RESOLUTION) ** bucket, self._max_ms)
        return 0.0


class FrameRate:
    """Frames per second over the last frames."""

    def __init__(self, *, window: int = 30) -> None:
        self._times_s: deque[float] = deque(maxlen=window)

    def tick(self, now_s: float) -> float:
        """Count a frame at `now_s`; the rate is 0 until there are two."""
        self._times_s.append(now_s)
        span_s = now_s - self._times_s[0]
        return (len(self._times_s) - 1) / span_s if span_s > 0 else 0.0


class Seldom:
    """Says whether something that happens often should be logged: the first time, then once a minute."""

    def __init__(self) -> None:
        self._last_s: float | None = None

    def is_due(self) -> bool:
        """Asked each time that it happens."""
        now_s = time.monotonic()
        if self._last_s is not None and now_s - self._last_s < _SELDOM_S:
            return False
        self._last_s = now_s
        return True
