"""`scores.csv`: the verdicts as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from runtime.inspection import VERDICT_STAGES, Inspection
from runtime.part import Part
from runtime.sinks.base import FrameSink, SinkContext, output_options
from runtime.sinks.events import part_event, verdict_event
from runtime.sinks.lines import ROTATION_OPTIONS, LineFile, Rotation
from runtime.uri import choice
from stlm_edge.names import defused

COLUMNS = (
    *("time", "frame", "source", "score", "threshold", "anomalous", "alarm", "part", "fault", "regions", "label"),
    *(f"{stage}_ms" for stage in VERDICT_STAGES),
    "engine_sha256",
)
"""As in `verdict_event`; `regions` is their number, what is not known is empty, and no cell is a formula."""

PART_COLUMNS = (
    *("time", "part", "part_id", "part_result", "frames", "part_ms", "recipe"),
    *("frame", "source", "score", "threshold", "regions", "engine_sha256"),
)
"""As in `part_event`, those of the worst frame last; otherwise the same."""

Rows = Literal["frames", "parts"]
_OPTIONS = ROTATION_OPTIONS | {"rows": choice(*get_args(Rows))}
_TEXTS = ("source", "label", "part_id", "recipe")


class ScoreTable(FrameSink):
    """Appends one row per frame, or per part, below a header. Keeps and sets aside what was there, like `EventLog`."""

    takes_pictures = False

    def __init__(self, path: Path, *, engine_sha256: str, rotation: Rotation, rows: Rows = "frames") -> None:
        """Raises `OutputError` if the file cannot be written or has other columns."""
        self._engine_sha256 = engine_sha256
        self._rows = rows
        self._columns = COLUMNS if rows == "frames" else PART_COLUMNS
        self._file = LineFile(path, rotation=rotation, header=_row(self._columns))

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, _OPTIONS)

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> ScoreTable:
        """Raises `OutputError` on unknown options too."""
        options = output_options(uri, _OPTIONS)
        rows = options.pop("rows", "frames")
        if rows == "parts":
            context.require_parts(uri)
        path = Path(uri.partition("?")[0])
        return cls(path, engine_sha256=context.engine_sha256, rotation=Rotation(**options), rows=rows)

    def write(self, inspection: Inspection) -> bool:
        if self._rows == "frames":
            event = verdict_event(inspection, engine_sha256=self._engine_sha256)
            event.update({f"{stage}_ms": latency for stage, latency in event["latency_ms"].items()})
            self._append(event)
        return self._rows == "frames"

    def write_part(self, part: Part) -> bool:
        if self._rows == "parts":
            event = part_event(part, engine_sha256=self._engine_sha256)
            self._append(event | (event["worst"] or {"regions": []}))
        return self._rows == "parts"

    def _append(self, event: dict[str, Any]) -> None:
        event["regions"] = len(event["regions"])
        event.update({name: defused(text) for name in _TEXTS if (text := event.get(name)) is not None})
        self._file.write(_row(event.get(column) for column in self._columns))

    def close(self) -> None:
        self._file.close()


def _row(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
