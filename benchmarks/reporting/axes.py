"""Scales with round ticks, and the frame of a plot, as SVG whose colours the page's style sheet decides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 460
"""Of all plots, in units of which a phone shows about 0.75 pixels, so that text of 14 can be read there."""

TEXT = 14
LETTER = 0.56 * TEXT
"""About the mean width of a letter."""


@dataclass(frozen=True)
class Scale:
    """From a figure to a place on the page.

    Attributes:
        low, high: the range of figures; positive where it is logarithmic.
        start, stop: the places of the two.
    """

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round figures within the range: 1, 2 and 5 of each decade, or steps of such."""
        if self.is_log:
            marks = _decades(self.low, self.high, (1, 2, 5))
            return marks if len(marks) <= 7 else _decades(self.low, self.high, (1,))
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 10) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def log_scale(values: Iterable[float], *, start: float, stop: float, margin: float = 1.4) -> Scale:
    """Over all positive `values` and a little beyond; two ticks at least lie within it."""
    found = list(values)
    low, high = min(found) / margin, max(found) * margin
    if high / low < 5:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(5), middle * math.sqrt(5)
    return Scale(low, high, start, stop, is_log=True)


def linear_scale(values: Iterable[float], *, start: float, stop: float, least: float = 1.0) -> Scale:
    """Over all `values` and a tenth beyond; at least `least` wide."""
    found = list(values)
    width = max(max(found) - min(found), least)
    middle = (max(found) + min(found)) / 2
    return Scale(middle - 0.6 * width, middle + 0.6 * width, start, stop)


def tick_text(value: float) -> str:
    """A tick's figure, without noughts that say nothing."""
    return f"{value:g}" if abs(value) < 1e5 else f"{value:.0e}".replace("e+0", "e")


def frame(x: Scale, y: Scale, *, x_label: str, y_label: str) -> list[str]:
    """Grid, ticks and labels; the vertical axis' label stands above it, where it can be read without turning."""
    left, right, bottom, top = x.start, x.stop, y.start, y.stop
    parts = [text(left, top - 14, y_label, css="label")]
    for tick in y.ticks():
        parts += [line(left, y(tick), right, y(tick), css="grid")]
        parts += [text(left - 6, y(tick) + 5, tick_text(tick), css="tick", anchor="end")]
    parts += bottom_axis(x, bottom=bottom, top=top, label=x_label)
    return parts


def bottom_axis(x: Scale, *, bottom: float, top: float, label: str) -> list[str]:
    """The horizontal axis with its grid and label, which stands 40 below."""
    parts = []
    for tick in x.ticks():
        parts += [line(x(tick), bottom, x(tick), top, css="grid")]
        parts += [text(x(tick), bottom + 18, tick_text(tick), css="tick", anchor="middle")]
    parts += [line(x.start, bottom, x.stop, bottom, css="axis")]
    parts += [text(x.stop, bottom + 38, label, css="label", anchor="end")]
    return parts


def svg(parts: Sequence[str], *, height: float, title: str, description: str) -> str:
    """A picture that a screen reader reads out."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(f"{title}. {description}")}">'
        + "".join(parts)
        + "</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, *, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, words: str, *, css: str = "", anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def polyline(places: Sequence[tuple[float, float]], *, css: str) -> str:
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{css}" points="{corners}"/>'


def shortened(words: str, *, width: float) -> str:
    """`words`, as far as they fit."""
    room = int(width / LETTER)
    return words if len(words) <= room else words[: room - 1].rstrip() + "…"


def _decades(low: float, high: float, factors: Sequence[int]) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]


def _round_step(step: float) -> float:
    decade = 10.0 ** math.floor(math.log10(step))
    return next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= step * (1 - 1e-9))
