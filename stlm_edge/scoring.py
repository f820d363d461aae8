"""From an anomaly map to a number and a verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Map
from stlm_edge.spec import Threshold

_STRIDE = 61
"""Between the values that are looked at first. A prime, so that these do not lie in a few columns of the map."""


def image_score(anomaly_map: Map, *, top_k: int) -> float:
    """Mean of the `top_k` highest values of an up-sampled map (paper, 4.1.3).

    The exported graph computes the same inside; this is the reference for it.

    Args:
        anomaly_map: (H, W), any scale.
        top_k: if the map has fewer values, all of them count.
    """
    values = anomaly_map.reshape(-1)
    k = min(top_k, values.size)
    sample = values[::_STRIDE]
    if sample.size > k:
        # What the sample alone has `k` of, the map has at least as many of: nothing below is among its highest.
        least = _highest(sample, k).min()
        values = values[values > least]
        if values.size < k:
            return float((values.sum(dtype=np.float64) + (k - values.size) * float(least)) / k)
    return float(_highest(values, k).mean(dtype=np.float64))


def _highest(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    return np.partition(values, values.size - count)[values.size - count :]


def is_anomalous(score: float, threshold: Threshold) -> bool:
    """True from the threshold on, the threshold itself included."""
    return score >= threshold.value
