"""A folder of frames as they came, with what the line said of each, to learn from; docs/keep.md has its format."""

from __future__ import annotations

import json
import logging
import math
import random
import re
from collections import Counter, deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.anomaly import Anomaly
from runtime.inspection import Inspection
from runtime.part import VERDICTS, Part
from runtime.sinks.base import FrameSink, SinkContext, output_options, utc
from runtime.sinks.events import part_event, verdict_event
from runtime.sinks.space import BoundedFiles, time_stamp
from runtime.uri import Option, allowed, choice, size_in_bytes
from stlm_edge.errors import OutputError
from stlm_edge.files import make_folder, write_bytes, write_text
from stlm_edge.folders import PICTURE_SUFFIXES
from stlm_edge.imaging import Image, encode_image, resize_map
from stlm_edge.names import escaped

logger = logging.getLogger(__name__)

_WORDS: dict[str, set[str]] = {word: {word} for word in map(str, VERDICTS)}
_WORDS |= {"anomalies": set[str](VERDICTS) - {"good"}, "all": set(VERDICTS)}
_LIMIT = 5 * 10**9
_NEAR = 6.0
_REMEMBERED, _REMEMBERED_S = 500, 600.0
"""Frames that were kept and that others are compared with."""
_SIDE = 48
_LONGEST_MAP = 512


def _only(text: str) -> set[str]:
    """Raises `ValueError`."""
    try:
        return set().union(*(_WORDS[word] for word in text.split(",")))
    except KeyError:
        raise ValueError(text) from None


def _share(text: str) -> float:
    """Raises `ValueError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text, flags=re.ASCII)
    if match is None or not 0 < float(match[1]) <= 100:
        raise ValueError(text)
    return float(match[1]) / 100


_NUMBER = allowed(float, lambda value: 0 <= value < math.inf)
_OPTIONS = {
    "what": choice("raw"),
    "only": Option(_only, f"one or several of {', '.join(_WORDS)}, with commas between them"),
    "good": Option(_share, "a share, as in 1% or 0.5%"),
    "every": Option(_NUMBER, "a number of seconds from 0 on"),
    "near": Option(allowed(float, lambda value: 0 <= value <= 255), "a distance in grey levels from 0 to 255"),
    "limit": size_in_bytes(least=10**6),
}


class KeptFrames(FrameSink):
    """Keeps frames, or the worst frame of each part, with the verdict and the map beside them, within a limit.

    The JSON is written last and removed first, so what it names is there. Which good ones are drawn differs from run to
    run. Frames whose fault leaves nothing to look at are kept where they are asked for.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: SinkContext,
        only: Collection[str] = VERDICTS,
        good: float = 0.0,
        every: float = 0.0,
        near: float = _NEAR,
        limit: int = _LIMIT,
    ) -> None:
        """
        Args:
            only: verdicts of parts, or where there are none of frames, that are kept.
            good: share of the good ones that is kept though `only` leaves them out, 0 to 1.
            every: at most one in so many seconds of each verdict.
            near: a frame that differs by less than this from one kept before is left out; see `distance`.
            limit: bytes.
        Raises:
            OutputError: if the folder cannot be made or written to.
        """
        make_folder(path)
        self.takes_frames = not context.has_parts
        self._path = path
        self._context = context
        self._only, self._good, self._every_s, self._near = only, good, every, near
        self._draw = random.Random()
        self._kept_s: dict[str, float] = {}
        self._looks: deque[tuple[float, NDArray[np.float32]]] = deque(maxlen=_REMEMBERED)
        self._left_out: Counter[str] = Counter()
        self._kept, self._all_left_out = 0, Counter[str]()
        suffixes = [".json", ".map", *sorted(PICTURE_SUFFIXES)]
        self._files = BoundedFiles(path, rest=r"-\d{6,}-[0-9a-f]{8}", suffixes=suffixes, limit=limit)

    @classmethod
    def check(cls, uri: str) -> None:
        _asked(uri)

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> KeptFrames:
        """Raises `OutputError` on unknown options too."""
        return cls(Path(uri.partition("?")[0]), context=context, **_asked(uri))

    @property
    def state(self) -> str:
        return f"{self._kept} frames kept, {self._all_left_out['near']} left out as near duplicates"

    def write(self, inspection: Inspection) -> bool:
        return not self._context.has_parts and self._consider(inspection, part=None, verdict=_verdict(inspection))

    def write_part(self, part: Part) -> bool:
        return part.worst is not None and self._consider(part.worst, part=part, verdict=part.verdict)

    def close(self) -> None:
        """Each frame is finished when it is written."""
        logger.info("%s: %s, %d by every=", self._path, self.state, self._all_left_out["every"])

    def _consider(self, inspection: Inspection, *, part: Part | None, verdict: str) -> bool:
        """Whether the frame was kept."""
        is_drawn = verdict == "good" and self._draw.random() < self._good
        if verdict not in self._only and not is_drawn:
            return False
        frame = inspection.frame
        if not frame.image.size:
            raise OutputError(f"{self._path} is too slow for the line, the pictures of some parts are not kept")
        now_s = frame.timestamp_s
        if now_s - self._kept_s.get(verdict, -math.inf) < self._every_s:
            return self._leave_out("every")
        look = look_of(frame.image)
        while self._looks and now_s - self._looks[0][0] > _REMEMBERED_S:
            self._looks.popleft()
        if self._near and any(distance(look, other) < self._near for _, other in self._looks):
            return self._leave_out("near")
        self._keep(inspection, part=part, verdict=verdict)
        self._kept_s[verdict] = now_s
        self._looks.append((now_s, look))
        self._left_out.clear()
        self._kept += 1
        return True

    def _leave_out(self, reason: str) -> bool:
        self._left_out[reason] += 1
        self._all_left_out[reason] += 1
        return False

    def _keep(self, inspection: Inspection, *, part: Part | None, verdict: str) -> None:
        frame, context = inspection.frame, self._context
        stem = f"{time_stamp(utc(frame.timestamp_s))}-{frame.index:06d}-{context.run[:8]}"
        picture = self._path / (stem + _suffix(inspection))
        written = [picture]
        try:
            write_bytes(picture, frame.file if picture.suffix != ".png" and frame.file else _png(inspection))
            of_map: dict[str, Any] | None = None
            if inspection.anomaly is not None:
                written.insert(0, self._path / f"{stem}.map")
                pixels, of_map = _small_map(inspection.anomaly)
                write_bytes(written[0], encode_image(pixels, suffix=".png"))
                of_map = {"file": written[0].name, **of_map}
            told = {
                "format": 1,
                "picture": picture.name,
                "size": list(frame.image.shape[:2]),
                "kept_as": verdict,
                "camera": None if context.camera is None else escaped(context.camera),
                "recipe": None if inspection.recipe is None else escaped(inspection.recipe),
                "run": context.run,
                "verdict": verdict_event(inspection, engine_sha256=context.engine_sha256),
                "part": None if part is None else part_event(part, engine_sha256=context.engine_sha256),
                "map": of_map,
                "left_out": {"near": self._left_out["near"], "every": self._left_out["every"]},
            }
            written.insert(0, self._path / f"{stem}.json")
            write_text(written[0], json.dumps(told, indent=1))
        except BaseException:
            for path in written:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
        self._files.add(*written)


def look_of(image: Image) -> NDArray[np.float32]:
    """(48, 48): a picture in grey cells, less their mean."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    cells = np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(cells - cells.mean(), np.float32)


def distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Of two looks: that of the cells which differ most, in grey levels of 255.

    The largest and not the mean, since a small defect changes one cell alone. `stlm_edge.datasets.near_duplicates`
    compares each picture with what all of them share, of which a stream knows nothing.
    """
    return float(np.abs(first - second).max())


def _verdict(inspection: Inspection) -> str:
    """Of a frame alone, by the words for parts."""
    anomaly = inspection.anomaly
    if anomaly is None:
        return "fault"
    return "reject" if anomaly.is_anomalous else "unclear" if anomaly.is_unclear else "good"


def _suffix(inspection: Inspection) -> str:
    """Of the picture: that of its own file where there is one that is known by it, else `.png`."""
    file = inspection.frame.file
    if file is None:
        return ".png"
    if file.startswith(b"\xff\xd8"):
        return ".jpg"
    suffix = Path(inspection.frame.source).suffix.lower()
    return suffix if suffix in PICTURE_SUFFIXES else ".png"


def _png(inspection: Inspection) -> bytes:
    """The picture's own file if it is a PNG, else one of its pixels."""
    frame = inspection.frame
    if frame.file is not None and frame.file.startswith(b"\x89PNG"):
        return frame.file
    return encode_image(frame.image, suffix=".png")


def _small_map(anomaly: Anomaly) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """(h, w) uint8 of the whole frame, and its `size`, `low` and `high`."""
    found = anomaly.coarse_map
    longest = max(found.shape)
    if longest > _LONGEST_MAP:
        height, width = (max(1, round(side * _LONGEST_MAP / longest)) for side in found.shape)
        found = resize_map(found, (height, width))
    if anomaly.area is not None:
        found = found * cv2.resize(anomaly.area.mask, found.shape[::-1], interpolation=cv2.INTER_NEAREST)
    low, high = float(found.min()), float(found.max())
    levels = np.rint((found - low) * (255 / (high - low or 1.0))).astype(np.uint8)
    return levels, {"size": list(levels.shape), "low": low, "high": high}


def _asked(uri: str) -> dict[str, Any]:
    """The options of an output. Raises `OutputError`."""
    options = output_options(uri, _OPTIONS)
    del options["what"]
    if "good" in options and "good" in options.get("only", VERDICTS):
        raise OutputError(
            f"{uri} keeps a share of the good ones and all of them; leave good= out, or say by only=reject,unclear "
            "what else is to be kept"
        )
    return options
