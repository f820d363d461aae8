"""The frontier as a picture: accuracy against latency."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.frontier import DECISIVE, Point, on_frontier
from stlm_edge.errors import OutputError
from stlm_edge.files import require_place, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")

COLOURS = {"fp32": "#0072B2", "fp16": "#E69F00", "bf16": "#009E73", "int8": "#CC79A7"}
"""Of Okabe and Ito's, which colour-blind people can tell apart."""

INK, GREY = "#262A30", "#8A8F98"

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "text.color": INK,
    "svg.fonttype": "none",  # text stays text
}

_LABELS = {
    "fp32": ((0, 6), "center", "bottom"),
    "fp16": ((7, 0), "left", "center"),
    "bf16": ((7, 0), "left", "center"),
    "int8": ((0, -7), "center", "top"),
}
"""Where the label of a precision stands, in points from its mark: those of one size lie beside each other."""


def require_plot_place(path: Path) -> None:
    """Before minutes of work: raises `OutputError` if the suffix is no format here or nothing can be written there."""
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path} has the suffix {path.suffix!r}, expected {' or '.join(SUFFIXES)}; rename the plot")
    if importlib.util.find_spec("matplotlib") is None:
        raise OutputError(
            f"{path} cannot be drawn, found no matplotlib and expected it for a plot; pip install matplotlib, or leave "
            "--plot out"
        )
    require_place(path)


def write_plot(path: Path, points: Sequence[Point], *, title: str) -> None:
    """Draw a panel for each decisive figure.

    Colour is precision. Hollow points run at another size than their weights were trained at, crosses are not verified;
    the line is the best that can be had in a time. Raises `OutputError`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 4.8), dpi=120, layout="constrained")
        for axes, (metric, name) in zip(figure.subplots(1, 2), DECISIVE.items(), strict=True):
            _draw(axes, points, metric)
            axes.set_title(f"{name}, %")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), frameon=False)
        figure.suptitle(title, fontsize=9, color=INK)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:])
    write_bytes(path, drawn.getvalue())


def _draw(axes: Axes, points: Sequence[Point], metric: str) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    best = [point for point in points if on_frontier(point, points)]
    # From one point to the next that is better by this figure; the others are there for the other one.
    rising = [
        point
        for point in sorted(best, key=lambda point: point.p50_ms)
        if all(point.figure(metric) > other.figure(metric) for other in best if other.p50_ms < point.p50_ms)
    ]
    axes.plot(
        [point.p50_ms for point in rising],
        [100 * point.figure(metric) for point in rising],
        color=GREY,
        linewidth=1,
        drawstyle="steps-post",
        zorder=1,
        label="frontier",
    )
    for point in points:
        if point.figures[metric] is not None:
            _draw_point(axes, point, metric)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    spread = [point.p50_ms for point in points]
    axes.set_xlim(min(spread) / 1.25, max(spread) * 1.45)
    axes.set_xticks(_ticks(min(spread) / 1.25, max(spread) * 1.45))
    axes.set_xlabel("from frame to verdict, ms (p50)")
    axes.margins(y=0.15)


def _draw_point(axes: Axes, point: Point, metric: str) -> None:
    candidate = point.candidate
    colour = COLOURS[candidate.precision]
    is_resized = candidate.trained_at not in (None, candidate.input_size)
    if not candidate.verified:
        marker, fill, label = "x", colour, "not verified"
    elif is_resized:
        marker, fill, label = "o", "white", f"{candidate.precision}, trained at another size"
    else:
        marker, fill, label = "o", colour, candidate.precision
    place = (point.p50_ms, 100 * point.figure(metric))
    axes.scatter(
        *place,
        s=46,
        marker=marker,
        color=colour,
        facecolors=fill if marker == "o" else None,
        linewidths=1.5,
        zorder=2,
        label=label,
    )
    height, width = candidate.input_size
    size = str(height) if height == width else f"{height} x {width}"
    shift, sideways, upright = _LABELS[candidate.precision]
    axes.annotate(
        f"{size} {candidate.precision}",
        place,
        xytext=shift,
        textcoords="offset points",
        ha=sideways,
        va=upright,
        fontsize=8,
        color=INK,
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade within an interval."""
    steps = (mantissa * 10.0**exponent for exponent in range(-3, 7) for mantissa in (1, 2, 5))
    return [step for step in steps if low <= step <= high]
