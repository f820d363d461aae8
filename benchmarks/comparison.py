"""The table of the bar and of trained models: figures, their 95 % intervals, and what the models gain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.intervals import METRICS, Resampled, interval

HEADS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "pixel_ap": "pixel AP"}

BAR = "bar"
MODEL = "model"
GAIN = "gain"


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval over parts.

    Attributes:
        value: of all pictures; for several models their mean.
        low, high: of the 95 % interval.
        spread: standard deviation over the models, None for fewer than two.
    """

    value: float
    low: float
    high: float
    spread: float | None


@dataclass(frozen=True)
class Row:
    """The estimates, by metric, of one method over the good pictures and those with one kind of defect.

    Attributes:
        method: `bar`, `model` (the mean of all that were given) or `gain` (model minus bar).
        images, groups: pictures and parts, good ones among them.
    """

    method: str
    kind: str
    images: int
    groups: int
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """Attributes: largest_bin_error: between an exact pixel metric and the one that the intervals are made with."""

    rows: tuple[Row, ...]
    largest_bin_error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; an undefined figure is null."""
        values = dataclasses.asdict(self)
        for row in values["rows"]:
            for estimate in row["estimates"].values():
                for name, value in estimate.items():
                    if value is not None:
                        estimate[name] = None if math.isnan(value) else round(value, 4)
        return values


def compare(bar: Mapping[str, Resampled], models: Sequence[Mapping[str, Resampled]]) -> Comparison:
    """Args: bar, models: of the same pictures, resampled with one seed."""
    methods = {BAR: [bar]}
    if models:
        methods |= {MODEL: list(models), GAIN: list(models)}
    rows = [
        Row(
            method=method,
            kind=kind,
            images=bar[kind].images,
            groups=bar[kind].groups,
            estimates={
                metric: _estimate(
                    [result[kind] for result in results], metric, minus=bar[kind] if method == GAIN else None
                )
                for metric in METRICS
            },
        )
        for method, results in methods.items()
        for kind in bar
    ]
    everything = [entry for results in ([bar], models) for result in results for entry in result.values()]
    errors = [abs(getattr(entry.exact, m) - getattr(entry.binned, m)) for entry in everything for m in METRICS]
    return Comparison(tuple(rows), float(np.nanmax(errors)))


def table(comparison: Comparison) -> str:
    """The comparison as text, %: `value [low, high]`, and `± spread` where there are several models."""
    lines = [f"{'':<7}{'':<16}{'images':>7}{'parts':>7}" + "".join(f"{HEADS[metric]:>28}" for metric in METRICS)]
    for row in comparison.rows:
        cells = "".join(f"{_cell(row.estimates[metric], signed=row.method == GAIN):>28}" for metric in METRICS)
        lines.append(f"{row.method:<7}{row.kind:<16}{row.images:>7}{row.groups:>7}{cells}")
    return "\n".join(lines)


def _estimate(results: Sequence[Resampled], metric: str, *, minus: Resampled | None) -> Estimate:
    """The mean of the models in each draw, so that the interval is over parts and not over seeds."""
    values = np.array([getattr(result.exact, metric) for result in results])
    draws = np.mean([getattr(result.draws, metric) for result in results], axis=0)
    value = float(values.mean())
    if minus is not None:
        draws = draws - getattr(minus.draws, metric)
        value -= getattr(minus.exact, metric)
    low, high = interval(draws)
    return Estimate(value, low, high, float(values.std(ddof=1)) if len(values) > 1 else None)


def _cell(estimate: Estimate, *, signed: bool) -> str:
    if math.isnan(estimate.value):
        return "-"
    sign = "+" if signed else ""
    text = f"{100 * estimate.value:{sign}.1f} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"
    return text if estimate.spread is None or signed else f"{text} ± {100 * estimate.spread:.1f}"
