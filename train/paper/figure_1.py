"""Figure 1: accuracy over time, the area of a mark by the number of parameters. Its parts serve pictures like it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from train.paper.methods import GPU, METHODS, SOURCE, STLM
from train.paper.results import Obtained
from train.plots import INK, KIND_COLOURS, STYLE

BLUE, ORANGE = KIND_COLOURS[0], "#E69F00"


def draw_figure_1(obtained: Obtained | None, *, made: str) -> tuple[bytes, str]:
    """The methods of table 1, and a line where the pixel AUROC is that was obtained here, as PNG, with a caption.

    Args:
        obtained: over MVTec AD; drawn if it is of all of its categories. A grid measures no time, so it is a line.
        made: what it was obtained with, in a few words.
    """
    shown = [(m, m.inference_ms, area) for m in METHODS if m.inference_ms and (area := m.mvtec.pixel_auroc) is not None]
    is_whole = obtained is not None and obtained.categories == obtained.expected
    levels = [level for _, _, level in shown] + ([obtained.mean] if is_whole and obtained is not None else [])
    with rc_context(STYLE):
        drawn = Figure(figsize=(8, 5.2), dpi=110, layout="constrained")
        axes = drawn.subplots()
        over_time(axes, [time_ms for _, time_ms, _ in shown], levels)
        axes.set(title=f"MVTec AD, {GPU}", xlabel="ms a picture", ylabel="pixel AUROC, %")
        for method, time_ms, level in shown:
            colour = BLUE if method.name == STLM else ORANGE
            size = mark_area(1e6 * method.parameters_m)
            axes.scatter(time_ms, level, s=size, color=colour, facecolors=colour + "A0", label=method.name)
        if is_whole and obtained is not None:
            axes.axhline(obtained.mean, color=INK, linewidth=1, linestyle="--", zorder=1)
            axes.annotate(
                f"here: {obtained.mean:.2f}  ({made})",
                (1, obtained.mean),
                (-4, 3),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
            )
        drawn.draw_without_rendering()
        label(axes)
        data = io.BytesIO()
        drawn.savefig(data, format="png")
    line = "the dashed line is the pixel AUROC obtained here, of which a grid measures no time"
    if not is_whole:
        line = "what was obtained here is not in it, since it is not of all categories"
    return data.getvalue(), f"Areas are the numbers of parameters; by table 1 of {SOURCE}; {line}."


def mark_area(parameters: float | None) -> float:
    """Of a method's mark, in square points."""
    return 60.0 if parameters is None else 10e-6 * parameters


def over_time(axes: Axes, times_ms: Sequence[float], percents: Sequence[float]) -> None:
    """Axes around the places: time, logarithmic, and percent, a point at least, so that nothing looks like much."""
    axes.set_xlabel("ms a picture (p50)")
    if times_ms:
        logarithmic(axes, min(times_ms), max(times_ms), room=1.6)
        middle, half = (min(percents) + max(percents)) / 2, 0.65 * max(max(percents) - min(percents), 1.0)
        axes.set_ylim(middle - half, middle + half)


def logarithmic(axes: Axes, low: float, high: float, *, room: float) -> None:
    """A horizontal axis around `low` … `high` with ticks that are read as they are: 1, 2 and 5 of each decade."""
    middle, half = math.sqrt(low * high), max(room * math.sqrt(high / low), 2.3)  # two ticks at least
    axes.set_xscale("log")
    axes.set_xlim(middle / half, middle * half)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""To the right and upwards of a mark: where its name may stand, the better ones first."""


def label(axes: Axes) -> None:
    """Write the name of each mark (`scatter` with a label) beside it, where it covers the fewest marks and names.

    The axes must have their final size and limits.
    """
    dot, inside = axes.get_figure(root=True).dpi / 72, axes.get_window_extent()  # type: ignore[union-attr]
    marks, taken = [], []
    for mark in axes.collections:
        if isinstance(mark, PathCollection):
            place, radius = np.asarray(mark.get_offsets())[0], math.sqrt(mark.get_sizes()[0]) / 2
            middle = axes.transData.transform(place)
            marks.append((str(mark.get_label()), place, radius))
            taken.append(Bbox([middle - dot * radius, middle + dot * radius]))
    for name, place, radius in marks:
        text = axes.annotate(name, place, (0, 0), textcoords="offset points", fontsize=10)
        choices = [(side, up, radius + gap) for gap in (3, 14) for side, up in _SIDES]
        covered = []
        for choice in choices:
            box = _moved(text, *choice)
            is_inside = inside.contains(*box.min) and inside.contains(*box.max)
            covered.append(box.count_overlaps(taken) + 2 * (not is_inside))
        taken.append(_moved(text, *choices[covered.index(min(covered))]))


def _moved(text: Annotation, side: int, up: int, far: float) -> Bbox:
    """Put the text to that side of its mark, so many points from its middle; returns where it is."""
    far *= 0.7 if side and up else 1
    text.set_position((side * far, up * far))
    text.set(ha=("center", "left", "right")[side], va=("center", "bottom", "top")[up])
    return text.get_window_extent()
