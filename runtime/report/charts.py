"""The charts of a shift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from runtime.part import VERDICTS
from runtime.report.tally import GRID, Tally, Units
from stlm_edge.html import COLOURS, add_legend, chart, new_figure

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")

_MOST_HOURS, _MOST_DAYS = 48, 62
_BINS = 60
_MOST_LINES = 4
_LONGEST_AXIS = 16
_HEAT = LinearSegmentedColormap.from_list("heat", [(0.9, 0.28, 0.3, 0.0), (0.9, 0.28, 0.3, 1.0)])


class Periods:
    """Hours, days or months, by this machine's time, as many as can be told apart.

    Attributes:
        kind: `hour`, `day` or `month`.
        labels: of each, from the first to the last.
    """

    def __init__(self, hours: Sequence[str]) -> None:
        """Args: hours: UTC, as `2026-11-25T22`; at least one."""
        first, last = _utc(min(hours)), _utc(max(hours))
        count = int((last - first) / timedelta(hours=1)) + 1
        self.kind = "hour" if count <= _MOST_HOURS else "day" if count <= 24 * _MOST_DAYS else "month"
        steps = [first + timedelta(hours=step) for step in range(count)] if self.kind != "month" else map(_utc, hours)
        keys = sorted({self._key(step) for step in steps})
        self.labels = [self._label(key, keys[place - 1] if place else "") for place, key in enumerate(keys)]
        self._places = {key: place for place, key in enumerate(keys)}

    def place(self, time: str) -> int:
        """Which of them an hour, or a time, is in."""
        return self._places[self._key(_utc(time[:13]))]

    def has(self, time: str) -> bool:
        """Whether a time is in one of them."""
        return self._key(_utc(time[:13])) in self._places

    def _key(self, time: datetime) -> str:
        length = {"hour": 16, "day": 10, "month": 7}[self.kind]
        return time.astimezone().isoformat(timespec="minutes")[:length]

    def _label(self, key: str, before: str) -> str:
        if self.kind != "hour":
            return key[5:] if self.kind == "day" and before else key
        return key[11:] if key[:10] == before[:10] else f"{key[11:]}\n{key[:10]}"


def by_time(units: Units, periods: Periods, *, noun: str) -> Markup:
    """How many of each verdict came when."""
    counts = np.zeros((len(VERDICTS), len(periods.labels)))
    for hour, verdicts in units.hours.items():
        for verdict, count in verdicts.items():
            counts[VERDICTS.index(verdict), periods.place(hour)] += count
    figure, axes = new_figure()
    bottom = np.zeros(len(periods.labels))
    for verdict, row in zip(VERDICTS, counts, strict=True):
        if row.any():
            axes.bar(range(len(row)), row, 0.8, bottom, color=COLOURS[verdict], label=verdict)
            bottom += row
    _time_axis(axes, periods)
    axes.set_ylabel(f"{noun} an hour" if periods.kind == "hour" else f"{noun} a {periods.kind}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    add_legend(axes)
    return chart(figure, name="time", text=f"{noun} by verdict and {periods.kind}")


def by_score(tally: Tally) -> Markup | None:
    """Histogram of the scores, on a logarithmic scale; None where there are none."""
    units = tally.units
    verdicts = [verdict for verdict in VERDICTS if units.scores.get(verdict)]
    if not verdicts:
        return None
    values = {each: np.array(list(units.scores[each])) for each in verdicts}
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    figure, axes = new_figure()
    bottom = np.zeros(_BINS)
    for verdict in verdicts:
        heights, _ = np.histogram(values[verdict], edges, weights=np.array(list(units.scores[verdict].values())))
        axes.bar(edges[:-1], heights, np.diff(edges), bottom, align="edge", color=COLOURS[verdict], label=verdict)
        bottom += heights
    axes.set_yscale("log")
    axes.set_ylim(0.7, bottom.max() * 2)
    for score, text in _thresholds(tally):
        axes.axvline(
            score, color=COLOURS["ink"], linewidth=1, linestyle="--" if text == "threshold" else ":", label=text
        )
    axes.set_xlabel("score")
    axes.set_ylabel("how many")
    add_legend(axes)
    return chart(figure, name="scores", text="histogram of the scores by verdict, with thresholds")


def good_scores(tally: Tally, periods: Periods) -> Markup | None:
    """Mean score of the good ones over time, and when the line said that scores drift; None where there are none."""
    units = tally.units
    sums = np.zeros((2, len(periods.labels)))
    for hour, (count, total) in units.good.items():
        sums[:, periods.place(hour)] += count, total
    if not sums[0].any():
        return None
    means = np.divide(sums[1], sums[0], out=np.full(len(periods.labels), np.nan), where=sums[0] > 0)
    figure, axes = new_figure(height=2.2)
    axes.plot(range(len(means)), means, color=COLOURS["good"], marker="o", markersize=4, label="mean of the good ones")
    for score, text in _thresholds(tally):
        axes.axhline(
            score, color=COLOURS["ink"], linewidth=1, linestyle="--" if text == "threshold" else ":", label=text
        )
    for kind, style in (("drift", "-"), ("drift-over", ":")):
        places = {periods.place(time) for time, each in tally.drift if each == kind and periods.has(time)}
        for number, place in enumerate(sorted(places)):
            label = None if number else kind
            axes.axvline(place, color=COLOURS["fault"], linewidth=2, linestyle=style, label=label)
    _time_axis(axes, periods)
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(means))))
    axes.set_ylabel("score")
    add_legend(axes)
    return chart(figure, name="good", text=f"mean score of the good ones by {periods.kind}")


def heat(units: Units) -> Markup:
    """Where on the frame the regions lie."""
    (height, width), _ = units.frame_sizes.most_common(1)[0]
    scale = 3.4 / max(height, width)
    figure, axes = new_figure(width=max(1.6, width * scale) + 0.2, height=max(1.0, height * scale) + 0.2)
    axes.grid(visible=False)
    axes.imshow(units.centres, cmap=_HEAT, aspect="auto", interpolation="nearest")
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    axes.set_xticks([])
    axes.set_yticks([])
    for third in (1, 2):
        axes.axhline(third * GRID / 3 - 0.5, color=COLOURS["line"], linewidth=0.8)
        axes.axvline(third * GRID / 3 - 0.5, color=COLOURS["line"], linewidth=0.8)
    return chart(figure, name="heat", text="where on the frame the regions lie")


def pareto(units: Units) -> Markup:
    """The nine places of the frame by how many regions lie there, most first, and their sum so far."""
    places: Counter[str] = Counter()
    for down in range(3):
        for across in range(3):
            rows, columns = (np.arange(GRID) * 3 // GRID == third for third in (down, across))
            places[PLACES[3 * down + across]] = int(units.centres[np.ix_(rows, columns)].sum())
    found = [(name, count) for name, count in places.most_common() if count]
    total = sum(count for _, count in found)
    figure, axes = new_figure(width=4.2, height=0.32 * len(found) + 0.6)
    names = [name for name, _ in found]
    axes.grid(visible=False)
    axes.barh(names, [count for _, count in found], color=COLOURS["reject"])
    so_far = 0
    for place, (_, count) in enumerate(found):
        so_far += count
        axes.text(count, place, f" {count}, {so_far / total:.0%} so far", va="center", color=COLOURS["ink"])
    axes.invert_yaxis()
    axes.set_xlim(0, found[0][1] * 1.5)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return chart(figure, name="pareto", text="regions by their place on the frame, most first")


def _time_axis(axes: object, periods: Periods) -> None:
    step = -(-len(periods.labels) // _LONGEST_AXIS)
    places = range(0, len(periods.labels), step)
    axes.set_xticks(list(places), [periods.labels[place] for place in places])  # type: ignore[attr-defined]


def _thresholds(tally: Tally) -> list[tuple[float, str]]:
    """Those that most were judged by, each by its name for the first time."""
    of_units = tally.units.thresholds.most_common(_MOST_LINES)
    of_frames = tally.frames.thresholds.most_common(_MOST_LINES)  # which alone tell the lower one
    upper = sorted({threshold for (threshold, _), _ in of_units})
    lower = sorted({least for (_, least), _ in of_frames if least is not None})
    return [
        (value, name if not place else "_")
        for name, values in (("threshold", upper), ("unclear from", lower))
        for place, value in enumerate(values)
    ]


def _utc(hour: str) -> datetime:
    return datetime.fromisoformat(f"{hour}:00").replace(tzinfo=timezone.utc)
