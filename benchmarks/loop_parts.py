"""What `benchmarks.loop` measures of parts: every trigger has its one result, at the rate that the backend gives."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.loop_measures import pictures_of, run_line
from runtime.detector import Detector
from runtime.inspection import Inspection
from runtime.part import Part
from runtime.parts import PartRule
from runtime.sinks import FrameSink
from runtime.sources import Frame
from runtime.sources.live import LiveSource
from runtime.sources.shape import QUEUE
from stlm_edge.errors import VerificationError
from stlm_edge.imaging import Image
from stlm_edge.spec import Size

_TIMEOUT_S = 60.0


class _SignalledCamera(LiveSource):
    """A camera that is triggered whenever its queue has room: as fast as the line can go, and never faster."""

    def __init__(self, pictures: Sequence[Image], *, frames: int) -> None:
        super().__init__(name="signalled", timeout_s=_TIMEOUT_S, queue=QUEUE)
        self._pictures, self._left = pictures, frames
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._arrived.notify_all()
        self._thread.join()

    def _take(self) -> Frame | None:
        frame = super()._take()
        self._arrived.notify_all()
        return frame

    def _run(self) -> None:
        with self._lock:
            for index in range(self._left):
                self._arrived.wait_for(lambda: len(self._frames) < QUEUE or self._closing)
                if self._closing:
                    return
                picture = self._pictures[index % len(self._pictures)]
                self._put(Frame(picture, index, time.monotonic(), "memory", "good"))
            self._end(None)


class _Results(FrameSink):
    """Keeps the results, and when the last one came."""

    takes_pictures = False

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.came_s = 0.0

    def write(self, inspection: Inspection) -> None:
        """Frames are not what is counted here."""

    def write_part(self, part: Part) -> None:
        self.came_s = time.monotonic()
        self.parts.append(part)

    def close(self) -> None:
        """Nothing is held."""


def triggered(detector: Detector, *, parts: int, frame_size: Size) -> tuple[float, dict[str, int]]:
    """Run so many parts of one frame each, one trigger after the other.

    Returns:
        Parts a second, and how many have which verdict.
    Raises:
        VerificationError: if a part has no result, or more than one, or not in its turn, or was not judged.
    """
    results = _Results()
    with _SignalledCamera(pictures_of(frame_size), frames=parts) as camera:
        start_s = time.monotonic()
        run_line(camera, detector, sinks={"results": results}, rule=PartRule("hardware"))
    verdicts = require_each_once(results.parts, parts=parts)
    return parts / (results.came_s - start_s), verdicts


def require_each_once(results: Sequence[Part], *, parts: int) -> dict[str, int]:
    """How many have which verdict. Raises `VerificationError` unless there is one for each part, in order, judged."""
    counts = Counter(part.number for part in results)
    twice = sum(count > 1 for count in counts.values())
    missing = parts - len(counts)
    disordered = sum(before.number >= after.number for before, after in pairwise(results))
    verdicts: Counter[str] = Counter(part.verdict for part in results)
    unjudged = verdicts["missed"] + verdicts["fault"]
    if twice or missing or disordered or unjudged:
        raise VerificationError(
            f"of {parts} triggered parts {missing} have no result, {twice} have more than one, {disordered} came out "
            f"of order and {unjudged} were not judged, expected none; look at runtime/parts.py"
        )
    return dict(verdicts)
