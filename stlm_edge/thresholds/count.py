"""What counting alone says of a false-alarm rate, whatever the distribution of the scores."""

from __future__ import annotations

import math

CONFIDENCE = 0.95


def false_alarm_interval(allowed: int, count: int, *, confidence: float) -> tuple[float, float]:
    """Between which rates the true one lies when the threshold is just above the `allowed`-th highest of `count`.

    The share of the distribution above that order statistic is Beta(j, n + 1 - j) distributed, whatever the
    distribution (Wilks 1941); the interval leaves out (1 - confidence) / 2 on either side.

    Args:
        allowed: j, 1 to `count`.
        count: n, held-out good parts.
    """
    tail = (1 - confidence) / 2
    return _beta_quantile(tail, allowed, count), _beta_quantile(1 - tail, allowed, count)


def _beta_quantile(probability: float, successes: int, trials: int) -> float:
    """The rate at which at least `successes` of `trials` happen with `probability`: Beta(j, n + 1 - j)'s quantile."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        if _at_least(successes, trials, rate=middle) < probability:
            low = middle
        else:
            high = middle
    return middle


def _at_least(successes: int, trials: int, *, rate: float) -> float:
    """P(Binomial(trials, rate) >= successes), 0 < rate < 1, summed over the shorter of both tails."""
    upper = trials - successes + 1 <= successes
    counts = range(successes, trials + 1) if upper else range(successes)
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    total = math.fsum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * log_rate
            + (trials - count) * log_rest
        )
        for count in counts
    )
    return total if upper else 1 - total
