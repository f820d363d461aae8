"""Metrics against the golden fixtures (section 2) and scikit-learn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from stlm_edge.errors import StlmError
from stlm_edge.metrics import aupro, average_precision, best_f1, false_negative_rate, pixel_metrics, roc_auc
from stlm_edge.scoring import image_score

GOLDEN = Path(__file__).parent / "golden"
ARRAYS = dict(np.load(GOLDEN / "metrics.npz"))
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())["metrics"]
SETS = pytest.mark.parametrize("name", ["main", "coarse"])


def close(value: float, expected: float) -> bool:
    return abs(value - expected) < 1e-9


@SETS
def test_pixel_metrics_meet_the_golden_values(name: str) -> None:
    expected = EXPECTED[name]
    metrics = pixel_metrics(ARRAYS[f"{name}_scores"], ARRAYS[f"{name}_masks"])
    assert close(metrics.auroc, expected["pixel_auroc"])
    assert close(metrics.ap, expected["pixel_ap"])
    assert close(metrics.aupro, expected["aupro_0.3"])
    optimum, found = expected["pixel_f1_optimum"], metrics.best_f1
    assert (found.tp, found.fp, found.fn) == (optimum["tp"], optimum["fp"], optimum["fn"])
    assert abs(found.threshold - optimum["threshold"]) < 1e-7
    assert close(found.f1, optimum["f1"])
    assert close(found.fnr, optimum["fnr"])


@SETS
def test_image_metrics_meet_the_golden_values(name: str) -> None:
    expected = EXPECTED[name]
    scores = np.array([image_score(anomaly_map, top_k=100) for anomaly_map in ARRAYS[f"{name}_scores"]])
    assert np.abs(scores - expected["image_scores_top100_mean"]).max() < 1e-6
    labels = np.array(expected["image_labels"])
    assert np.array_equal(labels, ARRAYS[f"{name}_masks"].any(axis=(1, 2)))
    assert close(roc_auc(scores, labels), expected["image_auroc"])
    assert close(average_precision(scores, labels), expected["image_ap"])
    optimum, found = expected["image_f1_optimum"], best_f1(scores, labels)
    assert (found.tp, found.fp, found.fn) == (optimum["tp"], optimum["fp"], optimum["fn"])
    assert abs(found.threshold - optimum["threshold"]) < 1e-6
    assert close(found.f1, optimum["f1"])
    assert close(false_negative_rate(scores, labels, 0.5), expected["image_fnr_at_fixed_threshold_0.5"])


@SETS
def test_false_negative_rate_at_a_fixed_threshold_meets_the_golden_value(name: str) -> None:
    rate = false_negative_rate(ARRAYS[f"{name}_scores"].ravel(), ARRAYS[f"{name}_masks"].ravel(), 0.5)
    assert close(rate, EXPECTED[name]["pixel_fnr_at_fixed_threshold_0.5"])


@SETS
def test_whole_area_under_the_overlap_curve_meets_the_golden_value(name: str) -> None:
    whole = aupro(ARRAYS[f"{name}_scores"], ARRAYS[f"{name}_masks"], fpr_limit=1.0)
    assert close(whole, EXPECTED[name]["wrong_aupro_values_for_diagnosis"]["FPR limit 1.0"])


@SETS
def test_scale_and_offset_of_the_scores_change_nothing(name: str) -> None:
    scores, masks = ARRAYS[f"{name}_scores"], ARRAYS[f"{name}_masks"]
    plain, moved = pixel_metrics(scores, masks), pixel_metrics(100 * scores.astype(np.float64) + 20, masks)
    assert close(plain.auroc, moved.auroc)
    assert close(plain.ap, moved.ap)
    assert close(plain.aupro, moved.aupro)
    assert (plain.best_f1.tp, plain.best_f1.fp) == (moved.best_f1.tp, moved.best_f1.fp)


@pytest.mark.parametrize(("rule", "factor"), [("all scores 0", 0), ("scores = mask", 1), ("scores = -mask", -1)])
def test_metrics_of_constant_right_and_inverted_maps_meet_the_golden_values(rule: str, factor: int) -> None:
    masks = ARRAYS["main_masks"]
    metrics = pixel_metrics(factor * masks.astype(np.float32), masks)
    expected = EXPECTED["derived_from_main_masks"][rule]
    assert close(metrics.auroc, expected["pixel_auroc"])
    assert close(metrics.ap, expected["pixel_ap"])
    assert close(metrics.aupro, expected["aupro_0.3"])


def test_metrics_without_a_defect_are_nan() -> None:
    metrics = pixel_metrics([np.ones((4, 4), np.float32)], [np.zeros((4, 4), np.uint8)])
    assert all(math.isnan(value) for value in (metrics.auroc, metrics.ap, metrics.aupro))
    assert math.isnan(metrics.best_f1.f1)
    assert math.isnan(metrics.best_f1.fnr)
    assert math.isnan(false_negative_rate(np.ones(3), np.zeros(3), 0.5))


def test_metrics_without_a_normal_pixel_are_nan_where_undefined() -> None:
    metrics = pixel_metrics([np.ones((4, 4), np.float32)], [np.ones((4, 4), np.uint8)])
    assert math.isnan(metrics.auroc)
    assert math.isnan(metrics.aupro)


def test_metrics_of_no_picture_are_nan() -> None:
    metrics = pixel_metrics([], [])
    assert all(math.isnan(value) for value in (metrics.auroc, metrics.ap, metrics.aupro, metrics.best_f1.f1))


@pytest.mark.parametrize("levels", [2, 7, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn_on_ties(levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, 800) / levels
    labels = rng.random(800) < 0.2 + 0.5 * scores
    assert close(roc_auc(scores, labels), roc_auc_score(labels, scores))
    assert close(average_precision(scores, labels), average_precision_score(labels, scores))


@pytest.mark.parametrize("seed", range(5))
def test_f1_optimum_is_the_highest_of_the_best_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 6, 60) / 6, rng.random(60) < 0.4
    found = best_f1(scores, labels)
    tried = {}
    for threshold in np.unique(scores):
        positive = scores >= threshold
        tried[threshold] = 2 * np.sum(positive & labels) / (np.sum(positive) + np.sum(labels))
    best = max(tried.values())
    assert close(found.f1, best)
    assert found.threshold == max(threshold for threshold, f1 in tried.items() if abs(f1 - best) < 1e-12)


def test_equal_f1_takes_the_highest_threshold() -> None:
    assert best_f1(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 0, 0, 1])).threshold == 0.9


def test_pictures_of_different_sizes_are_pooled() -> None:
    maps = [np.array([[0.9, 0.1]]), np.array([[0.2], [0.8], [0.3]])]
    masks = [np.array([[1, 0]], np.uint8), np.array([[0], [1], [0]], np.uint8)]
    metrics = pixel_metrics(maps, masks)
    assert (metrics.auroc, metrics.ap, metrics.best_f1.threshold) == (1, 1, 0.8)
    assert close(metrics.aupro, 1)


def test_infinite_scores_are_compared_like_others() -> None:
    assert roc_auc(np.array([-math.inf, 0.0, math.inf]), np.array([0, 0, 1])) == 1


def test_nan_scores_are_refused() -> None:
    with pytest.raises(StlmError, match="1 of 4 scores are NaN"):
        pixel_metrics([np.array([[0.1, math.nan], [0.2, 0.3]])], [np.eye(2, dtype=np.uint8)])
    with pytest.raises(StlmError, match="NaN"):
        false_negative_rate(np.array([math.nan]), np.array([1]), 0.5)


def test_maps_and_masks_of_different_shapes_are_refused() -> None:
    with pytest.raises(StlmError, match="expected the same"):
        pixel_metrics([np.zeros((2, 2))], [np.zeros((2, 3), np.uint8)])
    with pytest.raises(StlmError, match="labels"):
        roc_auc(np.zeros(3), np.zeros(4))
