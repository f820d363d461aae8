"""Counts what `events.jsonl` tells of a shift, line by line, in memory that does not grow with the number of lines."""

from __future__ import annotations

import gzip
import heapq
import json
import math
import re
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, TypeGuard

import numpy as np

from runtime.event import FREQUENT
from runtime.inspection import VERDICT_STAGES
from runtime.part import VERDICTS
from runtime.timing import LatencyHistogram
from stlm_edge.errors import DataError
from stlm_edge.files import require_regular
from stlm_edge.names import escaped

GRID = 40
"""Cells of the map of regions, across and down."""
SIZES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Bounds of the classes of regions by size, as shares of the frame."""
WORST = 20
MOST_EVENTS = 100
_LONGEST_LINE = 1 << 20
_ROWS = 20_000
_MOST_GROUPS = 200
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:[0-5]\d:[0-5]\d(\.\d{3}|\.\d{6})?\+00:00", re.ASCII)
_NAME = re.compile(r"(?P<log>.*\.jsonl)(?:\.(?P<number>\d+))?(?:\.gz)?$")


@dataclass
class Units:
    """What is counted of the parts of a shift, or of its frames.

    Attributes:
        hours: UTC, as `2026-11-25T22` → verdict → how many.
        groups: log, recipe and engine → the same.
        scores: verdict → score, rounded to three digits → how many.
        good: hour → how many good ones, and the sum of their scores.
        thresholds: score, and the lower one or None → how many.
        worst: those with the highest scores, as a heap: score, a running number, the event.
        centres: (40, 40), down and across the frame: regions of what was not good, by their centre.
        sizes: class of `SIZES` → how many regions.
        frame_sizes: height and width → how many regions.
        unplaced: regions of frames whose size nobody told, as in logs of older versions.
    """

    hours: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    groups: defaultdict[tuple[str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    scores: defaultdict[str, Counter[float]] = field(default_factory=lambda: defaultdict(Counter))
    good: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))
    thresholds: Counter[tuple[float, float | None]] = field(default_factory=Counter)
    worst: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    centres: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros((GRID, GRID), np.int64))
    sizes: Counter[int] = field(default_factory=Counter)
    frame_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    unplaced: int = 0
    _ties: int = 0

    @property
    def verdicts(self) -> Counter[str]:
        """Verdict → how many, over all."""
        return sum(self.hours.values(), Counter[str]())

    def add(self, hour: str, verdict: str, *, group: tuple[str, str, str], found: dict[str, Any], event: Any) -> None:
        """Count one.

        Args:
            found: has `score`, `threshold`, `regions` and `frame_size`, of a part those of its worst frame.
            event: the whole line, for `worst`.
        """
        score, threshold, lower = found.get("score"), found.get("threshold"), found.get("unclear_from")
        regions = [] if verdict == "good" else _boxes(found)  # raises before anything is counted
        if is_number(score) and is_number(threshold):
            if len(self.thresholds) < _MOST_GROUPS:
                self.thresholds[threshold, lower if is_number(lower) else None] += 1
            self.scores[verdict][float(f"{score:.3g}")] += 1
            if verdict == "good":
                of_hour = self.good[hour]
                of_hour[0] += 1
                of_hour[1] += score
            if len(self.worst) < WORST or score > self.worst[0][0]:
                self._ties += 1
                heapq.heappush(self.worst, (score, self._ties, event | {"log": group[0]}))
                if len(self.worst) > WORST:
                    heapq.heappop(self.worst)
        self.hours[hour][verdict] += 1
        is_known = group in self.groups or len(self.groups) < _MOST_GROUPS
        self.groups[group if is_known else ("others", "", "")][verdict] += 1
        for box in regions:
            self._place(box, found.get("frame_size"))

    def _place(self, box: Sequence[float], size: Any) -> None:
        if not (isinstance(size, list) and len(size) == 2 and all(is_number(side) and side > 0 for side in size)):
            self.unplaced += 1
            return
        left, top, width, height = box
        down, across = (top + height / 2) / size[0], (left + width / 2) / size[1]
        self.centres[_cell(down), _cell(across)] += 1
        self.sizes[sum(width * height / (size[0] * size[1]) >= bound for bound in SIZES)] += 1
        if len(self.frame_sizes) < _MOST_GROUPS:
            self.frame_sizes[int(size[0]), int(size[1])] += 1


class Tally:
    """What a shift amounted to.

    Attributes:
        parts, frames: of a line with parts, the former are what counts.
        faults: kind of fault → frames.
        latency: stage → times in ms.
        kinds: kind of event → how many.
        events: the last of them, less those that may come with every frame: time, log, kind, text.
        drift: time and kind of each event of drift, the last ones.
        outages_s: log → seconds for which each outage of its camera lasted, the last ones.
        first, last: time of the first and the last line.
        unreadable: lines that nobody could read, and where the first one stands.
        cut: files that end in their middle.
    """

    def __init__(self, *, since: datetime | None = None, until: datetime | None = None) -> None:
        """Args: since, until: by this machine's time; None for all."""
        self.parts, self.frames = Units(), Units()
        self.faults: Counter[str] = Counter()
        self.latency = {stage: LatencyHistogram() for stage in (*VERDICT_STAGES, "part")}
        self.kinds: Counter[str] = Counter()
        self.events: deque[tuple[str, str, str, str]] = deque(maxlen=MOST_EVENTS)
        self.drift: deque[tuple[str, str]] = deque(maxlen=MOST_EVENTS)
        self.outages_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=10_000))
        self.first, self.last = "~", ""
        self.lines = self.unreadable = 0
        self.first_unreadable: str | None = None
        self.cut: list[str] = []
        self._since = "" if since is None else _utc(since)
        self._until = "~" if until is None else _utc(until)
        self._hours: set[str] = set()
        self._lost: dict[str, str] = {}
        self._rows: list[tuple[float, ...]] = []

    def read(self, paths: Sequence[Path]) -> None:
        """Count all lines of some logs, each from its oldest file to its newest.

        Raises:
            DataError: if a file cannot be read, is given twice or nothing of all could be read.
        """
        real = [path.resolve() for path in paths]
        if len(set(real)) < len(real):
            twice = next(path for path, place in zip(paths, real, strict=True) if real.count(place) > 1)
            raise DataError(f"{twice} is given twice, expected each file once")
        for path in sorted(paths, key=_age):
            log = escaped(_log_of(path, paths))
            for number, line in _lines(path, self.cut):
                self.lines += 1
                try:
                    event = json.loads(line)
                    self._add(event, log=log)
                except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                    if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                        continue  # is being written, or was when the power failed
                    self.unreadable += 1
                    self.first_unreadable = self.first_unreadable or f"{escaped(str(path))}:{number}"
        self._flush()
        for log, lost in self._lost.items():
            self._back(log, lost, self.last)
        if not self.last:
            when = "" if (self._since, self._until) == ("", "~") else " of the time that was asked for"
            raise DataError(
                f"found no event{when} in {', '.join(map(str, paths))}, expected lines that --output events.jsonl has "
                "written; give another file or time"
            )

    @property
    def units(self) -> Units:
        """The parts where there are any, else the frames."""
        return self.parts if self.parts.hours else self.frames

    def _add(self, event: Any, *, log: str) -> None:
        time = event["time"]
        hour = time[:13]
        if not _TIME.fullmatch(time):
            raise ValueError(time)
        if hour not in self._hours:
            datetime.fromisoformat(f"{hour}:00")
            self._hours.add(hour)
        if not self._since <= time < self._until:
            return
        if "event" not in event:
            self._add_frame(event, hour, log=log)
        elif event["event"] == "part-result":
            self._add_part(event, hour, log=log)
        else:
            self._add_event(str(event["event"]), time, str(event["text"]), log=log)
        self.first, self.last = min(self.first, time), max(self.last, time)

    def _add_frame(self, event: dict[str, Any], hour: str, *, log: str) -> None:
        fault = event.get("fault")
        verdict = "reject" if event["anomalous"] else "unclear" if event.get("unclear") else "good"
        latency = event["latency_ms"]
        row = tuple(float(latency[stage]) for stage in VERDICT_STAGES)
        group = (log, "", str(event.get("engine_sha256", ""))[:12])
        self.frames.add(hour, "fault" if fault else verdict, group=group, found=event, event=event)
        if fault:
            self.faults[str(fault)[:40] if len(self.faults) < _MOST_GROUPS else "others"] += 1
            return
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _add_part(self, event: dict[str, Any], hour: str, *, log: str) -> None:
        verdict = event["part_result"]
        if verdict not in VERDICTS:
            raise ValueError(verdict)
        group = (log, str(event.get("recipe", "")), str(event.get("engine_sha256", ""))[:12])
        found = event["worst"] or {}
        part_ms = float(event["part_ms"])
        self.parts.add(hour, verdict, group=group, found=found, event=event)
        self.latency["part"].add(part_ms)

    def _add_event(self, kind: str, time: str, text: str, *, log: str) -> None:
        self.kinds[kind if kind in self.kinds or len(self.kinds) < _MOST_GROUPS else "others"] += 1
        if kind not in FREQUENT:
            self.events.append((time, log, kind, text))
        if kind.startswith("drift"):
            self.drift.append((time, kind))
        elif kind == "camera-lost":
            self._lost.setdefault(log, time)
        elif kind == "camera-back" and log in self._lost:
            self._back(log, self._lost.pop(log), time)

    def _back(self, log: str, lost: str, back: str) -> None:
        outage_s = (datetime.fromisoformat(back) - datetime.fromisoformat(lost)).total_seconds()
        self.outages_s[log].append(max(0.0, outage_s))

    def _flush(self) -> None:
        times = np.array(self._rows).reshape(-1, len(VERDICT_STAGES))
        for stage, column in zip(VERDICT_STAGES, times.T, strict=True):
            self.latency[stage].add_all(column[np.isfinite(column)])
        self._rows.clear()


def is_number(value: Any) -> TypeGuard[float]:
    """Whether something of JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _boxes(found: dict[str, Any]) -> list[tuple[float, float, float, float]]:
    """Raises `ValueError` and others on what is no box."""
    boxes = []
    for region in found.get("regions", []):
        left, top, width, height = region["box"]
        if not all(map(is_number, (left, top, width, height))):
            raise ValueError(region)
        boxes.append((left, top, width, height))
    return boxes


def _cell(place: float) -> int:
    return min(GRID - 1, max(0, int(place * GRID)))


def _utc(local: datetime) -> str:
    return local.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def _age(path: Path) -> tuple[str, int]:
    """Of a log's files the one that was set aside first comes first."""
    match = _NAME.match(str(path))
    return (match["log"], -int(match["number"] or 0)) if match else (str(path), 0)


def _log_of(path: Path, paths: Sequence[Path]) -> str:
    """What a log is called: by its name, or its path where others have the same name."""
    logs = {_age(each)[0] for each in paths}
    own = _age(path)[0]
    name = Path(own).name
    return name if sum(Path(log).name == name for log in logs) == 1 else own


def _lines(path: Path, cut: list[str]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, packed or not, and their numbers; its name goes into `cut` if it ends in its middle."""
    number = 0
    try:
        require_regular(path)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            opened: IO[bytes] = file  # type: ignore[assignment]
            try:
                while line := opened.readline(_LONGEST_LINE):
                    number += 1
                    yield number, line
            except (EOFError, zlib.error, gzip.BadGzipFile):
                cut.append(escaped(str(path)))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}), expected a file that --output events.jsonl has "
            "written; check the path"
        ) from None
