from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.errors import DataError
from stlm_edge.scoring import is_anomalous
from train.threshold import good_quantile


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
