"""How far one side's answers are from another's, over a stream of pictures and without keeping their maps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import VerificationError
from stlm_edge.inspection import Answer
from stlm_edge.sidecar import Drift

FLAT = 0.01
"""Standard deviation of the network's maps or scores below which their correlation would tell of rounding only."""

_SMALLEST = 1e-9
_STEP = 1.01
_BUCKETS = math.ceil(math.log(16 / _SMALLEST, _STEP))
"""Map errors are counted in buckets 1 % wide, from 1e-9 to above the 4 that a map without aggregation may reach."""


class DriftMeter:
    """Collects the differences between what was wanted and what was found."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS + 1, np.int64)
        self._largest = 0.0
        self._moments = _Moments()
        self._scores: list[tuple[float, float]] = []

    def add(self, wanted: Answer, found: Answer) -> float:
        """Count one picture; returns its largest map error.

        Raises:
            VerificationError: if the maps are of different sizes, so come from different networks.
        """
        if wanted.anomaly_map.shape != found.anomaly_map.shape:
            raise VerificationError(
                f"found a map of {found.anomaly_map.shape}, the reference's is {wanted.anomaly_map.shape}; "
                "give the checkpoint that the engine was exported from"
            )
        errors = np.abs(found.anomaly_map.astype(np.float64) - wanted.anomaly_map).ravel()
        places = np.ceil(np.log(np.maximum(errors, _SMALLEST) / _SMALLEST) / math.log(_STEP)).astype(np.int64)
        self._counts += np.bincount(places.clip(0, _BUCKETS), minlength=_BUCKETS + 1)
        self._moments.add(wanted.anomaly_map.ravel().astype(np.float64), found.anomaly_map.ravel().astype(np.float64))
        self._scores.append((wanted.score, found.score))
        largest = float(errors.max())
        self._largest = max(self._largest, largest)
        return largest

    def drift(self, backend: str) -> Drift:
        """Of all pictures so far, at least one, without the metrics."""
        wanted, found = np.array(self._scores, np.float64).T
        return Drift(
            backend=backend,
            images=len(self._scores),
            max_map_error=self._largest,
            p99_map_error=self._percentile(0.99),
            map_correlation=self._moments.correlation(),
            max_score_error=float(np.abs(found - wanted).max()),
            score_rank_correlation=rank_correlation(wanted, found),
        )

    def _percentile(self, share: float) -> float:
        """By nearest rank; at most 1 % above the true one."""
        rank = math.ceil(share * int(self._counts.sum()))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_SMALLEST * _STEP**place, self._largest) if place else 0.0


class _Moments:
    """Means and products of deviations of pairs that come in blocks, joined as by Chan, Golub and LeVeque (1979)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros(2)
        self._products = np.zeros((2, 2))

    def add(self, wanted: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        pairs = np.stack([wanted, found])
        mean = pairs.mean(axis=1)
        deviations = pairs - mean[:, None]
        shift = mean - self._mean
        total = self._count + wanted.size
        self._products += deviations @ deviations.T + np.outer(shift, shift) * self._count * wanted.size / total
        self._mean += shift * wanted.size / total
        self._count = total

    def correlation(self) -> float | None:
        """Pearson's; 0 if only what was found is flat."""
        return _correlation(self._products, self._count)


def rank_correlation(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """Spearman's: Pearson's of the ranks, equal values sharing theirs; None where `wanted` is flat."""
    if wanted.std() < FLAT:
        return None
    moments = _Moments()
    moments.add(_ranks(wanted), _ranks(found))
    return moments.correlation()


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return ranks


def _correlation(products: NDArray[np.float64], count: int) -> float | None:
    wanted, found = float(products[0, 0]), float(products[1, 1])
    if math.sqrt(wanted / count) < FLAT:
        return None
    return float(products[0, 1]) / math.sqrt(wanted * found) if found > 0 else 0.0
