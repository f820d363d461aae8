"""Whether a figure got worse between two measurements, or only looks so.

The turns of one run share its conditions: what else the machine does, its clocks, where the memory of the process came
to lie. So an interval over turns is too narrow: of the measures of unchanged runs on a busy machine it called 24 %
worse. A verdict needs two things, the whole interval beyond the floor, and hardly a turn of one side that reaches the
other's (10 %); and on a shared machine several runs of each side, which the interval is over then (three: none of 238).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Better, Measure
from stlm_edge.errors import DataError

Values = NDArray[np.float64]

FLOOR = 0.02
"""A change of less is not told from none: where a process's memory lies, which differs from run to run and not from
turn to turn, moves times by about as much."""

OVERLAP = 0.025
"""Of all pairs of a turn of one side with one of the other, so many at most may be the other way round."""

FEWEST_TURNS = 5
"""Below that the interval is that of all pairs of turns, since draws from so few hardly differ."""

RESAMPLES = 4000

Verdict = Literal["slower", "faster", "worse", "better", "same", "no ratio", "vanished", "new"]

_SPEED = re.compile(r"[mµn]?s|.+/s")
"""Units of speed: `ms`, `frames/s`."""


@dataclass(frozen=True)
class Change:
    """What became of a measure.

    Attributes:
        old, new: medians over the turns; None on the side that lacks it.
        ratio: new / old; None where one is missing or not above zero.
        low, high: of the 95 % interval of the ratio; None of an exact measure, and of a single turn.
        turns: how many of either side.
        verdict: `slower` and `faster` of times and rates, `worse` and `better` of all else; `no ratio` where a value is
            not above zero and differs.
    """

    name: str
    unit: str
    better: Better
    is_exact: bool
    old: float | None
    new: float | None
    ratio: float | None
    low: float | None
    high: float | None
    turns: tuple[int, int]
    verdict: Verdict

    @property
    def is_bad(self) -> bool:
        return self.verdict in ("slower", "worse", "vanished")

    @property
    def loss(self) -> float:
        """How much worse it is, as a logarithm: above 0 worse, below better; infinite where it vanished."""
        if self.verdict == "vanished":
            return math.inf
        if self.ratio is None:
            return {"worse": math.inf, "new": -math.inf}.get(self.verdict, 0.0)
        return _sign(self.better) * math.log(self.ratio)


def changes(old: Sequence[Mapping[str, Measure]], new: Sequence[Mapping[str, Measure]]) -> list[Change]:
    """What became of each measure, the worst first.

    Args:
        old, new: the measures of one run each, or of several runs.
    Raises:
        DataError: if no measure is in both, or one has another unit or direction there.
    """
    before, after = (list(dict.fromkeys(name for run in runs for name in run)) for runs in (old, new))
    if not set(before) & set(after):
        raise DataError(
            f"found the measures {', '.join(before) or 'none'} and {', '.join(after) or 'none'}, expected some in "
            "both; compare two runs of one benchmark"
        )
    found = [
        _change(name, *([run[name] for run in runs if name in run] for runs in (old, new)))
        for name in dict.fromkeys([*before, *after])
    ]
    return sorted(found, key=lambda change: -change.loss)


def _change(name: str, old: Sequence[Measure], new: Sequence[Measure]) -> Change:
    kind = (old or new)[0]
    for measure in (*old, *new):
        if (measure.unit, measure.better, measure.is_exact) != (kind.unit, kind.better, kind.is_exact):
            raise DataError(
                f"{name} is in {kind.unit} ({kind.better} is better) and in {measure.unit} ({measure.better}), "
                "expected one unit and direction; compare runs of the same version of the benchmark"
            )
    before, after = ([np.array(measure.values) for measure in side] for side in (old, new))
    median_old, median_new = (float(np.median(np.concatenate(runs))) if runs else None for runs in (before, after))
    ratio: float | None = None
    span: tuple[float, float] | None = None
    verdict: Verdict = "vanished" if median_new is None else "new"
    if median_old is not None and median_new is not None:
        if min(float(values.min()) for values in (*before, *after)) > 0:
            ratio = median_new / median_old
        if kind.is_exact:
            gain = _sign(kind.better) * (median_old - median_new)
            verdict = "same" if gain == 0 else "better" if gain > 0 else "worse"
        elif ratio is None:
            verdict = "same" if median_old == median_new else "no ratio"
        else:
            span = _interval(before, after)
            verdict = _verdict(kind, before, after, span=span or (ratio, ratio))
    return Change(
        name=name,
        unit=kind.unit,
        better=kind.better,
        is_exact=kind.is_exact,
        old=median_old,
        new=median_new,
        ratio=ratio,
        low=None if span is None else span[0],
        high=None if span is None else span[1],
        turns=(sum(map(len, before)), sum(map(len, after))),
        verdict=verdict,
    )


def _sign(better: Better) -> int:
    """Of the logarithm of a ratio that is worse."""
    return 1 if better == "lower" else -1


def _interval(old: Sequence[Values], new: Sequence[Values]) -> tuple[float, float] | None:
    """Of the ratio of the medians, by drawing runs, and turns within them, again; None for one turn on each side."""
    turns = [sum(map(len, side)) for side in (old, new)]
    if max(turns) == 1:
        return None
    if min(turns) < FEWEST_TURNS:
        ratios = np.divide.outer(np.concatenate(new), np.concatenate(old))
        return float(ratios.min()), float(ratios.max())
    rng = np.random.default_rng(0)
    low, high = np.quantile(_medians(new, rng) / _medians(old, rng), (0.025, 0.975))
    return float(low), float(high)


def _medians(runs: Sequence[Values], rng: np.random.Generator) -> Values:
    """(RESAMPLES,): of each draw, as many turns from each run drawn."""
    lengths = np.array([len(turns) for turns in runs])
    turns = np.zeros((len(runs), lengths.max()))
    for row, values in zip(turns, runs, strict=True):
        row[: len(values)] = values
    drawn = rng.integers(len(runs), size=(RESAMPLES, len(runs), 1))
    places = rng.integers(lengths[drawn], size=(RESAMPLES, len(runs), int(lengths.max())))
    return np.asarray(np.median(turns[drawn, places].reshape(RESAMPLES, -1), axis=1))


def _verdict(kind: Measure, old: Sequence[Values], new: Sequence[Values], *, span: tuple[float, float]) -> Verdict:
    ratios = np.divide.outer(np.concatenate(new), np.concatenate(old))
    if span[0] > 1 + FLOOR and np.mean(ratios <= 1) <= OVERLAP:
        is_worse = kind.better == "lower"
    elif span[1] < 1 / (1 + FLOOR) and np.mean(ratios >= 1) <= OVERLAP:
        is_worse = kind.better == "higher"
    else:
        return "same"
    if _SPEED.fullmatch(kind.unit):
        return "slower" if is_worse else "faster"
    return "worse" if is_worse else "better"
