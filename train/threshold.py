"""A threshold from held-out good pictures: no defect is needed to choose it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from stlm_edge.errors import DataError
from stlm_edge.spec import Threshold

logger = logging.getLogger(__name__)


def good_quantile(scores: Sequence[float], *, false_alarm_rate: float) -> Threshold:
    """The lowest threshold that good pictures reach with at most the wanted probability.

    If held-out and future good pictures come from the same line, the next one scores above the j-th highest of n
    with probability j / (n + 1), whatever the distribution. n pictures cannot promise less than 1 / (n + 1); where
    that is more than wanted the threshold stands above all of them, and a warning says so.

    Args:
        scores: image scores of the held-out good pictures.
        false_alarm_rate: wanted share of good pictures at or above the threshold.
    Raises:
        DataError: if there is no score.
    """
    if not scores:
        raise DataError("found no good picture to choose a threshold with, expected at least one; raise --holdout")
    count = len(scores)
    allowed = math.floor(false_alarm_rate * (count + 1))
    if allowed < 1:
        needed = math.ceil(1 / false_alarm_rate) - 1
        logger.warning(
            "%d held-out good pictures cannot promise a false-alarm rate of %.3g, only %.3g; it takes %d",
            count,
            false_alarm_rate,
            1 / (count + 1),
            needed,
        )
        allowed = 1
    reached = np.float32(sorted(scores)[-allowed])
    return Threshold(
        value=float(np.nextafter(reached, np.float32(np.inf))),
        method="good-quantile",
        images=count,
        false_alarm_rate=allowed / (count + 1),
    )
