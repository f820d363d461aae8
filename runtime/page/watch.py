"""What a page knows of one camera: an output among the others, which only remembers."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from runtime.event import Event
from runtime.inspection import Inspection
from runtime.line_control import Control
from runtime.page.pictures import LivePicture
from runtime.page.rows import KEPT, Row, last_rows, row_of_event, row_of_frame, row_of_part, verdict_of
from runtime.part import VERDICTS, Part
from runtime.sinks.base import FrameSink, utc
from runtime.sinks.outputs import Outputs
from runtime.timing import FrameRate
from stlm_edge.credentials import safe_name, without_credentials
from stlm_edge.names import escaped, printable

PAGE = "page"
"""Its name among the outputs."""
SHOWN = 600
"""Rows that a page begins with."""
FRAME_VERDICTS = ("good", "unclear", "anomalous", "fault")
_LATENCIES = 500
"""The last ones, of which percentiles are told."""
_HANGS_AFTER_S = 20.0
"""A line tells of progress after each frame, and every five seconds where none comes."""
_STILL_S = 3.0
"""Without a frame for so long, the pace is 0."""

OK, STARTING, LOST, FAULT = "ok", "starting", "camera-lost", "camera-fault"
HANGS, ENDED = "hangs", "ended"


class CameraWatch(FrameSink):
    """Remembers the last of what comes, and tells it to whoever asks on another thread.

    Attributes:
        name: of the camera.
        output: its own name among the outputs.
        outputs: of the line, whose states are told; set once they are open.
    """

    output = PAGE
    is_measured = False  # it only remembers, and would halve the figures of those that write

    def __init__(
        self, name: str, *, control: Control, recipes: Sequence[str], can_trigger: bool, events: Path | None
    ) -> None:
        """
        Args:
            events: a file that the line writes to, whose last rows are remembered from the start.
        """
        self.name = name
        self.outputs: Outputs | None = None
        self.control = control
        self.picture = LivePicture(name)
        self._recipes, self._can_trigger = recipes, can_trigger
        self._has_parts = control.parts is not None
        self._lock = threading.Lock()
        earlier = [] if events is None else last_rows(events, has_parts=self._has_parts)
        self._rows: deque[tuple[int, Row]] = deque(enumerate(earlier, 1), maxlen=KEPT)
        self._number = len(earlier)
        self._counts: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._part_latencies_ms: deque[float] = deque(maxlen=_LATENCIES)
        self._rate, self._fps, self._frame_s = FrameRate(), 0.0, 0.0
        self._frames = 0
        self._threshold: float | None = None
        self._unclear_from: float | None = None
        self._troubles: dict[str, str] = {}
        self._began = utc(time.monotonic()).isoformat(timespec="seconds")

    def write(self, inspection: Inspection) -> None:
        assert inspection.picture is not None
        self.picture.put(inspection.picture)
        with self._lock:
            self._frames += 1
            self._frame_s = time.monotonic()
            self._fps = self._rate.tick(inspection.frame.timestamp_s)
            self._threshold = inspection.threshold
            if inspection.anomaly is not None:
                self._unclear_from = inspection.anomaly.unclear_from
                self._latencies_ms.append(inspection.latency.total_ms)
            if not self._has_parts:
                self._counts[verdict_of(inspection)] += 1
                self._add(row_of_frame(inspection))

    def write_part(self, part: Part) -> None:
        with self._lock:
            self._counts[part.verdict] += 1
            self._part_latencies_ms.append(part.latency_ms)
            self._add(row_of_part(part))

    def write_event(self, event: Event) -> None:
        with self._lock:
            row = row_of_event(event)
            what, _, over = event.kind.rpartition("-")
            if event.kind in ("camera-lost", "camera-fault", "drift"):
                self._troubles[event.kind] = row.text or ""
            elif over == "over":
                self._troubles.pop(what, None)
            elif event.kind == "camera-back":
                self._troubles.pop(LOST, None)
            self._add(row)

    def close(self) -> None:
        self.picture.close()

    def health(self) -> str:
        """`ok` while frames are judged as they come; otherwise why not, in one word."""
        if self.control.has_ended:
            return ENDED
        if not self.control.has_begun:
            return STARTING
        for trouble in (LOST, FAULT):
            if trouble in self._troubles:
                return trouble
        return HANGS if time.monotonic() - self.control.status().progress_s > _HANGS_AFTER_S else OK

    def last(self, count: int) -> list[Row]:
        """The last rows, oldest first."""
        with self._lock:
            return [row for _, row in self._rows][-count:]

    def told(self, *, after: int) -> dict[str, Any]:
        """All that a page shows, ready for JSON.

        Args:
            after: the number of the last row that the page has; 0 for none.
        """
        status, outputs = self.control.status(), self.outputs
        lost = {} if outputs is None else _lost(outputs)
        with self._lock:
            new = list(takewhile(lambda numbered: numbered[0] > after, reversed(self._rows)))[:SHOWN]
            return {
                "name": self.name,
                "health": self.health(),
                "troubles": {**self._troubles, **lost},
                "began": self._began,
                "frames": self._frames,
                "fps": self._fps if time.monotonic() - self._frame_s < _STILL_S else 0.0,
                "has_parts": self._has_parts,
                "counts": {each: self._counts[each] for each in (VERDICTS if self._has_parts else FRAME_VERDICTS)},
                "can_trigger": self._can_trigger,
                "ready": status.ready,
                "recipe": status.recipe,
                "recipes": list(self._recipes),
                "watches_drift": self.control.judge.drift is not None,
                "threshold": self._threshold,
                "unclear_from": self._unclear_from,
                "latency_ms": _percentiles(self._latencies_ms),
                "part_ms": _percentiles(self._part_latencies_ms),
                "outputs": [] if outputs is None else _states(outputs),
                "rows": [[number, *row] for number, row in reversed(new)],
                "number": self._number,
            }

    def _add(self, row: Row) -> None:
        self._number += 1
        self._rows.append((self._number, row))


def _percentiles(latencies_ms: Sequence[float]) -> list[float]:
    """p50 and p95; nothing where there are none."""
    return [] if not latencies_ms else [float(each) for each in np.percentile(latencies_ms, (50, 95))]


def _lost(outputs: Outputs) -> dict[str, str]:
    """Why outputs take nothing now, by their names."""
    return {
        f"output {escaped(safe_name(name))}": printable(without_credentials(trouble))
        for name, trouble in outputs.troubles.items()
        if trouble is not None
    }


def _states(outputs: Outputs) -> list[list[Any]]:
    """Name, state, frames or parts dropped and failed, of each."""
    drops, failures = outputs.drops, outputs.failures
    return [
        [escaped(safe_name(name)), escaped(state), drops[name], failures[name]]
        for name, state in outputs.states.items()
        if name != PAGE
    ]
