"""The report's pictures: figure 1, how latencies are distributed, accuracy over latency by size and precision.

Colours are Okabe and Ito's, which colour-blind people can tell apart; what matters has a label or another mark as well.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.cells import AREAS, NOTHING, Entry, figure, size
from benchmarks.record import INCOMPLETE, Origin
from benchmarks.tables import is_peer
from train.paper import methods as paper
from train.paper.figure_1 import label, logarithmic, mark_area, over_time

BLUE, ORANGE, GREEN, PINK, BLACK, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#262A30", "#6B7480"
PRECISIONS = {"fp32": BLUE, "fp16": ORANGE, "bf16": GREEN, "int8": PINK}

_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E6EA",
    "lines.linewidth": 1.7,
    "svg.fonttype": "none",  # text stays text
}


def figure_1(sources: Sequence[Origin]) -> tuple[bytes, str]:
    """Figure 1 of the paper, and the same of each record of peers: pixel AUROC over time, as PNG, with its caption."""
    printed: list[Entry] = [
        {"name": m.name, "p50_ms": m.inference_ms, "pixel_auroc": area / 100, "parameters": 1e6 * m.parameters_m}
        for m in paper.METHODS
        if m.inference_ms is not None and (area := m.mvtec.pixel_auroc) is not None
    ]
    panels = [(f"The paper: MVTec AD, {paper.GPU}", printed)]
    caption = [
        "Areas are the numbers of parameters, hollow ones were not recorded, and each panel has scales of its own. The "
        f"first is as printed in table 1 of {paper.SOURCE}: nothing of it was measured here. The others are of these "
        "records:",
        "",
    ]
    for source in sources:
        if methods := placed_methods(source):
            device = dataclasses.replace(source.record.device, features=())  # for which a panel has no room
            panels.append((f"{source.record.details['data']}\n{str(device).rsplit(', ', 1)[0]}", methods))
            mark = "" if source.record.is_complete else f" (**{INCOMPLETE}**)"
            caption.append(f"- {source.record.details['data']}; {source.record.device}: {source.path.name}{mark}")
    keys = [_key("STLM", BLUE), _key("other methods", ORANGE)]
    keys += [_key(f"{count} M parameters", GREY, area=mark_area(1e6 * count)) for count in (1, 10, 50)]
    rows = math.ceil(len(panels) / 2)
    with _drawing(13, 5.2 * rows + 0.4, keys) as drawn:
        grid = np.ravel(drawn.subplots(rows, 2, squeeze=False))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, methods) in zip(grid, panels, strict=False):
            axes.set(title=title, ylabel="pixel AUROC, %")
            over_time(axes, *_places(methods, "pixel_auroc"))
            for method in methods:
                colour, area = ORANGE if is_peer(method) else BLUE, mark_area(method["parameters"])
                face = "none" if method["parameters"] is None else colour + "A0"
                place = (method["p50_ms"], 100 * method["pixel_auroc"])
                axes.scatter(*place, s=area, color=colour, facecolors=face, label=method["name"])
        return _encoded(drawn), "\n".join(caption)


def placed_methods(source: Origin) -> list[Entry]:
    """Methods of a record of peers that have accuracy and time; none of another benchmark's."""
    with source.read_as_expected():
        methods = source.record.details["methods"] if source.record.benchmark == "peers" else []
        return [m for m in methods if m["p50_ms"] is not None and m["pixel_auroc"] is not None]


def of_record(source: Origin) -> tuple[bytes, str] | None:
    """The picture of a latency or sizes record, as PNG, with its caption; None of others, or with nothing to draw."""
    record, title = source.record, f"{source.path.name}: {source.record.device}"
    with source.read_as_expected():
        if record.benchmark == "latency":
            if subjects := [entry for entry in record.details["subjects"] if entry["samples_ms"]]:
                return latency(subjects, title=title), (
                    "How often a picture took how long, with its p50, p95 and p99, and how many times as fast as the "
                    "first each was: the median of the turns' ratios."
                )
        elif record.benchmark == "sizes" and record.details["points"]:
            return sizes(record.details["points"], title=f"{record.details['data']}; {title}"), (
                "Hollow marks run at another size than their weights were trained at, crosses are not verified by the "
                "gate; the line is the best that can be had in a time."
            )
    return None


def latency(subjects: Sequence[Entry], *, title: str) -> bytes:
    """How often a picture took how long with each of a latency record's subjects that have samples."""
    names = []
    with _drawing(13, 1.3 + 0.85 * len(subjects)) as drawn:
        drawn.suptitle(title, fontsize=12)
        axes = drawn.subplots()
        for row, subject in enumerate(subjects):
            samples, base = np.asarray(subject["samples_ms"]), row + 0.25  # the axis points downwards
            counts, edges = np.histogram(np.log(samples), bins=max(5, math.isqrt(len(samples))))
            hill = np.concatenate([[0], np.repeat(counts, 2), [0]]) / counts.max()
            colour = ORANGE if row == 0 else BLUE
            axes.fill_between(np.exp(np.repeat(edges, 2)), base, base - 0.5 * hill, color=colour, alpha=0.7)
            marks = [subject["stages"]["total"][f"{name}_ms"] for name in ("p50", "p95", "p99")]
            axes.plot(marks, [base] * 3, "|", color=BLACK, markersize=9)
            ratio = NOTHING if subject["speed_up"] is None else figure(subject["speed_up"]["median"])
            names.append(f"{subject['name']}: {ratio} ×\n{' / '.join(map(figure, marks))} ms")
        samples = np.concatenate([subject["samples_ms"] for subject in subjects])
        logarithmic(axes, samples.min(), samples.max(), room=1.1)
        title = f"times as fast as {subjects[0]['name']}; ms a picture, total: p50 / p95 / p99"
        axes.set(title=title, ylim=(len(subjects) - 0.5, -0.6))
        axes.set_yticks(range(len(subjects)), names)
        axes.grid(axis="y", visible=False)
        return _encoded(drawn)


def sizes(points: Sequence[Entry], *, title: str, suffix: str = ".png") -> bytes:
    """Accuracy over latency of a sizes record's points: whether a part has a defect, and where. `.png` or `.svg`."""
    keys = [_key(p, colour) for p, colour in PRECISIONS.items() if any(point["precision"] == p for point in points)]
    if any(_is_resized(point) for point in points):
        keys.append(_key("trained at another size", GREY, fill="white"))
    if not all(point["verified"] for point in points):
        keys.append(_key("not verified", GREY, marker="x"))
    keys.append(Line2D([], [], color=GREY, linewidth=1, label="the best within a time"))
    with _drawing(13, 5.6, keys) as drawn:
        drawn.suptitle(title, fontsize=11)
        for axes, metric in zip(drawn.subplots(1, 2), ("image_auroc", "aupro"), strict=True):
            axes.set_title(f"{AREAS[metric]}, %")
            shown = [point for point in points if point[metric] is not None]
            over_time(axes, *_places(shown, metric))
            best = sorted((point["p50_ms"], 100 * point[metric]) for point in shown if point["on_frontier"])
            if best:
                times, percents = zip(*best, strict=True)
                highest = np.maximum.accumulate(percents)
                end = axes.get_xlim()[1]
                axes.step([*times, end], [*highest, highest[-1]], where="post", color=GREY, linewidth=1, zorder=1)
            for point in shown:
                colour, said = PRECISIONS[point["precision"]], f"{size(point['input_size'])} {point['precision']}"
                look: dict[str, Any] = {"facecolors": "white" if _is_resized(point) else colour}
                if not point["verified"]:
                    look = {"marker": "x"}
                axes.scatter(point["p50_ms"], 100 * point[metric], s=55, color=colour, label=said, **look)
        return _encoded(drawn, suffix)


def _places(entries: Sequence[Entry], metric: str) -> tuple[list[float], list[float]]:
    """Times in ms and percents."""
    return [entry["p50_ms"] for entry in entries], [100 * entry[metric] for entry in entries]


def _is_resized(point: Entry) -> bool:
    return point["trained_at"] is not None and list(point["trained_at"]) != list(point["input_size"])


def _key(name: str, colour: str, *, marker: str = "o", area: float = 60.0, fill: str | None = None) -> Line2D:
    """A mark of the legend."""
    look: dict[str, Any] = {"linestyle": "none", "marker": marker, "markersize": math.sqrt(area), "color": colour}
    return Line2D([], [], markerfacecolor=fill or colour, markeredgewidth=1.5, label=name, **look)


@contextmanager
def _drawing(width: float, height: float, keys: Sequence[Line2D] = ()) -> Iterator[Figure]:
    """A figure of so many inches that no window shows, with a legend below it."""
    with rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), dpi=110, layout="constrained")
        if keys:
            drawn.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False, borderpad=0.8)
        yield drawn


def _encoded(drawn: Figure, suffix: str = ".png") -> bytes:
    drawn.draw_without_rendering()  # from here on all axes have their final size
    for axes in drawn.axes:
        label(axes)
    data = io.BytesIO()
    drawn.savefig(data, format=suffix.removeprefix("."))
    return data.getvalue()
