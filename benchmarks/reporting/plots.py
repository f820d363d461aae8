"""The three forms that the report's figures have: points, bars and distributions, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise, product
from statistics import quantiles

from benchmarks.reporting.axes import (
    LETTER,
    TEXT,
    WIDTH,
    Scale,
    bottom_axis,
    frame,
    line,
    linear_scale,
    log_scale,
    polyline,
    shortened,
    svg,
    text,
)
from benchmarks.reporting.tables import figure

_LEFT, _RIGHT, _TOP = 52, 16, 34
_AXIS = 48
"""Room below a plot for its ticks and label."""

_HALF = 0.62 * TEXT
"""Of the height of a label, with a little room."""

_BINS = 90

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """Attributes: radius: on the page; css: the class that gives its colour; hint: what a pointer upon it shows."""

    x: float
    y: float
    label: str
    css: str
    hint: str
    radius: float = 6.0
    is_cross: bool = False


@dataclass(frozen=True)
class Bar:
    """Attributes: inner: a second, shorter bar upon the first; low, high: of a whisker."""

    label: str
    value: float
    words: str
    css: str
    inner: float | None = None
    low: float | None = None
    high: float | None = None


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    is_log: bool = False,
    height: float = 340,
) -> str:
    """Labelled points over a logarithmic horizontal axis.

    Args:
        lines: class and corners of each; they count when the axes are chosen.
        is_log: the vertical axis too.
    """
    corners = [corner for _, places in lines for corner in places]
    xs = [point.x for point in points] + [corner[0] for corner in corners]
    ys = [point.y for point in points] + [corner[1] for corner in corners]
    x = log_scale(xs, start=_LEFT, stop=WIDTH - _RIGHT, margin=1.7)  # room for labels
    make = log_scale if is_log else linear_scale
    y = make(ys, start=height - _AXIS, stop=_TOP)
    parts = frame(x, y, x_label=x_label, y_label=y_label)
    parts += [polyline([(x(a), y(b)) for a, b in places], css=css) for css, places in lines]
    for point in sorted(points, key=lambda point: -point.radius):  # small ones upon large ones
        parts.append(_mark(point, x(point.x), y(point.y)))
    parts += _labels(points, [[(x(a), y(b)) for a, b in places] for _, places in lines], x, y)
    said = "; ".join(point.hint for point in points)
    return svg(parts, height=height, title=title, description=said)


def _mark(point: Point, x: float, y: float) -> str:
    hint = f"<title>{escape(point.hint)}</title>"
    if point.is_cross:
        arm = point.radius
        path = f"M{x - arm:.1f} {y - arm:.1f}l{2 * arm:.1f} {2 * arm:.1f}m0 {-2 * arm:.1f}l{-2 * arm:.1f} {2 * arm:.1f}"
        return f'<path class="cross {point.css}" d="{path}">{hint}</path>'
    return f'<circle class="dot {point.css}" cx="{x:.1f}" cy="{y:.1f}" r="{point.radius:.1f}">{hint}</circle>'


def _labels(points: Sequence[Point], lines: Sequence[Sequence[tuple[float, float]]], x: Scale, y: Scale) -> list[str]:
    """Each label where it covers the least of marks, lines and other labels; a thin line leads to it if it is far."""
    marks = [_around(x(p.x), y(p.y), p.radius) for p in points]
    marks += [_around(*place, 4.0) for places in lines for place in _along(places)]
    taken: list[Box] = []
    parts = []
    for point in sorted(points, key=lambda point: -point.radius):
        width = LETTER * len(point.label) + 6
        choices = []
        for distance, (side, height) in product((2, 14, 30, 50), product((1, -1, 0), (0, -1, 1, -0.5, 0.5))):
            if side == height == 0:
                continue
            reach = point.radius + distance
            middle = x(point.x) + side * (reach + width / 2) * (0.75 if height in (1, -1) and side else 1)
            base = y(point.y) + height * (reach + TEXT / 2)
            box = (middle - width / 2, base - _HALF, middle + width / 2, base + _HALF)
            covered = 4 * sum(_common(box, mark) for mark in marks) + 50 * _outside(box, x, y)
            covered += 2 * sum(_common(box, other) for other in taken)
            own = math.hypot(middle - x(point.x), base - y(point.y))
            nearer = sum(math.hypot(middle - x(p.x), base - y(p.y)) < own for p in points if p is not point)
            choices.append((covered + 300 * nearer + 2 * distance, distance, box))
        _, distance, box = min(choices)
        taken.append(box)
        middle, base = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if distance > 14:
            parts.append(line(x(point.x), y(point.y), middle, base, css="lead"))
        parts.append(text(middle, base + 5, point.label, css="name", anchor="middle"))
    return parts


def _along(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places on a line, near to each other."""
    found = []
    for (x1, y1), (x2, y2) in pairwise(places):
        count = max(int(math.hypot(x2 - x1, y2 - y1) / 6), 1)
        found += [(x1 + (x2 - x1) * i / count, y1 + (y2 - y1) * i / count) for i in range(count + 1)]
    return found


def _around(x: float, y: float, radius: float) -> Box:
    side = max(0.85 * radius, 4.0)
    return (x - side, y - side, x + side, y + side)


def _common(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def _outside(box: Box, x: Scale, y: Scale) -> float:
    return max(x.start - box[0], 0) + max(box[2] - x.stop - 8, 0) + max(y.stop - box[1], 0) + max(box[3] - y.start, 0)


def bars(rows: Sequence[Bar], *, title: str, x_label: str) -> str:
    """Bars from nought, each with its name above and its figure behind it."""
    step, thick = 46, 16
    bottom = 8 + step * len(rows)
    longest = max(max(row.value, row.high or 0.0) for row in rows)
    room = max(LETTER * len(row.words) for row in rows) + 14
    x = Scale(0, longest, 8, max(WIDTH - _RIGHT - room, WIDTH / 2))
    parts = bottom_axis(x, bottom=bottom, top=8, label=x_label)
    for index, row in enumerate(rows):
        top = 8 + step * index + 20
        end = x(row.value)
        parts.append(text(8, top - 5, shortened(row.label, width=WIDTH - 16), css="name"))
        parts.append(_bar(row.css, x.start, top, end, thick, f"{row.label}: {row.words}"))
        if row.inner is not None:
            parts.append(_bar("inner", x.start, top + thick / 4, x(row.inner), thick / 2, row.words))
        if row.low is not None and row.high is not None:
            parts.append(line(x(row.low), top + thick / 2, x(row.high), top + thick / 2, css="whisker"))
            end = max(end, x(row.high))
        parts.append(text(end + 6, top + thick - 3, row.words, css="value"))
    said = "; ".join(f"{row.label}: {row.words}" for row in rows)
    return svg(parts, height=bottom + _AXIS, title=title, description=said)


def _bar(css: str, x: float, y: float, end: float, thick: float, hint: str) -> str:
    return (
        f'<rect class="bar {css}" x="{x:.1f}" y="{y:.1f}" width="{max(end - x, 0.5):.1f}" height="{thick:.1f}">'
        f"<title>{escape(hint)}</title></rect>"
    )


def distributions(rows: Sequence[tuple[str, Sequence[float], str]], *, title: str, x_label: str) -> str:
    """How often which time was, a hill for each row of name, samples and class; with median, p95 and p99 below it."""
    step, tall = 66, 34
    bottom = 8 + step * len(rows)
    x = log_scale([value for _, samples, _ in rows for value in samples], start=12, stop=WIDTH - _RIGHT, margin=1.1)
    parts = bottom_axis(x, bottom=bottom, top=8, label=x_label)
    said = []
    for index, (name, samples, css) in enumerate(rows):
        base = 8 + step * index + 58
        ranks = quantiles(samples, n=100, method="inclusive") if len(samples) > 1 else list(samples) * 99
        middle, late, last = ranks[49], ranks[94], ranks[98]
        figures = f"{figure(middle)} / {figure(late)} / {figure(last)} ms"
        said.append(f"{name}: p50 / p95 / p99 {figures}")
        parts.append(text(12, base - tall - 6, shortened(name, width=WIDTH - 220), css="name"))
        parts.append(text(WIDTH - _RIGHT, base - tall - 6, figures, css="value", anchor="end"))
        parts.append(_hill(samples, x, base, tall, css, hint=said[-1]))
        for place, mark in ((middle, 9), (late, 6), (last, 6)):
            parts.append(line(x(place), base - 3, x(place), base + mark, css="whisker"))
    return svg(parts, height=bottom + _AXIS, title=title, description="; ".join(said))


def _hill(samples: Sequence[float], x: Scale, base: float, tall: float, css: str, *, hint: str) -> str:
    """A histogram over the page, smoothed by its neighbours."""
    wide = (x.stop - x.start) / _BINS
    counts = [0] * _BINS
    for value in samples:
        counts[min(max(math.floor((x(value) - x.start) / wide), 0), _BINS - 1)] += 1
    padded = [0, *counts, 0]
    smooth = [(padded[i] + 2 * padded[i + 1] + padded[i + 2]) / 4 for i in range(_BINS)]
    peak = max(smooth)
    corners = " ".join(f"{x.start + (i + 0.5) * wide:.1f},{base - tall * c / peak:.1f}" for i, c in enumerate(smooth))
    return (
        f'<polygon class="hill {css}" points="{x.start:.1f},{base:.1f} {corners} {x.stop:.1f},{base:.1f}">'
        f"<title>{escape(hint)}</title></polygon>"
    )
