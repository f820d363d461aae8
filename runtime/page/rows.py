"""What a page remembers of a line: a row for each part, or each frame of a line without parts, and for each event."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from runtime.event import Event
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.sinks.base import utc
from stlm_edge.names import cell, escaped, printable

logger = logging.getLogger(__name__)

KEPT = 10_000
"""Rows of each camera that are kept in memory, and can be had as a table."""
_READ_BYTES = 16_000_000
"""Of the end of a file of events, in which there are so many rows and more."""
_LONGEST = 300
"""Characters of a text."""


class Row(NamedTuple):
    """One thing that happened.

    Attributes:
        time: ISO 8601, UTC.
        event: `part-result`, `frame`, or the kind of an event of the line.
        part: its number, or the frame's where there are no parts; None for an event of the line.
        part_id: what whoever triggered it calls it; of a frame, the picture's name.
        verdict: of the part; of a frame `good`, `unclear`, `anomalous` or `fault`.
        score, threshold: of the worst frame; None where nothing was judged.
        text: of an event, for people.
    """

    time: str
    event: str
    part: int | None = None
    part_id: str | None = None
    verdict: str | None = None
    score: float | None = None
    threshold: float | None = None
    recipe: str | None = None
    text: str | None = None


def row_of_part(part: Part) -> Row:
    threshold = None if part.worst is None else part.worst.threshold
    return Row(
        _time(part.decided_s),
        "part-result",
        part.number,
        None if part.part_id is None else escaped(part.part_id),
        part.verdict,
        _number(part.score),
        threshold,
        None if part.recipe is None else escaped(part.recipe),
    )


def row_of_frame(inspection: Inspection) -> Row:
    frame, anomaly = inspection.frame, inspection.anomaly
    score = None if anomaly is None else _number(anomaly.score)
    verdict = verdict_of(inspection)
    name, recipe = escaped(frame.source), None if inspection.recipe is None else escaped(inspection.recipe)
    return Row(_time(frame.timestamp_s), "frame", frame.index, name, verdict, score, inspection.threshold, recipe)


def row_of_event(event: Event) -> Row:
    return Row(_time(event.timestamp_s), event.kind, text=printable(event.text))


def verdict_of(inspection: Inspection) -> str:
    """`good`, `unclear`, `anomalous` or `fault`, of a frame by itself."""
    anomaly = inspection.anomaly
    if anomaly is None:
        return "fault"
    return "anomalous" if anomaly.is_anomalous else "unclear" if anomaly.is_unclear else "good"


def last_rows(path: Path, *, has_parts: bool) -> list[Row]:
    """The last rows that a file of events has, oldest first, by its end alone, however long it is.

    What cannot be read is left out: the file is looked at for the comfort of who opens the page.

    Args:
        has_parts: rows of parts are wanted, else those of frames.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - _READ_BYTES))
            text = file.read(_READ_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.info("%s cannot be read (%s), so the page begins empty", path, error.strerror)
        return []
    lines = text.split("\n")
    if size > _READ_BYTES:
        del lines[0]
    rows: list[Row] = []
    for line in reversed(lines):
        if len(rows) == KEPT:
            break
        try:
            row = _from_json(json.loads(line))
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if row.event != ("frame" if has_parts else "part-result"):
            rows.append(row)
    return rows[::-1]


def table(rows: Iterable[tuple[str, Row]]) -> str:
    """Rows with the names of their cameras as CSV, its first line the names of the columns."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(["camera", *Row._fields])
    for camera, row in rows:
        writer.writerow([cell(camera), *(cell(value) if isinstance(value, str) else value for value in row)])
    return written.getvalue()


def _time(timestamp_s: float) -> str:
    return utc(timestamp_s).isoformat(timespec="milliseconds")


def _from_json(event: dict[str, Any]) -> Row:
    """Raises `TypeError`, `ValueError`, `AttributeError` for what is none of our events."""
    kind = event.get("event", "frame")
    time, recipe = _word(event["time"]) if "time" in event else None, _word(event.get("recipe"))
    if time is None or not isinstance(kind, str):
        raise ValueError
    if kind == "part-result":
        worst = event.get("worst") or {}
        score, threshold = _number(worst.get("score")), _number(worst.get("threshold"))
        verdict, number = _word(event.get("part_result")), _whole(event.get("part"))
        return Row(time, kind, number, _word(event.get("part_id")), verdict or "fault", score, threshold, recipe)
    if kind != "frame":
        return Row(time, kind[:_LONGEST], text=_word(event.get("text")) or "")
    verdict = "fault" if event.get("fault") else "unclear" if event.get("unclear") is True else "good"
    verdict = "anomalous" if event.get("anomalous") is True else verdict
    number, name = _whole(event["frame"]), _word(event.get("source"))
    return Row(time, kind, number, name, verdict, _number(event.get("score")), _number(event.get("threshold")), recipe)


def _word(value: object) -> str | None:
    return printable(value[:_LONGEST]) if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
