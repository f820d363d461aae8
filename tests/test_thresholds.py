"""Thresholds from good pictures and from labelled ones."""

from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.errors import DataError
from stlm_edge.scoring import is_anomalous
from stlm_edge.spec import ModelSpec, Threshold
from stlm_edge.thresholds import f1_optimal, false_alarm_interval, good_quantile, with_normal_scores


def test_all_held_out_pictures_pass_where_few_cannot_promise_the_rate(caplog):
    scores = [0.1, 0.3, 0.2]
    threshold = good_quantile(scores, false_alarm_rate=0.01)
    assert not any(is_anomalous(score, threshold) for score in np.float32(scores))
    assert threshold.value == pytest.approx(0.3, abs=1e-6)
    assert threshold.false_alarm_rate == 1 / 4
    assert "it takes 99" in caplog.text


def test_rate_is_kept_on_new_pictures():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        threshold = good_quantile(rng.beta(2, 9, 199).tolist(), false_alarm_rate=0.05)
        rates.append(np.mean(rng.beta(2, 9, 2000) >= threshold.value))
    assert threshold.images == 199
    assert np.mean(rates) == pytest.approx(threshold.false_alarm_rate, abs=0.004)


def test_no_picture_is_an_error():
    with pytest.raises(DataError, match="no good picture"):
        good_quantile([], false_alarm_rate=0.1)


@pytest.mark.parametrize(
    ("allowed", "count", "low", "high"),
    [
        # Beta(j, n + 1 - j) has closed quantiles for j = 1 and j = n; the one between is from tables of Clopper and
        # Pearson's limits, 2 of 10: the lower limit of 2 and the upper one of 1 successes.
        (1, 20, 1 - 0.975 ** (1 / 20), 1 - 0.025 ** (1 / 20)),
        (5, 5, 0.025 ** (1 / 5), 0.975 ** (1 / 5)),
        (2, 10, 0.02521, 0.44502),
    ],
)
def test_interval_of_the_false_alarm_rate(allowed, count, low, high):
    found = false_alarm_interval(allowed, count, confidence=0.95)
    assert found == pytest.approx((low, high), abs=1e-5)


def test_interval_holds_the_true_rate_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        threshold = good_quantile(rng.random(39).tolist(), false_alarm_rate=0.1)
        low, high = threshold.false_alarm_interval
        inside += low <= 1 - threshold.value <= high
    assert threshold.false_alarm_rate == 4 / 40
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_interval_of_many_pictures_is_quick_and_narrow():
    low, high = false_alarm_interval(100, 10_000, confidence=0.95)
    assert 0.008 < low < 0.01 < high < 0.0122


def test_f1_optimal_threshold_stands_between_two_scores():
    threshold = f1_optimal([0.1, 0.2, 0.6, 0.9], [False, False, True, True])
    assert threshold == Threshold(value=0.4, method="f1", images=4)


def test_f1_optimal_threshold_may_lie_below_all():
    assert f1_optimal([0.3, 0.2], [False, True]).value == 0.2


@pytest.mark.parametrize("defective", [[True, True], [False, False], []])
def test_f1_needs_both(defective):
    with pytest.raises(DataError, match="expected both"):
        f1_optimal([0.5] * len(defective), defective)


SPEC = ModelSpec("plate", "stlm", (64, 64), (4, 4), "0")


def test_deciles_are_scores_that_were_measured():
    scores = np.random.default_rng(2).permutation(np.arange(1, 21) / 20).tolist()
    spec = with_normal_scores(SPEC, scores)
    assert spec.normal_score_range == (0.05, 1.0)
    assert spec.normal_score_deciles == (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert spec.normal_score_images == 20
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_one_picture_has_deciles_too():
    assert with_normal_scores(SPEC, [0.25]).normal_score_deciles == (0.25,) * 11
