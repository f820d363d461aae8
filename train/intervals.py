"""Between which values a model's figures lie, by drawing the test's parts again: what other parts would give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stlm_edge.datasets import GOOD
from stlm_edge.metrics import QualityMeter
from stlm_edge.resampling import Histograms, Judged, Values, draw_weights
from train.evaluation import Intervals, Scored, Scores

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class _Pictures:
    """The meter's pictures, each enlarged when it is asked for."""

    meter: QualityMeter
    kinds: Sequence[str]
    parts: Sequence[str]

    def __len__(self) -> int:
        return len(self.kinds)

    def __iter__(self) -> Iterator[Judged]:
        for index, (kind, part) in enumerate(zip(self.kinds, self.parts, strict=True)):
            yield Judged(kind, part, *self.meter.picture(index))


def intervals(
    meter: QualityMeter, pictures: Sequence[Scored], parts: Sequence[str], *, threshold: float, overall: Scores
) -> Intervals:
    """95 % by a bootstrap over parts, see `stlm_edge.resampling`.

    Args:
        meter: has taken in the pictures in their order.
        parts: of each picture.
        overall: what is undefined there is so here.
    """
    kinds = [picture.sample.label for picture in pictures]
    weights = draw_weights(kinds, parts, resamples=RESAMPLES)
    draws = {
        name: values
        for name, values in Histograms(_Pictures(meter, kinds, parts)).figures(weights).items()
        if not math.isnan(getattr(overall, name))
    }
    defective = np.array([kind != GOOD for kind in kinds])
    anomalous = np.array([picture.score >= threshold for picture in pictures])
    found = np.array([picture.score >= threshold and picture.peak_in_mask is not None for picture in pictures])
    right = np.array([picture.peak_in_mask is True for picture in pictures])
    found_spans = {name: _interval(values) for name, values in draws.items() if not np.isnan(values).all()}
    for name, chosen, of in (
        ("missed_share", defective & ~anomalous, defective),
        ("false_alarm_share", ~defective & anomalous, ~defective),
        ("peak_in_mask_share", found & right, found),
    ):
        if of.any():
            found_spans[name] = _share_interval(weights, chosen, of=of, parts=parts)
    return Intervals(parts=len(set(parts)), figures=found_spans)


def _share_interval(
    weights: Values, chosen: np.ndarray, *, of: np.ndarray, parts: Sequence[str]
) -> tuple[float, float]:
    """Of the share of the chosen among some pictures.

    Where none is chosen, or each, all draws say the same, as if that were certain. Then the interval is that of
    counting: with a true share of p, none of n parts would show it with probability (1 - p)^n (Clopper and Pearson
    1934).
    """
    count = len({part for part, is_one in zip(parts, of, strict=True) if is_one})
    surely = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
    if not chosen.any():
        return 0.0, surely
    if chosen[of].all():
        return 1 - surely, 1.0
    total = weights @ of
    return _interval(np.divide(weights @ chosen, total, out=np.full(len(total), np.nan), where=total > 0))


def _interval(values: Values) -> tuple[float, float]:
    low, high = np.nanquantile(values, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)
