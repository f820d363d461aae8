"""The image score and the verdict."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from stlm_edge.scoring import image_score, is_anomalous
from stlm_edge.spec import Threshold

ARRAYS = dict(np.load(Path(__file__).parent / "golden" / "metrics.npz"))


@pytest.mark.parametrize("name", ["main", "coarse"])
def test_image_scores_meet_the_golden_values(name: str) -> None:
    scores = [image_score(anomaly_map, top_k=100) for anomaly_map in ARRAYS[f"{name}_scores"]]
    assert np.abs(scores - ARRAYS[f"{name}_image_scores"]).max() < 1e-6


def test_image_score_is_the_mean_of_the_highest_values() -> None:
    anomaly_map = np.array([[0.1, 0.9], [0.5, 0.3]], np.float32)
    assert image_score(anomaly_map, top_k=1) == pytest.approx(0.9)
    assert image_score(anomaly_map, top_k=2) == pytest.approx(0.7)


def test_all_values_count_where_there_are_fewer_than_wanted() -> None:
    assert image_score(np.array([[0.0, 1.0]], np.float32), top_k=100) == pytest.approx(0.5)


def test_scoring_leaves_the_map_alone() -> None:
    anomaly_map = np.random.default_rng(0).random((20, 20), dtype=np.float32)
    before = anomaly_map.copy()
    image_score(anomaly_map, top_k=10)
    assert np.array_equal(anomaly_map, before)


def test_picture_is_anomalous_from_the_threshold_on() -> None:
    threshold = Threshold(value=0.5, method="f1", images=2)
    assert is_anomalous(0.5, threshold)
    assert not is_anomalous(np.nextafter(0.5, 0), threshold)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (64, 96), (80, 80), (256, 320)])
def test_looking_at_a_sample_first_changes_nothing(size: tuple[int, int]) -> None:
    """Also where many values are equal, on both sides of the size from which on a sample is taken."""
    rng = np.random.default_rng(size[1])
    for levels, top_k in itertools.product((1, 2, 3, 1 << 20), (1, 5, 100, 10_000)):
        anomaly_map = (rng.integers(levels, size=size) / levels).astype(np.float32)
        wanted = np.sort(anomaly_map, axis=None)[-top_k:].mean(dtype=np.float64)
        assert image_score(anomaly_map, top_k=top_k) == pytest.approx(wanted, abs=1e-12)


def test_highest_values_between_those_of_the_sample_count() -> None:
    anomaly_map = np.zeros((200, 200), np.float32)
    anomaly_map.reshape(-1)[[1, 62, 39_999]] = (0.3, 0.6, 0.9)
    assert image_score(anomaly_map, top_k=3) == pytest.approx(0.6)
