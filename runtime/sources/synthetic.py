"""`test://`: synthetic parts with known defects, so that a line can be tried without a camera."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from runtime.sources.base import Frame, FrameSource
from runtime.uri import Option, allowed, parse_options, whole_number
from stlm_edge.credentials import without_credentials
from stlm_edge.errors import SourceError
from stlm_edge.plate import SMALLEST_SIDE
from stlm_edge.plate.part import DEFECT_KINDS, render_part
from stlm_edge.spec import Size


@dataclass(frozen=True)
class SyntheticOptions:
    """What stands behind the question mark of `test://?fps=10&defect-rate=0.2&seed=1&frames=100&size=512x512`.

    Attributes:
        fps: frames per second of a live source that drops what is not read in time; None delivers every frame.
        defect_rate: probability of a defect, 0 … 1.
        seed: the same seed gives the same frames.
        frames: how many there are; None never ends.
        size: (height, width) of the pictures.
    """

    fps: float | None = None
    defect_rate: float = 0.2
    seed: int = 0
    frames: int | None = None
    size: Size = (512, 512)

    @classmethod
    def from_uri(cls, uri: str) -> SyntheticOptions:
        """Raises `SourceError` on anything that is not a known option with a fitting value."""
        place, _, query = uri.partition("?")
        if place != "test://":
            raise _malformed(uri, "options stand behind a question mark")
        try:
            values = parse_options(query, _OPTIONS)
        except ValueError as error:
            raise _malformed(uri, str(error)) from None
        return cls(**{name.replace("-", "_"): value for name, value in values.items()})


class SyntheticParts(FrameSource):
    """Draws part after part; frame i depends on the options and i alone. The label is `good` or the defect."""

    def __init__(self, options: SyntheticOptions, *, uri: str) -> None:
        self._options = options
        self._uri = uri
        self._next = 0
        self.fps = options.fps

    def read(self) -> Frame | None:
        options, index = self._options, self._next
        if options.frames is not None and index >= options.frames:
            return None
        self._next += 1
        rng = np.random.default_rng((options.seed, index))
        is_defective, kind = rng.random() < options.defect_rate, DEFECT_KINDS[rng.integers(len(DEFECT_KINDS))]
        part = render_part(rng, size=options.size, defect=kind if is_defective else None)
        # Drawing stands in for the exposure: the picture is captured when it is done.
        return Frame(part.image, index, time.monotonic(), self._uri, part.defect or "good")

    def poll(self) -> Frame | None:
        return self.read()


def _size(text: str) -> Size:
    height, width = text.split("x")
    return int(height), int(width)


_OPTIONS = {
    "fps": Option(allowed(float, lambda value: 0 < value < math.inf), "a number above 0"),
    "defect-rate": Option(allowed(float, lambda value: 0 <= value <= 1), "a number from 0 to 1"),
    "seed": whole_number(least=0),
    "frames": whole_number(least=1),
    "size": Option(allowed(_size, lambda value: min(value) >= SMALLEST_SIDE), f"HEIGHTxWIDTH from {SMALLEST_SIDE} on"),
}


def _malformed(uri: str, reason: str) -> SourceError:
    known = ", ".join(_OPTIONS)
    return SourceError(
        f"{without_credentials(uri)} is not a test source: {reason}; known are {known}, as in "
        "test://?fps=10&size=512x512"
    )
