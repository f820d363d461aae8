"""The maps of a frame's tiles put together without a seam, see `runtime.tiling`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from runtime.backends.base import IN_FLIGHT, Backend, Maps, Ticket
from runtime.tiling import Tiling
from stlm_edge.imaging import Image, Map, to_input
from stlm_edge.scoring import image_score
from stlm_edge.spec import ModelSpec


class Canvas:
    """Where the maps of one frame's tiles are put together; to be used again for the next frame, by one thread."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        self._map = np.zeros(tiling.canvas_size, np.float32)
        self._tile = np.empty(tiling.input_size, np.float32)

    def clear(self) -> None:
        """Begin anew."""
        self._map.fill(0)

    def lay(self, index: int, network_map: Map) -> None:
        """Add the map of the tile `index`, (h, w) as the network gives it."""
        rows, columns, place = self.tiling.placed(index)
        # One direction after the other is the same, and the first weights are multiplied while there is little to do.
        height, width = self._tile.shape
        wide = cv2.resize(network_map, (width, network_map.shape[0]), interpolation=cv2.INTER_LINEAR) * columns
        cv2.resize(wide, (width, height), dst=self._tile, interpolation=cv2.INTER_LINEAR)
        self._tile *= rows[:, None]
        self._map[place] += self._tile

    def stitched(self) -> Map:
        """What was laid; the canvas's own, until it is cleared. Outside of the area it may be anything."""
        return self._map

    def score(self, *, top_k: int) -> float:
        """The image score of what was laid; outside of the area, the canvas is set to 0.

        Of a smaller area than `top_k` pixels, all of them count.
        """
        area = self.tiling.area
        if area is None:
            return image_score(self._map, top_k=top_k)
        self._map *= area.mask
        return image_score(self._map, top_k=min(top_k, area.pixels))


def stitched(network_maps: Maps, tiling: Tiling) -> Map:
    """The map of a frame, of `tiling.canvas_size`. Outside of the area it may be anything.

    Args:
        network_maps: (N, h, w), one for each tile, as the network gives them.
    """
    canvas = Canvas(tiling)
    for index, network_map in enumerate(network_maps):
        canvas.lay(index, network_map)
    return canvas.stitched()


@dataclass(frozen=True, eq=False)
class TilesAnswer:
    """What the network says of the tiles of a frame.

    Attributes:
        maps: (N, h, w) float32, one for each tile.
        score: of the stitched map, by the rule of the specification.
        prepare_ms: cutting and resizing.
        infer_ms: the network, transfers included, as far as neither of the others was done meanwhile.
        stitch_ms: stitching and the score.
    """

    maps: Maps
    score: float
    prepare_ms: float
    infer_ms: float
    stitch_ms: float


def infer_tiles(backend: Backend, image: Image, *, canvas: Canvas, spec: ModelSpec) -> TilesAnswer:
    """Inspect a frame tile by tile, in batches; one is stitched while the next is in the network.

    Nothing else may be in flight.

    Args:
        canvas: for frames of that size; what it holds is lost.
    Raises:
        EngineError: if the engine fails or is closed.
    """
    start_s = time.perf_counter()
    prepare_s = stitch_s = 0.0
    tiling = canvas.tiling
    count = len(tiling.boxes)
    waiting = deque(range(first, min(first + spec.max_batch, count)) for first in range(0, count, spec.max_batch))
    in_flight: deque[tuple[Sequence[int], Ticket]] = deque()
    maps = np.empty((count, *spec.map_size), np.float32)
    canvas.clear()
    while waiting or in_flight:
        answered = None
        if not waiting or len(in_flight) == IN_FLIGHT:
            indices, ticket = in_flight.popleft()
            answered = indices, ticket.result()
        if waiting:
            begin_s = time.perf_counter()
            indices = waiting.popleft()
            batch = np.concatenate([to_input(tiling.cut(image, index), spec=spec) for index in indices])
            prepare_s += time.perf_counter() - begin_s
            in_flight.append((indices, backend.submit(batch)))
        if answered is not None:
            begin_s = time.perf_counter()
            for index, network_map in zip(answered[0], answered[1].maps, strict=True):
                maps[index] = network_map
                canvas.lay(index, network_map)
            stitch_s += time.perf_counter() - begin_s
    begin_s = time.perf_counter()
    score = canvas.score(top_k=spec.top_k)
    end_s = time.perf_counter()
    stitch_s += end_s - begin_s
    return TilesAnswer(
        maps=maps,
        score=score,
        prepare_ms=1e3 * prepare_s,
        infer_ms=1e3 * (end_s - start_s - prepare_s - stitch_s),
        stitch_ms=1e3 * stitch_s,
    )
