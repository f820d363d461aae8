"""Pictures to be reviewed: what `what=raw` keeps (docs/keep.md), and plain folders of pictures."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stlm_edge.errors import DataError, ImageError
from stlm_edge.folders import pictures_below
from stlm_edge.imaging import Map, read_pixels
from stlm_edge.names import unescaped
from stlm_edge.records import read_object

_OF_THE_LINE = re.compile(r"\d{8}T\d{6}\.\d{6}Z-\d{6,}-[0-9a-f]{8}")
"""The name, without suffix, of a frame that the line kept. One without JSON is not finished, or is being removed."""

_REMEDY = "the picture can be reviewed all the same, without what the line said of it"


@dataclass(frozen=True)
class MapFile:
    """Where an anomaly map lies; a pixel v of 255 stands for low + (high - low) * v / 255."""

    path: Path
    low: float
    high: float

    def read(self) -> Map:
        """(h, w) float32. Raises `ImageError`."""
        values = read_pixels(self.path)[:, :, 0]
        whole = np.iinfo(values.dtype).max
        return np.asarray(self.low + (self.high - self.low) * (values.astype(np.float32) / whole), np.float32)


@dataclass(frozen=True)
class Said:
    """What the line said of a picture; all of it is None for a picture without JSON.

    Attributes:
        verdict: `good`, `unclear`, `reject`, `missed` or `fault`; of its part where there are parts.
        score, threshold, unclear_from: of the frame; `unclear_from` is the lower threshold.
        engine_sha256: of the engine that gave the score.
        time: of capture, as the line wrote it.
        where: camera, recipe, part, as far as they are known, in words.
        map: the anomaly map.
        fault: why the JSON cannot be used, if it cannot.
    """

    verdict: str | None = None
    score: float | None = None
    threshold: float | None = None
    unclear_from: float | None = None
    engine_sha256: str | None = None
    time: str | None = None
    where: str = ""
    map: MapFile | None = None
    fault: str | None = None


def pictures_to_review(folder: Path, *, leave_out: Path) -> list[Path]:
    """All pictures in a folder and below it, by name; those of a line that are not finished are left out.

    Args:
        leave_out: the data set, should it lie there.
    Raises:
        DataError: if the folder cannot be read.
    """
    return [
        path
        for path in pictures_below(folder, leave_out=[leave_out], beside=(".json", ".map"))
        if not _OF_THE_LINE.fullmatch(path.stem) or path.with_suffix(".json").exists()
    ]


def what_was_said(picture: Path) -> Said:
    """Read the JSON beside a picture; one that is damaged is told of in `fault`."""
    path = picture.with_suffix(".json")
    try:
        data = read_object(path, error=DataError, remedy=_REMEDY)
    except FileNotFoundError:
        return Said()
    except DataError as error:
        return Said(fault=str(error))
    if data.get("format") != 1 or not isinstance(data.get("verdict"), dict):
        if not _OF_THE_LINE.fullmatch(picture.stem):
            return Said()  # somebody else's JSON, such as LabelMe's
        return Said(fault=f"{path} is not of format 1, expected what a line keeps; {_REMEDY}")
    verdict, part = data["verdict"], data.get("part")
    return Said(
        verdict=_verdict(verdict, part),
        score=_number(verdict, "score"),
        threshold=_number(verdict, "threshold"),
        unclear_from=_number(verdict, "unclear_from"),
        engine_sha256=_text(verdict, "engine_sha256"),
        time=_text(verdict, "time"),
        where=_where(data, verdict, part),
        map=_map(data.get("map"), picture.parent),
    )


def _verdict(verdict: dict[str, Any], part: object) -> str | None:
    if isinstance(part, dict) and (result := _text(part, "part_result")) is not None:
        return result
    if verdict.get("fault") is not None:
        return "fault"
    if verdict.get("anomalous") is True:
        return "reject"
    return "unclear" if verdict.get("unclear") is True else "good"


def _where(data: dict[str, Any], verdict: dict[str, Any], part: object) -> str:
    words = [_text(data, "camera") or _text(verdict, "source"), _text(data, "recipe")]
    if isinstance(part, dict):
        number = part.get("part")
        words.append(_text(part, "part_id") or (f"part {number}" if isinstance(number, int) else None))
    return ", ".join(word for word in words if word)


def _map(data: object, folder: Path) -> MapFile | None:
    if not isinstance(data, dict):
        return None
    name, low, high = _text(data, "file"), _number(data, "low"), _number(data, "high")
    if name is None or low is None or high is None:
        return None
    name = unescaped(name)
    return MapFile(folder / name, low, high) if name == Path(name).name and name != ".." else None


def _number(data: dict[str, Any], key: str) -> float | None:
    value = data.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _text(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) else None


def map_of(said: Said) -> Map | None:
    """The anomaly map, (h, w); None where there is none. Raises `ImageError` if it cannot be read."""
    try:
        return None if said.map is None else said.map.read()
    except ImageError as error:
        raise ImageError(f"{error}; the picture can be reviewed without it") from None
