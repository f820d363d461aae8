"""The curves behind the metrics, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve

from stlm_edge.curves import ScoreCurve, area_up_to, pixel_pool, score_pool, thinned
from stlm_edge.errors import StlmError
from stlm_edge.metrics import measure_pixels, pixel_metrics, roc_auc


def drawn(seed: int, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    return np.round(rng.random(count) + 0.3 * labels, 2), labels


@pytest.mark.parametrize("seed", range(3))
def test_roc_runs_along_the_one_of_scikit_learn(seed: int) -> None:
    scores, labels = drawn(seed)
    line = ScoreCurve.over([score_pool(scores, labels)]).roc()
    false_rate, true_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    ours = {tuple(point) for point in line.round(12).tolist()}
    theirs = {tuple(point) for point in np.column_stack([false_rate, true_rate]).round(12).tolist()}
    at_positives = {point for point in theirs if point in ours}
    assert len(at_positives) > len(theirs) / 2  # the rest are thresholds of negatives alone, which lie between
    assert all(np.diff(line, axis=0).ravel() >= 0)
    assert area_up_to(line, 1.0) == pytest.approx(auc(false_rate, true_rate), abs=1e-12)
    assert area_up_to(line, 1.0) == pytest.approx(roc_auc(scores, labels), abs=1e-12)


def test_pools_together_count_as_one() -> None:
    """So that good pictures are sorted once and measured with each kind of defect."""
    rng = np.random.default_rng(0)
    maps = np.round(rng.random((6, 20, 30)), 2).astype(np.float32)
    masks = (rng.random((6, 20, 30)) < 0.05).astype(np.uint8)
    masks[:2] = 0
    apart = ScoreCurve.over(
        [pixel_pool(maps[:2], masks[:2]), pixel_pool(maps[2:3], masks[2:3]), pixel_pool(maps[3:], masks[3:])]
    )
    assert measure_pixels(apart) == pixel_metrics(maps, masks)


def test_regions_of_one_picture_count_alike_whatever_their_size() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[0, 0] = 1
    mask[2:, 2:] = 1
    scores = np.where(mask, 0.2, 0.0)
    scores[0, 0] = 0.9
    curve = ScoreCurve.over([pixel_pool([scores], [mask])])
    assert curve.overlap.tolist() == pytest.approx([0.5, 1.0])
    assert curve.pro().tolist() == [[0, 0], [0, 0], [0, 0.5], [0, 0.5], [0, 1], [1, 1]]


def test_undefined_curves_are_empty() -> None:
    only_good = ScoreCurve.over([pixel_pool([np.ones((2, 2))], [np.zeros((2, 2), np.uint8)])])
    assert len(only_good.roc()) == len(only_good.pro()) == len(only_good.precision_recall()) == 0
    assert np.isnan(area_up_to(only_good.pro(), 0.3))
    assert len(ScoreCurve.over([]).roc()) == 0


def test_thinning_keeps_the_ends_and_hardly_moves_the_curve() -> None:
    scores, labels = drawn(4, count=20_000)
    line = ScoreCurve.over([score_pool(scores + np.random.default_rng(4).random(20_000) / 100, labels)]).roc()
    thin = thinned(line, points=300)
    assert len(line) > 10_000
    assert len(thin) <= 302
    assert thin[0].tolist() == [0, 0]
    assert thin[-1].tolist() == [1, 1]
    assert area_up_to(thin, 1.0) == pytest.approx(area_up_to(line, 1.0), abs=3e-3)


def test_maps_that_do_not_fit_their_masks_are_refused() -> None:
    with pytest.raises(StlmError, match="one mask for each map"):
        pixel_pool([np.zeros((2, 2))], [])
    with pytest.raises(StlmError, match=r"map 0 is \(2, 2\)"):
        pixel_pool([np.zeros((2, 2))], [np.zeros((2, 3), np.uint8)])
