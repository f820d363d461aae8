"""The model of the tail on distributions that are known: how often alarms come, and how often the interval says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from stlm_edge.thresholds import choose
from stlm_edge.thresholds.tail import fit_tail

RATE = 0.01
TRIALS = 40

# Of the logits of scores: the value that a share of them exceeds, and the share that exceeds a value.
TAILS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "normal": (lambda share: -NormalDist().inv_cdf(share), lambda value: 1 - NormalDist().cdf(value)),
    "logistic": (lambda share: math.log(1 / share - 1), lambda value: 1 / (1 + math.exp(value))),
    "gumbel": (lambda share: -math.log(-math.log1p(-share)), lambda value: -math.expm1(-math.exp(-value))),
    "exponential": (lambda share: -math.log(share), lambda value: min(1.0, math.exp(-value))),
}


def scores_of(kind: str, rng, *, parts: int, pictures: int, alike: float) -> np.ndarray:
    """(parts, pictures) whose logits have the distribution; `alike` is the correlation of pictures of a part."""
    own = rng.normal(size=(parts, pictures))
    normal = math.sqrt(alike) * rng.normal(size=(parts, 1)) + math.sqrt(1 - alike) * own
    exceeded = np.vectorize(lambda value: 1 - NormalDist().cdf(value))(normal)
    logits = np.vectorize(TAILS[kind][0])(exceeded) - 3
    return 1 / (1 + np.exp(-logits))


@pytest.mark.heavy
@pytest.mark.parametrize(("parts", "pictures", "alike"), [(20, 1, 0.0), (50, 4, 0.8)])
def test_modelled_rate_is_nearer_than_counting_and_its_interval_holds_it(parts, pictures, alike):
    rng, inside, rates, counted = np.random.default_rng(0), [], [], []
    for kind, (_, share_above) in TAILS.items():
        for _ in range(TRIALS):
            scores = scores_of(kind, rng, parts=parts, pictures=pictures, alike=alike)
            numbers = np.repeat(np.arange(parts), pictures)
            threshold = choose(scores.ravel().tolist(), numbers.tolist(), false_alarm_rate=RATE)
            assert threshold.modelled
            low, high = threshold.false_alarm_interval
            rate = share_above(math.log(threshold.value / (1 - threshold.value)) + 3)
            inside.append(low <= rate <= high)
            rates.append(rate)
            highest = choose(scores.ravel().tolist(), numbers.tolist(), false_alarm_rate=1.001 / (parts + 1)).value
            counted.append(share_above(math.log(highest / (1 - highest)) + 3))
    assert 0.85 <= np.mean(inside) <= 0.99
    assert RATE / 2 < np.mean(rates) < 2.2 * RATE
    assert np.mean(rates) < 0.85 * np.mean(counted)  # which cannot give less than 1 / (parts + 1)


def test_counted_rate_of_clustered_scores_is_about_what_is_said(monkeypatch):
    monkeypatch.setattr("stlm_edge.thresholds.choice.DRAWS", 10)
    rng, numbers = np.random.default_rng(3), np.repeat(np.arange(39), 4).tolist()
    for alike in (0.0, 0.5, 1.0):
        rates = []
        for _ in range(400):
            own = math.sqrt(1 - alike) * rng.normal(size=(39, 4))
            logits = math.sqrt(alike) * rng.normal(size=(39, 1)) + own
            threshold = choose((1 / (1 + np.exp(-logits))).ravel().tolist(), numbers, false_alarm_rate=0.05)
            assert (threshold.false_alarm_rate, threshold.modelled) == (0.05, False)
            rates.append(1 - NormalDist().cdf(math.log(threshold.value / (1 - threshold.value))))
        assert np.mean(rates) == pytest.approx(0.05, rel=0.2), alike


def test_tail_of_a_known_shape_is_found():
    rng = np.random.default_rng(1)
    for shape in (-0.3, 0.0, 0.3):
        exponential = np.sort(rng.exponential(size=20_000))[::-1]
        scores = exponential if shape == 0 else np.expm1(shape * exponential) / shape
        tail = fit_tail(scores, np.ones((1, scores.size)), parts=scores.size)
        assert tail.shape[0] == pytest.approx(shape, abs=0.06)
        wanted = 1e-4
        truth = -math.log(wanted) if shape == 0 else np.expm1(-shape * math.log(wanted)) / shape
        assert tail.quantile(wanted)[0] == pytest.approx(truth, rel=0.12)
        assert tail.rate(float(tail.quantile(wanted)[0]))[0] == pytest.approx(wanted, rel=1e-6)


def test_scores_near_the_highest_do_not_bend_the_rate():
    """Of scores themselves the tail ends at 1, where most of these lie; of their logits it does not."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=50)
    thresholds = {}
    for shift in (-3, 0, 6):
        scores = 1 / (1 + np.exp(-(logits + shift)))
        value = choose(scores.tolist(), range(50), false_alarm_rate=0.005).value
        thresholds[shift] = math.log(value / (1 - value)) - shift
    assert thresholds[0] == pytest.approx(thresholds[-3], abs=1e-3)
    assert thresholds[6] == pytest.approx(thresholds[-3], abs=1e-2)
