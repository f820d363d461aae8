"""Thresholds from good pictures and from labelled ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stlm_edge.errors import DataError
from stlm_edge.scoring import is_anomalous
from stlm_edge.spec import ModelSpec, Threshold
from stlm_edge.thresholds import (
    choose,
    expectations,
    f1_optimal,
    false_alarm_interval,
    threshold_change,
    with_normal_scores,
    with_unclear,
)


def of_single_parts(scores, **settings) -> Threshold:
    """Chosen from scores of pictures that show a part each."""
    return choose(list(scores), range(len(scores)), **settings)


def test_all_held_out_pictures_pass_where_few_cannot_promise_the_rate(caplog):
    scores = [0.1, 0.3, 0.2]
    threshold = of_single_parts(scores, false_alarm_rate=0.01)
    assert not any(is_anomalous(score, threshold) for score in np.float32(scores))
    assert threshold.value == pytest.approx(0.3, abs=1e-6)
    assert threshold.false_alarm_rate == 1 / 4
    assert not threshold.modelled
    assert (
        "3 good parts cannot promise a false-alarm rate of 0.01, only 0.25; it takes 99, or 8 to model" in caplog.text
    )


@pytest.fixture
def few_draws(monkeypatch):
    """Of the bootstrap, in tests that choose thousands of thresholds and look at nothing that comes from it."""
    monkeypatch.setattr("stlm_edge.thresholds.choice.DRAWS", 10)


def test_rate_is_kept_on_new_pictures(few_draws):
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        threshold = of_single_parts(rng.beta(2, 9, 199).tolist(), false_alarm_rate=0.05)
        rates.append(np.mean(rng.beta(2, 9, 2000) >= threshold.value))
    assert threshold.images == 199
    assert np.mean(rates) == pytest.approx(threshold.false_alarm_rate, abs=0.004)


def test_no_picture_is_an_error():
    with pytest.raises(DataError, match="no good picture"):
        of_single_parts([], false_alarm_rate=0.1)


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


def test_interval_holds_the_true_rate_as_often_as_it_says(few_draws):
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        threshold = of_single_parts(rng.random(39).tolist(), false_alarm_rate=0.1)
        low, high = threshold.false_alarm_interval
        inside += low <= 1 - threshold.value <= high
    assert threshold.false_alarm_rate == 4 / 40
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


def test_interval_of_many_pictures_is_quick_and_narrow():
    low, high = false_alarm_interval(100, 10_000, confidence=0.95)
    assert 0.008 < low < 0.01 < high < 0.0122


def test_f1_optimal_threshold_stands_between_two_scores():
    threshold = f1_optimal([0.1, 0.2, 0.6, 0.9], [False, False, True, True])
    low, high = threshold.value_interval
    assert low <= 0.4 <= high
    assert dataclasses.replace(threshold, value_interval=None) == Threshold(value=0.4, method="f1", images=4)


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


def clustered(rng, *, parts: int, pictures: int, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of pictures whose logits differ by part (deviation 1) and by picture (`within`), and the parts."""
    logits = rng.normal(size=(parts, 1)) + within * rng.normal(size=(parts, pictures)) - 3
    return (1 / (1 + np.exp(-logits))).ravel(), np.repeat(np.arange(parts), pictures)


def test_part_counts_once_however_many_pictures_show_it():
    rng = np.random.default_rng(3)
    alone = rng.random(99)
    often = np.repeat(alone, 5)
    one = of_single_parts(alone, false_alarm_rate=0.05)
    five = choose(often, np.repeat(np.arange(99), 5), false_alarm_rate=0.05)
    assert dataclasses.replace(five, images=99) == one
    assert (five.images, five.parts) == (495, 99)


def test_rate_that_neither_count_nor_model_can_have_puts_the_threshold_above_all_pictures():
    scores, parts = clustered(np.random.default_rng(11), parts=5, pictures=4, within=0.5)
    assert choose(scores, parts, false_alarm_rate=0.01).value > scores.max()
    assert choose(scores, parts, false_alarm_rate=0.2).value < scores.max()


@pytest.mark.parametrize("rate", [0.05, 0.005])
def test_intervals_by_part_are_wider_than_by_picture(rate):
    scores, parts = clustered(np.random.default_rng(4), parts=40, pictures=5, within=0.2)
    by_part = choose(scores, parts, false_alarm_rate=rate)
    by_picture = of_single_parts(scores, false_alarm_rate=rate)
    assert by_part.modelled == (rate < 1 / 41)
    for name in ("value_interval", "false_alarm_interval"):
        wide, narrow = getattr(by_part, name), getattr(by_picture, name)
        assert wide[1] - wide[0] > 1.2 * (narrow[1] - narrow[0]), name


def test_threshold_falls_with_the_wanted_rate_across_count_and_model():
    scores = 1 / (1 + np.exp(3 - np.random.default_rng(5).normal(size=50)))
    rates = [1e-5, 1e-3, 0.01, 1 / 51 - 1e-9, 1 / 51, 0.03, 0.1]
    thresholds = [of_single_parts(scores, false_alarm_rate=rate) for rate in rates]
    assert [threshold.modelled for threshold in thresholds] == [True] * 4 + [False] * 3
    values = [threshold.value for threshold in thresholds]
    assert values == sorted(values, reverse=True)
    assert scores.max() < values[3] and values[0] < 1
    assert all(threshold.false_alarm_rate <= rate for threshold, rate in zip(thresholds, rates, strict=True))


@pytest.mark.parametrize("scores", [[0.4] * 20, [1.0] * 20, [0.0] * 20, [*[0.0] * 19, 1.0]])
def test_scores_without_a_spread_or_at_an_end_give_a_threshold_that_can_be_reached(scores, caplog):
    threshold = of_single_parts(scores, false_alarm_rate=0.001)
    assert max(scores) <= threshold.value <= 1
    assert dataclasses.replace(SPEC, threshold=threshold, highest_score=1.0).threshold == threshold
    assert ("HIGHEST SCORE" in caplog.text) == (max(scores) == 1)


def test_highest_score_bounds_a_modelled_threshold():
    scores = np.random.default_rng(6).uniform(3.5, 3.9, 20)
    assert 3.9 < of_single_parts(scores, false_alarm_rate=1e-6, highest_score=4.0).value < 4


def test_few_parts_are_warned_of(caplog):
    of_single_parts(np.random.default_rng(7).random(29), false_alarm_rate=0.1)
    assert "FEW PARTS: the threshold is from 29 pictures of 29 good parts" in caplog.text
    caplog.clear()
    of_single_parts(np.random.default_rng(7).random(30), false_alarm_rate=0.1)
    assert not caplog.records


def test_same_scores_give_the_same_threshold():
    scores, parts = clustered(np.random.default_rng(8), parts=12, pictures=3, within=0.5)
    assert choose(scores, parts, false_alarm_rate=0.01) == choose(scores, parts, false_alarm_rate=0.01)


def test_unclear_lies_below_the_threshold_and_is_reached_by_as_many_as_wanted():
    scores = np.random.default_rng(9).beta(2, 9, 199)
    threshold = of_single_parts(scores, false_alarm_rate=0.01, unclear_rate=0.1)
    assert np.mean(scores >= threshold.unclear) == pytest.approx(0.1, abs=0.006)
    assert threshold.unclear < threshold.value
    assert threshold.unclear_rate == 0.1
    assert of_single_parts(scores, false_alarm_rate=0.01) == dataclasses.replace(
        threshold, unclear=None, unclear_rate=None
    )
    assert any(
        f"unclear from {threshold.unclear:.6g} on" in line for line in expectations(threshold, pseudo_found=None)
    )


def test_unclear_that_is_not_below_the_threshold_is_left_out_and_said(caplog):
    f1 = Threshold(value=0.2, method="f1", images=4)
    assert with_unclear(f1, [0.1, 0.3, 0.3], [0, 1, 2], unclear_rate=0.5) == f1
    assert "NO UNCLEAR" in caplog.text
    assert "more parts" not in caplog.text  # they do not move a threshold by F1
    found = with_unclear(f1, [0.1] * 9 + [0.3], range(10), unclear_rate=0.5)
    assert found.unclear == pytest.approx(0.1)


def test_f1_of_parts_has_a_wider_interval_than_of_pictures():
    scores, parts = clustered(np.random.default_rng(10), parts=30, pictures=6, within=0.2)
    defective = parts % 2 == 1
    scores = np.where(defective, np.sqrt(scores), scores)
    found = {}
    for name, numbers in {"part": parts, "picture": np.arange(len(scores))}.items():
        chosen = f1_optimal(scores, defective, numbers)
        change = threshold_change(None, chosen, scores=scores, defective=defective, parts=numbers)
        assert change.f1_interval[0] < change.f1 < change.f1_interval[1]
        found[name] = change.f1_interval[1] - change.f1_interval[0]
        assert f"F1 on these pictures: {change.f1:.3f}" in "\n".join(change.lines())
    assert found["part"] > 1.2 * found["picture"]


def test_share_of_pseudo_anomalies_is_told():
    threshold = of_single_parts([0.1] * 30, false_alarm_rate=0.1)
    change = threshold_change(
        None, threshold, scores=[0.1] * 30, defective=[False] * 30, parts=range(30), pseudo_found=(30, 40)
    )
    assert change.f1 is None
    assert "pseudo anomalies found: 75 % of 40" in "\n".join(change.lines())
