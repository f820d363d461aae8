"""`events.jsonl`: one line for each verdict, for each part's result and for each thing that happened to the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.anomaly import Anomaly
from runtime.event import Event
from runtime.inspection import VERDICT_STAGES, Inspection
from runtime.part import Part
from runtime.sinks.base import FrameSink, SinkContext, output_options, utc
from runtime.sinks.lines import ROTATION_OPTIONS, LastLine, LineFile, Rotation
from stlm_edge.errors import counted
from stlm_edge.names import escaped, printable

_BEGINNINGS = ('{"time"', '{"frame"')
"""Of the lines that this program writes, today and before."""


def verdict_event(inspection: Inspection, *, engine_sha256: str) -> dict[str, Any]:
    """What is told of a frame, ready for JSON.

    Keys: `time` (of capture, ISO 8601, UTC), `frame`, `source`, `score` and `anomalous` (null for a frame with a
    fault), `threshold`, `unclear` and `unclear_from` (of an engine with a threshold for it, not for a frame with a
    fault), `alarm`, `part`, `fault` where there is one, `camera_frame` where the camera counts its pictures, `regions`
    (largest peak first; `box` is left, top, width, height in pixels of the frame), `frame_size` (height, width; not for
    a frame with a fault), `label` where the source knows it, `recipe` where there are any, `latency_ms` by stage,
    `engine_sha256`. Names are escaped, see `stlm_edge.names`.
    """
    frame, anomaly = inspection.frame, inspection.anomaly
    return {
        "time": utc(frame.timestamp_s).isoformat(timespec="milliseconds"),
        "frame": frame.index,
        "source": escaped(frame.source),
        "score": None if anomaly is None else anomaly.score,
        "threshold": inspection.threshold,
        "anomalous": None if anomaly is None else anomaly.is_anomalous,
        **({} if anomaly is None or anomaly.unclear_from is None else _unclear(anomaly)),
        "alarm": inspection.alarm,
        "part": inspection.part,
        **({} if inspection.fault is None else {"fault": inspection.fault}),
        **({} if frame.counter is None else {"camera_frame": frame.counter}),
        "regions": _regions(anomaly),
        **({} if anomaly is None else {"frame_size": list(anomaly.frame_size)}),
        **({} if frame.label is None else {"label": frame.label}),
        **({} if inspection.recipe is None else {"recipe": escaped(inspection.recipe)}),
        "latency_ms": {stage: round(getattr(inspection.latency, f"{stage}_ms"), 3) for stage in VERDICT_STAGES},
        "engine_sha256": inspection.engine_sha256 or engine_sha256,
    }


def part_event(part: Part, *, engine_sha256: str) -> dict[str, Any]:
    """What is told of a part, ready for JSON.

    Keys: `time` (of the result), `event` (`part-result`) and `text`, as every event has them; `part`, `part_id` (null
    where nobody named it), `part_result` (`good`, `unclear`, `reject`, `missed` or `fault`), `frames` (that were
    judged), `part_ms` (from its trigger, or its first frame, to the result), `recipe` (where there are any), `worst`
    (`frame`, `source`, `score`, `threshold`, `regions` and `frame_size` of the frame with the highest score; null where
    none was judged), `engine_sha256`.
    """
    worst, score = part.worst, part.score
    name = "" if part.part_id is None else f" ({part.part_id})"
    of = "" if score is None else f", score {score:.3f}"
    by = f"by {counted(part.frames, 'frame')} in {part.latency_ms:.1f} ms"
    text = f"part {part.number}{name} is {part.verdict}{of}, {by}"
    return {
        "time": utc(part.decided_s).isoformat(timespec="milliseconds"),
        "event": "part-result",
        "text": printable(text),
        "part": part.number,
        "part_id": None if part.part_id is None else escaped(part.part_id),
        "part_result": part.verdict,
        "frames": part.frames,
        "part_ms": round(part.latency_ms, 3),
        **({} if part.recipe is None else {"recipe": escaped(part.recipe)}),
        "worst": None
        if worst is None
        else {
            "frame": worst.frame.index,
            "source": escaped(worst.frame.source),
            "score": score,
            "threshold": worst.threshold,
            "regions": _regions(worst.anomaly),
            **({} if worst.anomaly is None else {"frame_size": list(worst.anomaly.frame_size)}),
        },
        "engine_sha256": part.engine_sha256 or engine_sha256,
    }


def line_event(event: Event) -> dict[str, Any]:
    """What is told of an event, ready for JSON: `time`, `event` (its kind), `text`, and its details."""
    return {
        "time": utc(event.timestamp_s).isoformat(timespec="milliseconds"),
        "event": event.kind,
        "text": printable(event.text),
        **event.details,
    }


class EventLog(FrameSink):
    """Appends one JSON object per line, see `verdict_event`, `part_event` and `line_event`.

    It goes on where an earlier run ended, and is set aside when it has grown: see `LineFile`, which also says what a
    killed program and a power cut may lose.
    """

    takes_pictures = False

    def __init__(self, path: Path, *, engine_sha256: str, rotation: Rotation) -> None:
        """Raises `OutputError` if the file cannot be written."""
        self._engine_sha256 = engine_sha256
        self._file = LineFile(path, rotation=rotation, judge=_judge)

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, ROTATION_OPTIONS)

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> EventLog:
        """Raises `OutputError` on unknown options too."""
        rotation = Rotation(**output_options(uri, ROTATION_OPTIONS))
        return cls(Path(uri.partition("?")[0]), engine_sha256=context.engine_sha256, rotation=rotation)

    def write(self, inspection: Inspection) -> None:
        self._file.write(json.dumps(verdict_event(inspection, engine_sha256=self._engine_sha256)))

    def write_part(self, part: Part) -> None:
        self._file.write(json.dumps(part_event(part, engine_sha256=self._engine_sha256)))

    def write_event(self, event: Event) -> None:
        self._file.write(json.dumps(line_event(event)))

    def close(self) -> None:
        self._file.close()


def _regions(anomaly: Anomaly | None) -> list[dict[str, Any]]:
    return [
        {
            "box": [region.left, region.top, region.width, region.height],
            "area": region.area,
            "peak": round(region.peak, 4),
        }
        for region in (() if anomaly is None else anomaly.regions)
    ]


def _unclear(anomaly: Anomaly) -> dict[str, Any]:
    return {"unclear": anomaly.is_unclear, "unclear_from": anomaly.unclear_from}


def _judge(text: str) -> LastLine:
    try:
        if isinstance(json.loads(text), dict):
            return "whole"
    except (ValueError, RecursionError):
        pass
    # A power cut may leave zeros in the place of what was to come.
    begun = text.rstrip("\0")
    return "torn" if any(begun.startswith(key) or key.startswith(begun) for key in _BEGINNINGS) else "foreign"
