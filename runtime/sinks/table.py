"""`scores.csv`: the verdicts as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from runtime.inspection import VERDICT_STAGES, Inspection
from runtime.sinks.base import FrameSink, SinkContext, output_options
from runtime.sinks.events import verdict_event
from runtime.sinks.lines import ROTATION_OPTIONS, LineFile, Rotation
from stlm_edge.names import defused

COLUMNS = (
    *("time", "frame", "source", "score", "threshold", "anomalous", "alarm", "part", "fault", "regions", "label"),
    *(f"{stage}_ms" for stage in VERDICT_STAGES),
    "engine_sha256",
)
"""As in `verdict_event`; `regions` is their number, what is not known is empty, and no cell is a formula."""


class ScoreTable(FrameSink):
    """Appends one row per verdict below a header. It keeps and sets aside what was there, like `EventLog`."""

    takes_pictures = False

    def __init__(self, path: Path, *, engine_sha256: str, rotation: Rotation) -> None:
        """Raises `OutputError` if the file cannot be written or has other columns."""
        self._engine_sha256 = engine_sha256
        self._file = LineFile(path, rotation=rotation, header=_row(COLUMNS))

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> ScoreTable:
        """Raises `OutputError` on unknown options too."""
        rotation = Rotation(**output_options(uri, ROTATION_OPTIONS))
        return cls(Path(uri.partition("?")[0]), engine_sha256=context.engine_sha256, rotation=rotation)

    def write(self, inspection: Inspection) -> None:
        event = verdict_event(inspection, engine_sha256=self._engine_sha256)
        event.update({f"{stage}_ms": latency for stage, latency in event["latency_ms"].items()})
        event["regions"] = len(event["regions"])
        event.update({name: defused(text) for name in ("source", "label") if (text := event.get(name)) is not None})
        self._file.write(_row(event.get(column) for column in COLUMNS))

    def close(self) -> None:
        self._file.close()


def _row(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
