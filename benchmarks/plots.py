"""The report's pictures: figure 1, latency and its distribution, accuracy over latency by size and precision.

Colours are Okabe and Ito's, which colour-blind people can tell apart; what matters has a label or another mark as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from benchmarks.record import Record
from benchmarks.tables import INCOMPLETE, Origin, figure, is_peer, size
from stlm_edge.errors import DataError
from train.paper import figures as paper

BLUE, ORANGE, GREEN, PINK, BLACK, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#262A30", "#6B7480"
PRECISIONS = {"fp32": BLUE, "fp16": ORANGE, "bf16": GREEN, "int8": PINK}

METRICS = {"image_auroc": "image AUROC", "aupro": "AUPRO"}
"""Whether a part has a defect, and where it is: what the choice of a size is judged by."""

AREA = 10.0
"""Of a circle for a million parameters, in square points."""

Place = tuple[float, float]
"""Milliseconds and percent."""

_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": BLACK,
    "grid.color": "#E3E6EA",
    "text.color": BLACK,
    "svg.fonttype": "none",  # text stays text
}


@dataclass(frozen=True)
class Method:
    """A method as figure 1 has it.

    Attributes:
        p50_ms: of a picture.
        pixel_auroc: in percent.
        parameters_m: millions; None where they are not known.
    """

    name: str
    is_stlm: bool
    p50_ms: float
    pixel_auroc: float
    parameters_m: float | None

    @property
    def place(self) -> Place:
        return self.p50_ms, self.pixel_auroc

    @property
    def area(self) -> float:
        """Of its mark, in square points."""
        return 60.0 if self.parameters_m is None else AREA * self.parameters_m


@dataclass
class Panel:
    """Of figure 1: what was measured on one device with one data set, and the records that say so."""

    title: str
    methods: list[Method]
    sources: list[Origin]


def figure_1(sources: Sequence[Origin]) -> tuple[bytes, str]:
    """Figure 1 of the paper beside the same of our own: pixel AUROC over time, as PNG, with its caption.

    Each device and each data set has a panel with scales of its own, since they cannot be compared. Raises `DataError`
    if a complete record lacks what is needed.
    """
    methods = [
        Method(m.name, m.name == "STLM", m.inference_ms, m.mvtec.pixel_auroc, m.parameters_m)
        for m in paper.METHODS
        if m.inference_ms is not None and m.mvtec.pixel_auroc is not None
    ]
    ours = sorted(measured_panels(sources), key=lambda panel: panel.title)
    caption = [
        "Areas are the numbers of parameters, and each panel has scales of its own. The first is as printed in table 1 "
        f"of {paper.SOURCE}: nothing of it was measured here. The others are of these records:",
        "",
    ]
    for panel in ours:
        files = [f"{s.path.name}{'' if s.record.is_complete else f' (**{INCOMPLETE}**)'}" for s in panel.sources]
        caption.append(f"- {panel.title.replace(chr(10), '; ')}: {', '.join(files)}")
    return _panels([Panel(f"The paper: MVTec AD, {paper.GPU}", methods, []), *ours]), "\n".join(caption)


def of_record(source: Origin) -> tuple[bytes, str] | None:
    """The picture of a latency or sizes record, as PNG, with its caption; None of others, or if there is none to draw.

    Raises `DataError` if a complete record lacks what is needed.
    """
    record, title = source.record, f"{source.path.name}: {source.record.device}"
    with _unless_incomplete(source):
        if record.benchmark == "latency":
            subjects = [entry for entry in record.details["subjects"] if entry["samples_ms"]]
            if subjects:
                return latency(subjects, title=title), _LATENCY_CAPTION
        if record.benchmark == "sizes" and record.details["points"]:
            return sizes(record.details["points"], title=f"{record.details['data']}; {title}"), _SIZES_CAPTION
    return None


_LATENCY_CAPTION = (
    "How often a picture took how long, with its p50, p95 and p99, and how many times as fast as the first each was: "
    "the median of the turns' ratios, with a line from the lowest to the highest turn."
)
_SIZES_CAPTION = (
    "Hollow marks run at another size than their weights were trained at, crosses are not verified by the gate; the "
    "line is the best that can be had in a time."
)


def measured_panels(sources: Sequence[Origin]) -> Iterable[Panel]:
    """Methods of figure 1 that have accuracy and time in a record, or in two of one device, by device and data set."""
    panels: dict[tuple[str, str], Panel] = {}
    for source in sources:
        partners = [other for other in sources if other.record.device == source.record.device]
        with _unless_incomplete(source):
            for method, other in _methods(source.record, partners):
                device, data = str(source.record.device), source.record.details["data"]
                panel = panels.setdefault((device, data), Panel(f"{data}\n{device}", [], []))
                panel.methods.append(method)
                panel.sources += [s for s in (source, other) if s is not None and s not in panel.sources]
    return panels.values()


def _methods(record: Record, partners: Sequence[Origin]) -> Iterator[tuple[Method, Origin | None]]:
    """Each method of a record, with the other record that it took; of sizes those on the frontier."""
    details = record.details
    if record.benchmark in ("peers", "sizes"):
        for entry in details["methods"] if record.benchmark == "peers" else details["points"]:
            is_shown = record.benchmark == "peers" or entry["on_frontier"]
            if is_shown and entry["p50_ms"] is not None and entry["pixel_auroc"] is not None:
                is_stlm = record.benchmark == "sizes" or not is_peer(entry)
                yield _method(entry, is_stlm, entry["p50_ms"], entry.get("parameters")), None
    elif record.benchmark == "accuracy":
        for other in partners:
            if other.record.benchmark == "latency":
                timed = {_identity(entry): entry for entry in other.record.details["subjects"] if entry["stages"]}
                for entry in details["engines"]:
                    subject = timed.get(_identity(entry))
                    if subject is not None and entry["pixel_auroc"] is not None:
                        yield _method(entry, True, subject["stages"]["total"]["p50_ms"], subject["parameters"]), other


def _method(entry: dict[str, Any], is_stlm: bool, p50_ms: float, parameters: int | None) -> Method:
    millions = None if parameters is None else parameters / 1e6
    return Method(entry["name"], is_stlm, p50_ms, 100 * entry["pixel_auroc"], millions)


def _identity(entry: dict[str, Any]) -> tuple[Any, ...]:
    """What an engine is known by in records of accuracy and of latency: file, library, precision and size."""
    return entry["name"].split(" on ")[0], entry["library"], entry["precision"], tuple(entry["input_size"])


@contextmanager
def _unless_incomplete(source: Origin) -> Iterator[None]:
    """Around code that shows nothing of an incomplete record that lacks what is needed: that one is marked."""
    try:
        with source.read_as_expected():
            yield
    except DataError:
        if source.record.is_complete:
            raise


def _panels(panels: Sequence[Panel]) -> bytes:
    rows = math.ceil(len(panels) / 2)
    with _drawing(13, 5.2 * rows + 0.4) as drawn:
        grid = np.ravel(drawn.subplots(rows, 2, squeeze=False))
        for axes, panel in zip(grid, panels, strict=False):
            _over_time(axes, [method.place for method in panel.methods], title=panel.title)
            axes.set_ylabel("pixel AUROC, %")
            for method in panel.methods:
                colour = BLUE if method.is_stlm else ORANGE
                face = "none" if method.parameters_m is None else colour + "A0"
                axes.scatter(*method.place, s=method.area, facecolors=face, edgecolors=colour, linewidths=1.5)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        keys = [_key("STLM", "o", BLUE), _key("other methods", "o", ORANGE)]
        keys += [_key(f"{count} M parameters", "o", GREY, side=math.sqrt(AREA * count)) for count in (1, 10, 50)]
        if any(method.parameters_m is None for panel in panels for method in panel.methods):
            keys.append(_key("parameters not recorded", "o", GREY, fill="none"))
        _add_legend(drawn, keys)
        for axes, panel in zip(grid, panels, strict=False):
            labels = [(method.place, method.name) for method in panel.methods]
            _label(axes, labels, radii=[math.sqrt(method.area) / 2 for method in panel.methods])
        return _encoded(drawn, "png")


def latency(subjects: Sequence[dict[str, Any]], *, title: str) -> bytes:
    """How often a picture took how long, and how many times as fast as the first each subject was.

    Args:
        subjects: of a latency record, those with samples.
    """
    with _drawing(13, 1.3 + 0.85 * len(subjects)) as drawn:
        left, right = drawn.subplots(1, 2, width_ratios=(3, 2), sharey=True)
        drawn.suptitle(title, fontsize=12)
        _distributions(left, subjects)
        for row, subject in enumerate(subjects):
            ratio = subject["speed_up"]
            if ratio is None:
                continue
            right.barh(row, ratio["median"], height=0.5, color=ORANGE if row == 0 else BLUE)
            right.plot((ratio["low"], ratio["high"]), (row, row), color=BLACK, linewidth=1.5)
            end = max(ratio["median"], ratio["high"])
            right.annotate(f"{figure(ratio['median'])} ×", (end, row), (6, 0), textcoords="offset points", va="center")
        highest = [max(s["speed_up"]["median"], s["speed_up"]["high"]) for s in subjects if s["speed_up"] is not None]
        right.set(title=f"times as fast as {subjects[0]['name']}", xlim=(0, 1.2 * max(highest, default=1)))
        right.tick_params(left=False, labelleft=False)
        right.grid(axis="y", visible=False)
        return _encoded(drawn, "png")


def _distributions(axes: Axes, subjects: Sequence[dict[str, Any]]) -> None:
    """A hill for each subject, with its median, p95 and p99."""
    samples = [np.asarray(subject["samples_ms"]) for subject in subjects]
    low, high = min(map(np.min, samples)), max(map(np.max, samples))
    edges = np.geomspace(low / 1.1, high * 1.1, 100)
    middles = np.sqrt(edges[1:] * edges[:-1])
    for row, (subject, taken) in enumerate(zip(subjects, samples, strict=True)):
        counts = np.convolve(np.histogram(taken, edges)[0], (0.25, 0.5, 0.25), mode="same")
        base = row + 0.3  # the axis points downwards
        hill, colour = base - 0.5 * counts / counts.max(), ORANGE if row == 0 else BLUE
        axes.fill_between(middles, base, hill, where=counts > 0, color=colour, alpha=0.7)
        marks = [subject["stages"]["total"][f"{name}_ms"] for name in ("p50", "p95", "p99")]
        axes.plot(marks, [base] * 3, "|", color=BLACK, markersize=9)
        said = " / ".join(map(figure, marks))
        axes.annotate(f"{said} ms", (1, row - 0.36), xycoords=axes.get_yaxis_transform(), ha="right", va="center")
    _logarithmic(axes, low, high)
    axes.set(title="a picture, total, ms: p50 / p95 / p99", ylim=(len(subjects) - 0.5, -0.6))
    axes.set_yticks(range(len(subjects)), [subject["name"] for subject in subjects])
    axes.grid(axis="y", visible=False)


def sizes(points: Sequence[dict[str, Any]], *, title: str, suffix: str = ".png") -> bytes:
    """Accuracy over latency of settings, a panel for each of `METRICS`.

    Colour is precision. Hollow points run at another size than their weights were trained at, crosses are not verified;
    the line is the best that can be had in a time.

    Args:
        points: of a sizes record.
        suffix: `.png` or `.svg`.
    """
    with _drawing(13, 5.6) as drawn:
        drawn.suptitle(title, fontsize=11)
        panels = []
        for axes, (metric, name) in zip(drawn.subplots(1, 2), METRICS.items(), strict=True):
            shown = [entry for entry in points if entry[metric] is not None]
            corners = _settings(axes, shown, metric)
            axes.set_title(f"{name}, %")
            panels.append((axes, [(_place(entry, metric), _setting_name(entry)) for entry in shown], corners))
        keys = [_key(p, "o", colour) for p, colour in PRECISIONS.items() if any(e["precision"] == p for e in points)]
        if any(_is_resized(entry) for entry in points):
            keys.append(_key("trained at another size", "o", GREY, fill="white"))
        if not all(entry["verified"] for entry in points):
            keys.append(_key("not verified", "x", GREY))
        keys.append(Line2D([], [], color=GREY, linewidth=1, label="the best within a time"))
        _add_legend(drawn, keys)
        for axes, labels, corners in panels:
            _label(axes, labels, corners=corners)
        return _encoded(drawn, suffix.removeprefix("."))


def _settings(axes: Axes, points: Sequence[dict[str, Any]], metric: str) -> list[Place]:
    """Marks and the line of the best; returns its corners."""
    _over_time(axes, [_place(entry, metric) for entry in points])
    corners: list[Place] = []  # from one setting to the next that is better by this metric
    for p50_ms, area in sorted(_place(entry, metric) for entry in points if entry["on_frontier"]):
        if not corners or area > corners[-1][1]:
            corners += [(p50_ms, corners[-1][1] if corners else area), (p50_ms, area)]
    if corners:
        corners.append((axes.get_xlim()[1], corners[-1][1]))
        axes.plot(*zip(*corners, strict=True), color=GREY, linewidth=1, zorder=1)
    for entry in points:
        colour = PRECISIONS[entry["precision"]]
        look = {"color": colour, "marker": "x"}
        if entry["verified"]:
            look = {"edgecolors": colour, "facecolors": "white" if _is_resized(entry) else colour}
        axes.scatter(*_place(entry, metric), s=55, linewidths=1.7, zorder=2, **look)  # type: ignore[arg-type]
    return corners


def _place(entry: dict[str, Any], metric: str) -> Place:
    return entry["p50_ms"], 100 * entry[metric]


def _is_resized(entry: dict[str, Any]) -> bool:
    return entry["trained_at"] is not None and list(entry["trained_at"]) != list(entry["input_size"])


def _setting_name(entry: dict[str, Any]) -> str:
    height, width = entry["input_size"]
    return f"{height if height == width else size((height, width))} {entry['precision']}"


def _over_time(axes: Axes, places: Sequence[Place], *, title: str = "") -> None:
    """Axes around the places: time, logarithmic, and percent, a point at least, so that nothing looks like much."""
    axes.set(title=title, xlabel="ms a picture (p50)")
    if places:
        times_ms, percents = zip(*places, strict=True)
        _logarithmic(axes, min(times_ms), max(times_ms), room=1.6)
        low, high = min(percents), max(percents)
        half = 0.65 * max(high - low, 1.0)
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)


def _logarithmic(axes: Axes, low: float, high: float, *, room: float = 1.1) -> None:
    """A horizontal axis over `low` … `high` with ticks that are read as they are: 1, 2 and 5 of each decade."""
    every = [digit * 10.0**decade for decade in range(-3, 7) for digit in (1, 2, 5)]
    low, high = low / room, high * room
    while len(ticks := [tick for tick in every if low <= tick <= high]) < 2:
        low, high = low / room, high * room
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _key(name: str, marker: str, colour: str, *, side: float = 8.0, fill: str | None = None) -> Line2D:
    """A mark of the legend."""
    look = {"markeredgecolor": colour, "markerfacecolor": fill or colour, "markeredgewidth": 1.7, "markersize": side}
    return Line2D([], [], linestyle="none", marker=marker, label=name, **look)  # type: ignore[arg-type]


def _add_legend(drawn: Figure, keys: Sequence[Line2D]) -> None:
    """Below everything; afterwards all axes have their final size."""
    drawn.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, borderpad=0.8)
    drawn.draw_without_rendering()


def _label(
    axes: Axes,
    labels: Sequence[tuple[Place, str]],
    *,
    radii: Sequence[float] | None = None,
    corners: Sequence[Place] = (),
) -> None:
    """Each name where it covers the least of marks, line and other names; a thin line leads to it where it is far.

    The axes must have their final size and limits.

    Args:
        radii: of the marks, in points.
        corners: of a line along the axes.
    """
    dot = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    to_page, to_data = axes.transData.transform, axes.transData.inverted().transform
    places = [place for place, _ in labels]
    reach = [dot * max(radius, 4.0) for radius in radii or [4.0] * len(places)]
    middles = [(float(x), float(y)) for x, y in map(to_page, places)]
    taken = [_around(*middle, 2 * r, 2 * r) for middle, r in zip(middles, reach, strict=True)]
    taken += [Bbox([np.minimum(a, b) - 2, np.maximum(a, b) + 2]) for a, b in pairwise(map(to_page, corners))]
    inside = axes.get_window_extent()
    for index in sorted(range(len(places)), key=lambda index: -reach[index]):
        text = axes.text(0, 0, labels[index][1], ha="center", va="center", fontsize=10, zorder=4)
        wide, tall = text.get_window_extent().size
        (x, y), choices = middles[index], []
        for far, (side, up) in product((2, 12, 26, 44, 66), _SIDES):
            shift = (reach[index] + far * dot) * (0.7 if side and up else 1)
            middle = (x + side * (shift + wide / 2), y + up * (shift + tall / 2))
            box = _around(*middle, wide, tall)
            covered = sum(_common(box, other) for other in taken) + 5 * (wide * tall - _common(box, inside))
            choices.append((covered + 8 * dot * far, far, middle, box))
        _, far, middle, box = min(choices, key=lambda choice: choice[0])
        taken.append(box)
        text.set_position(tuple(to_data(middle)))
        if far > 12:
            near = np.clip((x, y), box.min, box.max)
            axes.plot(*zip(places[index], to_data(near), strict=True), color=GREY, linewidth=0.8, zorder=3)


_SIDES = [
    (1, 0),
    (-1, 0),
    (0, 1),
    (0, -1),
    (1, 1),
    (1, -1),
    (-1, 1),
    (-1, -1),
    (1, 0.5),
    (1, -0.5),
    (-1, 0.5),
    (-1, -0.5),
]
"""To the right and upwards of a mark: where its name may stand, the better ones first."""


def _around(x: float, y: float, wide: float, tall: float) -> Bbox:
    return Bbox.from_bounds(x - wide / 2, y - tall / 2, wide, tall)


def _common(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)


@contextmanager
def _drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches that no window shows."""
    with rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), dpi=110, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn


def _encoded(drawn: Figure, form: str) -> bytes:
    data = io.BytesIO()
    drawn.savefig(data, format=form)
    return data.getvalue()
