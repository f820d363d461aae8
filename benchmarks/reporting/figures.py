"""What the report draws of each kind of record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.record import Record
from benchmarks.reporting.plots import Bar, Point, bars, distributions, scatter
from benchmarks.reporting.tables import figure, size


@dataclass(frozen=True)
class Figure:
    """Attributes: keys: class and meaning of each colour that needs to be told."""

    title: str
    svg: str
    caption: str
    keys: tuple[tuple[str, str], ...] = ()


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
                f"{figure(entry['p50_ms'])} ms" + (", REFUSED by the gate" if entry["verified"] is False else ""),
                is_cross=entry["verified"] is False,
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
            f"{figure(stage['measured_ms'])} ms"
            + ("" if stage["floor_ms"] is None else f", floor {figure(stage['floor_ms'])}"),
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
    if points and peak is not None:
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
"""By the name of the table that they stand above."""
