"""Figure 1 of the paper, and the same of what was measured here: accuracy against time, by area the parameters.

The two are never on one scale: each device and each data set has a panel of its own, which says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.record import Record
from benchmarks.reporting.figures import Figure
from benchmarks.reporting.plots import Point, scatter
from benchmarks.reporting.quality import is_anomalib
from benchmarks.reporting.sources import Source, made_of
from benchmarks.reporting.tables import figure
from train.paper import figures as paper

RADIUS = 1.9
"""Of a circle for a million parameters; areas are as the parameters."""


@dataclass(frozen=True)
class _Measured:
    """A method that was measured here, for figure 1."""

    name: str
    is_stlm: bool
    p50_ms: float
    pixel_auroc: float
    parameters: int | None


def panels(sources: Sequence[Source]) -> list[tuple[Figure, list[Source]]]:
    """Figure 1 of the paper, and the same for each device and data set of our own; with the records of each.

    Raises `DataError` if a complete record lacks what is needed.
    """
    made = [(_paper_panel(), list[Source]())]
    found: dict[tuple[str, str], tuple[list[_Measured], list[Source]]] = {}
    for source in sources:
        partners = [other for other in sources if str(other.record.device) == str(source.record.device)]
        for method, used in made_of(source, partial(_measured, partners=partners)):
            methods, origins = found.setdefault((str(source.record.device), source.record.details["data"]), ([], []))
            methods.append(method)
            origins += [origin for origin in (source, *used) if origin not in origins]
    for (device, data), (methods, origins) in sorted(found.items()):
        made.append((_panel(device, data, methods), origins))
    return made


def _panel(device: str, data: str, methods: Sequence[_Measured]) -> Figure:
    title = f"Measured here: {data}"
    points = [_measured_point(method) for method in methods]
    drawn = scatter(points, title=title, x_label="ms a picture (p50)", y_label="pixel AUROC, %")
    has_others = any(not method.is_stlm for method in methods)
    keys = (("ours", "STLM"), *([("others", "other methods")] if has_others else []))
    unknown = any(method.parameters is None for method in methods)
    hollow = " Hollow: the number of parameters is not recorded." if unknown else ""
    return Figure(title, drawn, f"{device}. Scales are this panel's own.{hollow}", keys)


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
    radius, css, parameters = 6.0, "ours" if method.is_stlm else "others", "parameters not recorded"
    if method.parameters is None:
        css += " hollow"
    else:
        radius = RADIUS * math.sqrt(method.parameters / 1e6)
        parameters = f"{method.parameters / 1e6:.1f} M parameters"
    area = 100 * method.pixel_auroc
    hint = f"{method.name}: {area:.1f} % in {figure(method.p50_ms)} ms, {parameters}"
    return Point(method.p50_ms, area, method.name, css, hint, radius)


def _measured(record: Record, partners: Sequence[Source]) -> list[tuple[_Measured, list[Source]]]:
    """Methods that have accuracy and time, each with the other records that it took.

    Args:
        partners: all records of the same device.
    """
    details = record.details
    if record.benchmark == "alternatives":
        return [(method, []) for method in _timed(details["methods"], is_anomalib)]
    if record.benchmark == "pareto":  # of a frontier only what lies on it
        points = [entry for entry in details["points"] if entry["on_frontier"]]
        return [(method, []) for method in _timed(points, lambda _: False)]
    if record.benchmark == "accuracy":
        return _joined(details["engines"], [other for other in partners if other.record.benchmark == "latency"])
    return []


def _timed(entries: Sequence[dict[str, Any]], is_other: Callable[[dict[str, Any]], bool]) -> list[_Measured]:
    return [
        _Measured(entry["name"], not is_other(entry), entry["p50_ms"], entry["pixel_auroc"], entry.get("parameters"))
        for entry in entries
        if entry["p50_ms"] is not None and entry["pixel_auroc"] is not None
    ]


def _joined(engines: Sequence[dict[str, Any]], latencies: Sequence[Source]) -> list[tuple[_Measured, list[Source]]]:
    """Engines whose accuracy one record has and whose latency another one has."""
    found = []
    for latency in latencies:
        contenders = made_of(
            latency, lambda record: [entry for entry in record.details["contenders"] if entry["stages"]]
        )
        timed = {_engine(entry): entry for entry in contenders}
        for engine in engines:
            entry = timed.get(_engine(engine))
            if entry is not None and engine["pixel_auroc"] is not None:
                p50_ms = entry["stages"]["total"]["p50_ms"]
                method = _Measured(engine["name"], True, p50_ms, engine["pixel_auroc"], entry["parameters"])
                found.append((method, [latency]))
    return found


def _engine(entry: dict[str, Any]) -> tuple[Any, ...]:
    """What an engine is known by in both records: file, library, precision and size."""
    return entry["name"].split(" on ")[0], entry["library"], entry["precision"], tuple(entry["input_size"])
