"""Where the tiles of a frame lie that is much larger than the network, and how much each counts where they overlap.

Each tile goes through the network like a picture of its own. `runtime.stitching` puts their maps together on the
network's scale, the canvas, where a tile is as large as the network's input: weighted by a ramp towards the edges that
lie inside the frame, and normalised, so that where tiles agree the canvas says the same.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.area import Area, ScaledArea
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Image
from stlm_edge.spec import SIZE_MULTIPLE, ModelSpec, Size

OVERLAP = 1 / 8
"""Neighbouring tiles share at least this much of their side."""


def parse_tile(text: str) -> Size:
    """(height, width) of a tile from `1024` or `768x1024`, height first. Raises `ConfigError`."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if found is None:
        raise ConfigError(f"found the tile {text!r}, expected a side or height x width in pixels, as in 768x1024")
    return int(found[1]), int(found[2] or found[1])


def check_tile(tile: Size, spec: ModelSpec) -> None:
    """Raises `ConfigError` if tiles of that size cannot be inspected."""
    if len(tile) != 2 or min(tile) < SIZE_MULTIPLE:
        sides = " x ".join(map(str, tile))
        raise ConfigError(f"a tile is {sides} pixels, expected at least {SIZE_MULTIPLE} x {SIZE_MULTIPLE}")
    if spec.frame_size is not None and tile != spec.frame_size:
        raise ConfigError(
            f"a tile is {tile[0]} x {tile[1]} pixels, this engine takes pictures of {spec.frame_size[0]} x "
            f"{spec.frame_size[1]} only; give that, or export without --frame-size"
        )


@dataclass(frozen=True, eq=False)
class _Axis:
    """Tiles along one side of the frame.

    Attributes:
        starts: of each tile, in frame pixels.
        length: of all of them, in frame pixels.
        places: of each tile, on the canvas.
        weights: (network input's side,) of each tile.
    """

    starts: tuple[int, ...]
    length: int
    places: tuple[int, ...]
    weights: tuple[NDArray[np.float32], ...]

    @property
    def extent(self) -> int:
        """Of the canvas."""
        return self.places[-1] + len(self.weights[-1])


def _axis(frame: int, *, tile: int, network: int) -> _Axis:
    length = min(tile, frame)
    overlap = math.ceil(OVERLAP * length)
    count = max(1, math.ceil((frame - overlap) / (length - overlap)))
    starts = tuple(round(index * (frame - length) / max(1, count - 1)) for index in range(count))
    places = tuple(round(start * network / length) for start in starts)
    shared = [before + network - behind for before, behind in itertools.pairwise(places)]
    ramps = [_ramp(network, before=before, behind=behind) for before, behind in itertools.pairwise([0, *shared, 0])]
    total = np.zeros(places[-1] + network)
    for place, ramp in zip(places, ramps, strict=True):
        total[place : place + network] += ramp
    weights = [ramp / total[place : place + network] for place, ramp in zip(places, ramps, strict=True)]
    return _Axis(starts, length, places, tuple(weight.astype(np.float32) for weight in weights))


def _ramp(network: int, *, before: int, behind: int) -> NDArray[np.float64]:
    """1 in the middle, falling to 0 over as many pixels as are shared with the tile before and with the one behind."""
    distance = np.arange(network) + 0.5
    rising = np.minimum(1, distance / max(before, 0.5))
    return np.asarray(np.minimum(rising, distance[::-1] / max(behind, 0.5)), np.float64)


class Tiling:
    """The tiles of frames of one size. Never changes, so all threads may use it.

    Attributes:
        frame_size: (height, width).
        input_size: (height, width) of the network's input, and of a tile on the canvas.
        canvas_size: (height, width) of the stitched map.
        area: on the canvas; None for all of it.
        boxes: (top, left, height, width) of each tile in frame pixels; those wholly outside of the area are left out.
    """

    def __init__(self, frame_size: Size, *, tile: Size, input_size: Size, area: Area | None = None) -> None:
        """
        Args:
            tile: (height, width) in frame pixels; a side that is longer than the frame's is cut to it.
            input_size: (height, width) of the network's input.
        Raises:
            ConfigError: if nothing is left of the area on the canvas.
        """
        self.frame_size = frame_size
        self.input_size = input_size
        self._rows = _axis(frame_size[0], tile=tile[0], network=input_size[0])
        self._columns = _axis(frame_size[1], tile=tile[1], network=input_size[1])
        self.canvas_size = self._rows.extent, self._columns.extent
        self.area: ScaledArea | None = None if area is None else area.scaled(self.canvas_size)
        grid = itertools.product(range(len(self._rows.starts)), range(len(self._columns.starts)))
        self._tiles = [tile for tile in grid if self.area is None or self.area.mask[self._on_canvas(*tile)].any()]
        self.boxes = [
            (self._rows.starts[row], self._columns.starts[column], self._rows.length, self._columns.length)
            for row, column in self._tiles
        ]

    def cut(self, image: Image, index: int) -> Image:
        """A view of the tile `index` of a frame."""
        top, left, height, width = self.boxes[index]
        return image[top : top + height, left : left + width]

    def placed(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[slice, slice]]:
        """The weights of the rows and of the columns of the tile `index`, and where it lies on the canvas."""
        row, column = self._tiles[index]
        return self._rows.weights[row], self._columns.weights[column], self._on_canvas(row, column)

    def _on_canvas(self, row: int, column: int) -> tuple[slice, slice]:
        top, left = self._rows.places[row], self._columns.places[column]
        return slice(top, top + self.input_size[0]), slice(left, left + self.input_size[1])
