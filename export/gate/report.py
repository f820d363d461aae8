"""The gate's findings for people and for programs: a table, a JSON object and a picture of the worst cases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from export.gate.examine import FEWEST_FOR_QUALITY, Examination, GateMetrics, Row
from export.gate.limits import exceptions
from stlm_edge.drawing import contact_sheet, false_colour
from stlm_edge.errors import counted
from stlm_edge.imaging import Image, resize_map
from stlm_edge.sidecar import Drift, Gate, Limits

_METRICS = ("image AUROC", "pixel AUROC", "AUPRO")
_AGREEMENT = ("map max", "map p99", "map corr.", "score max", "rank corr.")
_TITLES = ("picture", "reference", "backend", "difference (grey: limit)")
_NONE = "-"


def table(examination: Examination, *, precision: str, widened: Sequence[str]) -> Iterator[str]:
    """Lines of text: how far each row is from the reference, of the metrics in points.

    Where there are pictures enough, see `Examination.tells_quality`, the metrics themselves stand before, in %.

    Args:
        widened: names of the rows that compute a graph with FP16 in float32.
    """
    limits, quality = examination.limits, examination.tells_quality
    own = _percent(examination.metrics, None) if quality else ("",) * len(_METRICS)
    rows = [
        ("", (*_AGREEMENT, *(_METRICS if quality else (f"{name} drift" for name in _METRICS)))),
        (f"{examination.reference} (reference)", (*("",) * len(_AGREEMENT), *own)),
        *((row.name, _cells(row, quality=quality)) for row in examination.rows),
        (f"limits of {precision}", _limit_cells(limits)),
    ]
    if examination.resize is not None:
        rows.append((examination.resize.name, _cells(examination.resize, quality=quality)))
    names = max(len(name) for name, _ in rows)
    widths = [max(map(len, column)) for column in zip(*(cells for _, cells in rows), strict=True)]
    for name, cells in rows:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join((name.ljust(names), *aligned)).rstrip()
    yield _on(examination)
    if examination.resize is not None:
        yield (
            f"{examination.resize.name}: against the host's, measured and not judged; the threshold was chosen with "
            "the host's, so choose it again on the engine: stlm threshold"
        )
    for row in examination.rows:
        if row.drift is not None:
            yield from exceptions(row.drift, limits, pairs=examination.pairs)
    for name in widened:
        yield f"{name}: it computes this graph's FP16 in float32, so its row does not test FP16"
    for row in examination.rows:
        if row.drift is not None and row.drift.map_correlation is None:
            yield "the network's maps of these pictures are flat, which tests little; add pictures of defects"
            break


def to_json(examination: Examination, gate: Gate, *, engine: str, precision: str, widened: Sequence[str]) -> str:
    """All of it; `gate` is what stands in the sidecar."""
    rows = examination.rows if examination.resize is None else (*examination.rows, examination.resize)
    content: dict[str, Any] = {
        "engine": engine,
        "precision": precision,
        "gate": dataclasses.asdict(gate),
        "pictures": {"good": examination.good, "defective": examination.defective},
        "tells_quality": examination.tells_quality,
        "reference_metrics": dataclasses.asdict(examination.metrics),
        "rows": [
            {
                "name": row.name,
                "computes_fp16_in_float32": row.name in widened,
                "metrics": None if row.metrics is None else dataclasses.asdict(row.metrics),
                "worst_picture": None if row.worst is None else row.worst.picture.name,
                "objections": row.objections,
            }
            for row in rows
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def worst_sheet(examination: Examination, *, threshold: float) -> Image | None:
    """The worst case of each backend; None if none has answered.

    Maps are coloured by the threshold, as the runtime does; the difference by the limit, which is grey: what is darker
    is allowed.
    """
    rows, captions = [], []
    for row in examination.rows:
        if row.worst is None:
            continue
        picture = row.worst.picture
        size = (picture.image.shape[0], picture.image.shape[1])
        wanted, found = (resize_map(coarse, size) for coarse in (row.worst.wanted, row.worst.found))
        rows.append(
            (
                picture.image,
                false_colour(wanted, threshold=threshold),
                false_colour(found, threshold=threshold),
                false_colour(np.abs(found - wanted), threshold=examination.limits.max_map_error),
            )
        )
        captions.append(f"{row.name}\n{picture.name}\nerror up to {row.worst.error:.2g}")
    return contact_sheet(rows, titles=_TITLES, captions=captions) if rows else None


def _on(examination: Examination) -> str:
    """What the pictures can tell."""
    pictures = f"on {counted(examination.good + examination.defective, 'picture')}, {examination.defective} of defects"
    if examination.tells_quality:
        return f"{pictures}; stlm evaluate tells of each kind of defect, and what is missed"
    return (
        f"{pictures}: how far each is from {examination.reference}, and not how good the model is, which takes "
        f"{FEWEST_FOR_QUALITY} with and {FEWEST_FOR_QUALITY} without defects; stlm evaluate tells that"
    )


def _cells(row: Row, *, quality: bool) -> tuple[str, ...]:
    if row.drift is None:
        return ("failed", *[_NONE] * (len(_AGREEMENT) + len(_METRICS) - 1))
    drift = row.drift
    return (
        f"{drift.max_map_error:.1e}",
        f"{drift.p99_map_error:.1e}",
        _correlation(drift.map_correlation),
        f"{drift.max_score_error:.1e}",
        _correlation(drift.score_rank_correlation),
        *(_percent(row.metrics, drift) if quality else map(_moved, _drifts(drift))),
    )


def _limit_cells(limits: Limits) -> tuple[str, ...]:
    return (
        f"{limits.max_map_error:.1e}",
        f"{limits.p99_map_error:.1e}",
        _correlation(limits.min_map_correlation),
        f"{limits.max_score_error:.1e}",
        _correlation(limits.min_rank_correlation),
        *[f"±{limits.max_metric_drift:g}"] * 3,
    )


def _percent(metrics: GateMetrics | None, drift: Drift | None) -> tuple[str, ...]:
    if metrics is None:
        return (_NONE,) * len(_METRICS)
    drifts = (None,) * len(_METRICS) if drift is None else _drifts(drift)
    return tuple(
        _NONE if value is None else f"{100 * value:.2f}" + ("" if points is None else f" ({_moved(points)})")
        for value, points in zip(dataclasses.astuple(metrics), drifts, strict=True)
    )


def _drifts(drift: Drift) -> tuple[float | None, ...]:
    """In the order of `_METRICS`."""
    return drift.image_auroc_drift, drift.pixel_auroc_drift, drift.aupro_drift


def _moved(points: float | None) -> str:
    return _NONE if points is None else f"{round(points, 3) + 0.0:+.3f}"


def _correlation(value: float | None) -> str:
    return _NONE if value is None else f"{value:.6f}"
