"""What the report draws of each kind of record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from benchmarks import paper
from benchmarks.record import Record
from benchmarks.reporting.plots import Bar, Point, bars, distributions, scatter
from benchmarks.reporting.sources import Source
from benchmarks.reporting.tables import figure, size

RADIUS = 1.9
"""Of a circle for a million parameters; areas are as the parameters."""


@dataclass(frozen=True)
class Figure:
    """Attributes: keys: class and meaning of each colour that needs to be told."""

    title: str
    svg: str
    caption: str
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Measured:
    """A method that was measured here, for figure 1."""

    name: str
    is_stlm: bool
    p50_ms: float
    pixel_auroc: float
    parameters: int | None


def figure_1(sources: Sequence[Source]) -> list[tuple[Figure, list[Source]]]:
    """Figure 1 of the paper, and the same for each device and data set of our own; with the records of each."""
    panels = [(_paper_panel(), list[Source]())]
    found = sorted(_measured(sources), key=lambda entry: entry[0])
    for (device, data), entries in groupby(found, key=lambda entry: entry[0]):
        listed = list(entries)
        points = [_measured_point(method) for _, methods, _ in listed for method in methods]
        used = [source for _, _, many in listed for source in many]
        title = f"Measured here: {data}"
        drawn = scatter(points, title=title, x_label="ms a picture (p50)", y_label="pixel AUROC, %")
        keys = [("ours", "STLM")] + [("others", "other methods")] * any(point.css == "others" for point in points)
        hollow = " Hollow: the number of parameters is not recorded." if any("hollow" in p.css for p in points) else ""
        panels.append((Figure(title, drawn, f"{device}. Scales are this panel's own.{hollow}", tuple(keys)), used))
    return panels


def _paper_panel() -> Figure:
    points = [
        Point(
            method.inference_ms,
            method.mvtec.pixel_auroc,
            method.name,
            "paper-own" if method.name == "STLM" else "paper",
            f"{method.name}: {method.mvtec.pixel_auroc} % in {method.inference_ms} ms, {method.parameters_m} M",
            RADIUS * math.sqrt(method.parameters_m),
        )
        for method in paper.METHODS
        if method.inference_ms is not None and method.mvtec.pixel_auroc is not None
    ]
    title = "The paper's figure 1: MVTec AD"
    drawn = scatter(points, title=title, x_label="ms a picture", y_label="pixel AUROC, %")
    caption = f"{paper.GPU}, as printed in table 1 of {paper.SOURCE}; nothing of it was measured here."
    return Figure(title, drawn, caption, (("paper-own", "STLM"), ("paper", "other methods")))


def _measured_point(method: _Measured) -> Point:
    known = method.parameters is not None
    radius = RADIUS * math.sqrt(method.parameters / 1e6) if method.parameters is not None else 6.0
    size_of = (
        f"{method.parameters / 1e6:.1f} M parameters" if method.parameters is not None else "parameters not recorded"
    )
    return Point(
        method.p50_ms,
        100 * method.pixel_auroc,
        method.name,
        ("ours" if method.is_stlm else "others") + ("" if known else " hollow"),
        f"{method.name}: {100 * method.pixel_auroc:.1f} % in {figure(method.p50_ms)} ms, {size_of}",
        radius,
    )


def _measured(sources: Sequence[Source]) -> list[tuple[tuple[str, str], list[_Measured], list[Source]]]:
    """(device, data), methods and records of whatever has accuracy and time."""
    found = []
    for source in sources:
        details, device = source.record.details, str(source.record.device)
        entries: list[dict[str, Any]] = []
        if source.record.benchmark == "alternatives":
            entries = details.get("methods", [])
        elif source.record.benchmark == "pareto":
            entries = [entry for entry in details.get("points", []) if entry["on_frontier"]]
        methods = [
            _Measured(
                entry["name"],
                entry.get("library") != "anomalib",
                entry["p50_ms"],
                entry["pixel_auroc"],
                entry.get("parameters"),
            )
            for entry in entries
            if entry.get("p50_ms") and entry.get("pixel_auroc") is not None
        ]
        if methods:
            found.append(((device, details["data"]), methods, [source]))
    return found + _joined(sources)


def _joined(sources: Sequence[Source]) -> list[tuple[tuple[str, str], list[_Measured], list[Source]]]:
    """Engines whose accuracy one record has and whose latency another one of the same device."""
    found = []
    for accuracy in (source for source in sources if source.record.benchmark == "accuracy"):
        device = str(accuracy.record.device)
        for latency in (source for source in sources if source.record.benchmark == "latency"):
            if str(latency.record.device) != device:
                continue
            timed = {
                (entry["name"], entry["precision"], tuple(latency.record.details["input_size"])): entry
                for entry in latency.record.details.get("contenders", [])
            }
            methods = []
            for engine in accuracy.record.details.get("engines", []):
                key = (engine["name"], engine["precision"], tuple(engine["input_size"]))
                if key in timed and engine["pixel_auroc"] is not None:
                    entry = timed[key]
                    p50_ms = entry["stages"]["total"]["p50_ms"]
                    methods.append(_Measured(engine["name"], True, p50_ms, engine["pixel_auroc"], entry["parameters"]))
            if methods:
                found.append(((device, accuracy.record.details["data"]), methods, [accuracy, latency]))
    return found


def _latency(record: Record) -> list[Figure]:
    contenders = record.details["contenders"]
    made = []
    sampled = [entry for entry in contenders if entry["samples_ms"]]
    if sampled:
        title = "Distribution of latency"
        rows = [(entry["name"], entry["samples_ms"], _own(index)) for index, entry in enumerate(sampled)]
        drawn = distributions(rows, title=title, x_label="ms a picture, total")
        made.append(Figure(title, drawn, "How often a picture took how long; marks and figures: p50, p95, p99."))
    faster = [entry for entry in contenders[1:] if entry["speed_up"] is not None]
    if faster:
        first = contenders[0]["name"]
        title = f"Times as fast as {first}"
        rows_of = [
            Bar(
                entry["name"],
                entry["speed_up"]["median"],
                f"{figure(entry['speed_up']['median'])} ×",
                "ours",
                low=entry["speed_up"]["low"],
                high=entry["speed_up"]["high"],
            )
            for entry in faster
        ]
        one = Bar(first, 1.0, "1", "others")
        drawn = bars([one, *rows_of], title=title, x_label="times as fast")
        made.append(
            Figure(title, drawn, "Median of the turns' ratios; the line is from the lowest to the highest turn.")
        )
    return made


def _own(index: int) -> str:
    return "others" if index == 0 else "ours"


def _pareto(record: Record) -> list[Figure]:
    made = []
    precisions = list(dict.fromkeys(point["precision"] for point in record.details["points"]))
    for metric, name in (("image_auroc", "image AUROC"), ("aupro", "AUPRO")):
        entries = [e for e in record.details["points"] if e[metric] is not None and e["p50_ms"]]
        if not entries:
            continue
        points = [
            Point(
                entry["p50_ms"],
                100 * entry[metric],
                entry["name"],
                f"series-{precisions.index(entry['precision']) % 4}" + ("" if entry["on_frontier"] else " hollow"),
                f"{entry['name']} ({size(entry['input_size'])}, {entry['precision']}): {100 * entry[metric]:.1f} % in "
                f"{figure(entry['p50_ms'])} ms" + (", REFUSED by the gate" if entry["blessed"] is False else ""),
                is_cross=entry["blessed"] is False,
            )
            for entry in entries
        ]
        frontier = sorted((e["p50_ms"], 100 * e[metric]) for e in entries if e["on_frontier"])
        title = f"{name} against latency"
        drawn = scatter(
            points,
            title=title,
            x_label="ms a picture (p50)",
            y_label=f"{name}, %",
            lines=[("frontier", frontier)] if len(frontier) > 1 else (),
        )
        keys = tuple((f"series-{index % 4}", precision) for index, precision in enumerate(precisions))
        caption = "Filled, with a line: settings on the frontier; hollow: others; a cross: refused by the gate."
        made.append(Figure(title, drawn, caption, keys))
    return made


def _stages(record: Record) -> list[Figure]:
    details = record.details
    stages = [stage for stage in details["stages"] if stage["measured_ms"]]
    rows = [
        Bar(
            stage["name"],
            stage["measured_ms"],
            f"{figure(stage['measured_ms'])} ms, floor {figure(stage['floor_ms'])}",
            "ours",
            inner=stage["floor_ms"],
        )
        for stage in stages
    ]
    drawn = bars(rows, title="Stages", x_label="ms a picture")
    made = [
        Figure(
            "Where the time goes",
            drawn,
            "Measured, and within it the floor.",
            (("ours", "measured"), ("inner", "floor")),
        )
    ]
    peak = details["peak"]
    points = [
        Point(
            1e3 * stage["gflop"] / stage["moved_mb"],
            1e3 * stage["gflop"] / stage["measured_ms"],
            stage["name"],
            "ours",
            f"{stage['name']}: {figure(1e3 * stage['gflop'] / stage['measured_ms'])} GFLOP/s at "
            f"{figure(1e3 * stage['gflop'] / stage['moved_mb'])} FLOP a byte",
        )
        for stage in stages
        if stage["gflop"] and stage["moved_mb"]
    ]
    if points:
        ridge = peak["gflop_s"] / peak["gb_s"]
        low = min(ridge / 4, *(point.x for point in points))
        high = max(ridge * 4, *(point.x for point in points))
        roof = [(low, low * peak["gb_s"]), (ridge, peak["gflop_s"]), (high, peak["gflop_s"])]
        title = "Roofline"
        drawn = scatter(
            points,
            title=title,
            x_label="FLOP for each byte moved",
            y_label="GFLOP a second",
            lines=[("roof", roof)],
            is_log=True,
        )
        without = [stage["name"] for stage in stages if not (stage["gflop"] and stage["moved_mb"])]
        caption = (
            f"The roof: {figure(peak['gb_s'])} GB/s, then {figure(peak['gflop_s'])} GFLOP/s. The nearer to it, the "
            "less there is to gain."
            + (f" Not drawn, since they only move bytes: {', '.join(without)}." if without else "")
        )
        made.append(Figure(title, drawn, caption))
    return made


FIGURES: dict[str, Callable[[Record], list[Figure]]] = {"latency": _latency, "pareto": _pareto, "stages": _stages}
"""By benchmark."""
