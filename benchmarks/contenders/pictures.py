"""The pictures that contenders get, decoded beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stlm_edge.spec import Size

if TYPE_CHECKING:
    from stlm_edge.imaging import Image

MOST = 32
"""Pictures of a data set that are taken, by the gate's seeded choice."""

MOST_BYTES = 200_000_000
"""Of decoded pictures in each contender's process: of large ones fewer are taken."""

DRAWN = 8

FRAME_SIZE: Size = (1080, 1920)
"""(height, width) of the parts that are drawn where there is no data."""


@dataclass(frozen=True)
class Pictures:
    """Where a contender's pictures come from. It travels to the contender's process, the pixels do not.

    Attributes:
        folder: with pictures, or a data set in a known layout, whose test pictures are taken; None for drawn parts.
        category: folder below it, where the data set has several.
        frame_size: (height, width) of the drawn parts.
    """

    folder: Path | None = None
    frame_size: Size = FRAME_SIZE
    category: str | None = None

    def load(self) -> tuple[Image, ...]:
        """The pictures, (H, W, 3) uint8, BGR; read once in a process.

        Raises:
            DataError: if there is no picture.
            ImageError: if one cannot be read.
            ConfigError: if parts are to be drawn too small.
        """
        return _load(self)

    def describe(self) -> str:
        """What they are, in words."""
        images = self.load()
        sizes = sorted({image.shape[:2] for image in images})
        size = "{} x {}".format(*sizes[0])
        if len(sizes) > 1:
            size += " to {} x {}".format(*sizes[-1])
        source = "drawn parts" if self.folder is None else f"pictures of {self.folder.resolve().name}"
        return f"{len(images)} {source}, {size}"

    def common_size(self) -> Size | None:
        """(height, width) of all of them; None if they differ."""
        sizes = {(image.shape[0], image.shape[1]) for image in self.load()}
        return sizes.pop() if len(sizes) == 1 else None


def batch_of(images: Sequence[Image], index: int, *, size: int) -> list[Image]:
    """Pictures of batch number `index`: `size` of them, in rotation."""
    return [images[(index * size + place) % len(images)] for place in range(size)]


@cache
def _load(pictures: Pictures) -> tuple[Image, ...]:
    if pictures.folder is None:
        return _drawn(pictures.frame_size)
    from export.gate.pictures import choose, find_samples
    from stlm_edge.imaging import read_image

    samples = find_samples(pictures.folder, pictures.category)
    first = read_image(samples[0].path)
    chosen = choose(samples, max(1, min(MOST, MOST_BYTES // first.nbytes)))
    return tuple(read_image(sample.path) for sample in chosen)


def _drawn(size: Size) -> tuple[Image, ...]:
    import numpy as np

    from stlm_edge.plate.part import DEFECT_KINDS, render_part

    kinds = (None, *DEFECT_KINDS)
    return tuple(
        render_part(np.random.default_rng(index), size=size, defect=kinds[index % len(kinds)]).image
        for index in range(DRAWN)
    )
