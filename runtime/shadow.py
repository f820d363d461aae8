"""A candidate beside the engine: it looks at some of the frames too, on a thread of its own, and decides nothing."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.backends import vouched
from runtime.closing import Closing
from runtime.event import Event, EventKind, Tell
from runtime.options import open_detector
from runtime.uri import parse_options, whole_number
from runtime.watchdog import Watchdog
from stlm_edge.datasets import GOOD
from stlm_edge.errors import ConfigError, StlmError, counted, shortly
from stlm_edge.names import escaped

if TYPE_CHECKING:
    from runtime.anomaly import Anomaly
    from runtime.config import CameraConfig
    from runtime.detector import Detector
    from runtime.inspection import Inspection

logger = logging.getLogger(__name__)

EVERY = 10
"""Of so many frames one is compared, unless another number is given."""
MOST_KEPT = 100
"""Frames of the summary in which both differ, the first ones; all are in the events."""
SHOWN = 10
"""Of these for people."""
_MOST_FAILURES = 3
"""In a row, after which the candidate is given up."""
_CLOSES_WITHIN_S = 10.0
_NICENESS = 10


@dataclass(frozen=True)
class Pair:
    """What both engines say of one frame in which their verdicts differ.

    Attributes:
        source: of the frame, escaped.
        label: where the source knows it.
    """

    frame: int
    source: str
    score: float
    threshold: float
    shadow_score: float
    shadow_threshold: float
    label: str | None


@dataclass(frozen=True)
class Verdicts:
    """Frames by what both engines say; what is unclear counts as good, since it is no anomaly."""

    both_good: int = 0
    only_engine: int = 0
    only_shadow: int = 0
    both_anomalous: int = 0

    @property
    def count(self) -> int:
        return self.both_good + self.only_engine + self.only_shadow + self.both_anomalous


@dataclass(frozen=True)
class ShadowSummary:
    """How a candidate compares with the engine, each by its own threshold.

    Attributes:
        engine, engine_sha256: the candidate's file and what it is known by.
        every: of so many frames one was to be compared.
        verdicts: of all frames that were.
        good, defective: of those whose label the source knows.
        too_slow: frames that were to be compared while the candidate was busy, and were not.
        failures: frames that it could not judge.
        gave_up: why it was given up; None if it was not.
        differ: the first frames in which the verdicts differ.
    """

    engine: str
    engine_sha256: str
    every: int
    verdicts: Verdicts
    good: Verdicts
    defective: Verdicts
    too_slow: int
    failures: int
    gave_up: str | None
    differ: tuple[Pair, ...]

    def lines(self) -> Iterator[str]:
        """For people: who calls what anomalous, and where they differ."""
        every = "every frame" if self.every == 1 else f"one frame in {self.every}"
        lacking = f", {self.too_slow} not, since it was busy" if self.too_slow else ""
        lacking += f", {counted(self.failures, 'frame')} failed" if self.failures else ""
        yield f"shadow             {self.engine}, {every}: {self.verdicts.count} compared{lacking}"
        if self.gave_up is not None:
            yield f"shadow ended       {self.gave_up}"
        if self.verdicts.count:
            yield f"{'':<19} {'both good':>12} {'only engine':>12} {'only shadow':>12} {'both anomal.':>12}"
            rows = {"all": self.verdicts, "labelled good": self.good, "labelled defect": self.defective}
            for name, row in rows.items():
                if row.count:
                    counts = (row.both_good, row.only_engine, row.only_shadow, row.both_anomalous)
                    yield f"{name:<19} " + " ".join(f"{count:12d}" for count in counts)
        for pair in self.differ[:SHOWN]:
            label = "" if pair.label is None else f", {pair.label}"
            yield (
                f"differ             frame {pair.frame} ({pair.source}{label}): {pair.score:.3f} of "
                f"{pair.threshold:.3f}, shadow {pair.shadow_score:.3f} of {pair.shadow_threshold:.3f}"
            )
        more = self.verdicts.only_engine + self.verdicts.only_shadow - len(self.differ[:SHOWN])
        if more > 0:
            yield f"                   and {counted(more, 'frame')} more: events.jsonl has all of them"


def asked_shadow(uri: str) -> tuple[Path, int, str]:
    """The engine of `ENGINE[?every=N]`, of how many frames it looks at one, and its SHA-256; nothing is opened.

    Raises:
        ConfigError: if an option is wrong.
        EngineError, SpecError: if the engine is not there, or was altered, or has no threshold.
    """
    path, _, query = uri.partition("?")
    try:
        every = int(parse_options(query, {"every": whole_number(least=1)}).get("every", EVERY))
    except ValueError as error:
        raise ConfigError(f"{uri} is no --shadow: {error}; give it as ENGINE?every=10") from None
    sidecar = vouched(Path(path))
    sidecar.spec.require_threshold()
    return Path(path), every, sidecar.engine.engine_sha256


class Shadow(Closing):
    """Compares a candidate with the engine. Owns its detector and its threads from `start` to `close`.

    It takes a frame only when it is done with the one before, and leaves out those that come meanwhile. Whatever
    happens to it, opening it included, is told by events and leaves the line alone.
    """

    def __init__(self, uri: str, config: CameraConfig, *, recipe: str | None, may_wait: bool) -> None:
        """
        Args:
            uri: `ENGINE[?every=N]`.
            config: of the camera, whose area and tiles the candidate has too.
            recipe: that the line begins with; frames of others are not compared.
            may_wait: `offer` waits until the candidate is ready for a frame, as it may for a recording.
        Raises:
            ConfigError, EngineError, SpecError: as `asked_shadow`.
        """
        self._path, self.every, self._sha256 = asked_shadow(uri)
        self._open = partial(
            open_detector,
            self._path,
            backend="auto",
            threshold=None,
            unclear=None,
            roi=config.roi,
            ignore=config.ignore,
            tile=config.tile,
        )
        self._limit_s = config.inference_timeout
        self._recipe = recipe
        self._may_wait = may_wait
        self._tell: Tell = lambda _: None
        self._changed = threading.Condition()
        self._waiting: Inspection | None = None
        self._is_busy = True  # until it is open
        self._is_closed = self._hangs = False
        self._gave_up: str | None = None
        self._counts: Counter[tuple[str, tuple[bool, bool]]] = Counter()
        self._differ: list[Pair] = []
        self._seen = self._too_slow = self._failures = self._in_a_row = 0
        self._thread: threading.Thread | None = None
        self._watchdog: Watchdog | None = None

    def start(self, tell: Tell) -> None:
        """Open the candidate on its own thread. `tell` takes its events, on any thread."""
        self._tell = tell
        # Not the one that ends the program: the line goes on without a candidate.
        self._watchdog = Watchdog(self._limit_s, on_hang=self._on_hang)
        # A daemon, since an engine's library may never come back.
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, inspection: Inspection, *, recipe: str | None) -> None:
        """Have a frame that the engine has judged compared, if it is its turn.

        Args:
            recipe: that judged it.
        """
        if recipe != self._recipe or self._gave_up is not None:
            return
        self._seen += 1
        if (self._seen - 1) % self.every:
            return
        with self._changed:
            if self._may_wait:
                self._changed.wait_for(lambda: not self._is_busy or self._is_over)
            if self._is_over:
                return
            if self._is_busy:
                self._too_slow += 1
                return
            self._waiting, self._is_busy = inspection, True
            self._changed.notify_all()

    @property
    def summary(self) -> ShadowSummary:
        """So far."""
        with self._changed:
            return ShadowSummary(
                engine=escaped(self._path.name),
                engine_sha256=self._sha256,
                every=self.every,
                verdicts=self._verdicts("all"),
                good=self._verdicts("good"),
                defective=self._verdicts("defective"),
                too_slow=self._too_slow,
                failures=self._failures,
                gave_up=self._gave_up,
                differ=tuple(self._differ),
            )

    def close(self) -> None:
        """Finish the frame in hand, if that ends in some seconds."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None and not self._hangs:
            self._thread.join(_CLOSES_WITHIN_S)
        if self._watchdog is not None:
            self._watchdog.close()

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._gave_up is not None

    def _run(self) -> None:
        with suppress(OSError):  # for this thread and those that its library starts; the line's come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            with self._open(watchdog=self._watchdog) as detector:
                while (inspection := self._next()) is not None:
                    self._judge(detector, inspection)
        except Exception as error:  # of its library too: the line goes on
            logger.debug("", exc_info=error)
            self._give_up(_told(error))

    def _next(self) -> Inspection | None:
        """What is to be compared next, once it is there; None at the end."""
        with self._changed:
            if self._waiting is None:
                self._is_busy = False
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting is not None or self._is_over)
            inspection, self._waiting = self._waiting, None
            return None if self._gave_up is not None else inspection

    def _judge(self, detector: Detector, inspection: Inspection) -> None:
        try:
            found = detector.inspect(inspection.frame.image)
        except Exception as error:
            self._failures += 1
            self._in_a_row += 1
            if self._in_a_row == _MOST_FAILURES:
                self._give_up(f"it failed {_MOST_FAILURES} times in a row, the last time by: {_told(error)}")
            elif self._in_a_row == 1:
                number = inspection.frame.index
                self._say("shadow-failed", f"{self._path} could not judge frame {number}: {_told(error)}")
            return
        self._in_a_row = 0
        if self._gave_up is None:  # or it came back from a hang
            self._compare(inspection, found)

    def _compare(self, inspection: Inspection, found: Anomaly) -> None:
        frame, own = inspection.frame, inspection.anomaly
        assert own is not None  # or it was not offered
        verdicts = own.is_anomalous, found.is_anomalous
        with self._changed:
            self._counts["all", verdicts] += 1
            if frame.label is not None:
                self._counts["good" if frame.label == GOOD else "defective", verdicts] += 1
        if own.is_anomalous == found.is_anomalous:
            return
        label = None if frame.label is None else escaped(frame.label)
        pair = Pair(frame.index, escaped(frame.source), own.score, own.threshold, found.score, found.threshold, label)
        with self._changed:
            if len(self._differ) < MOST_KEPT:
                self._differ.append(pair)
        said, other = ("anomalous", "good") if own.is_anomalous else ("good", "anomalous")
        text = (
            f"frame {frame.index} is {said} ({own.score:.3f} of {own.threshold:.3f}), and {other} by {self._path.name} "
            f"({found.score:.3f} of {found.threshold:.3f})"
        )
        details: dict[str, Any] = {
            "frame": frame.index,
            "source": pair.source,
            "score": own.score,
            "threshold": own.threshold,
            "shadow_score": found.score,
            "shadow_threshold": found.threshold,
            "shadow_engine_sha256": self._sha256,
        }
        self._say("shadow-differs", text, details)

    def _verdicts(self, name: str) -> Verdicts:
        pairs = ((False, False), (True, False), (False, True), (True, True))
        return Verdicts(*(self._counts[name, pair] for pair in pairs))

    def _on_hang(self, text: str) -> None:
        self._hangs = True
        self._give_up(text)

    def _give_up(self, reason: str) -> None:
        with self._changed:
            if self._is_over:
                return
            self._gave_up = reason
            self._changed.notify_all()
        self._say("shadow-failed", f"{self._path} is compared no more, and the line goes on: {reason}")

    def _say(self, kind: EventKind, text: str, details: dict[str, Any] | None = None) -> None:
        self._tell(Event(kind, text, time.monotonic(), details or {}))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, StlmError) else f"{type(error).__name__}: {shortly(error)}"
