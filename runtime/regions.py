"""Where the map reaches the threshold, as boxes: what an event log, a robot or a person can use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Map, Mask, resize_map
from stlm_edge.spec import Size

MOST_REGIONS = 100
"""Of one frame; those with the highest peaks are kept."""

_MOST_OF_A_FRAME = 1 / 16
"""OpenCV makes the whole map in the time that NumPy takes for this share of it."""


@dataclass(frozen=True)
class Region:
    """Connected pixels whose map reaches the threshold, corners counting as neighbours.

    Attributes:
        left, top, width, height: the box around them, in frame pixels.
        area: how many they are.
        peak: the highest value of the map among them.
    """

    left: int
    top: int
    width: int
    height: int
    area: int
    peak: float


def find_regions(
    network_map: Map, *, frame_size: Size, threshold: float, inspected: Mask | None = None
) -> tuple[Region, ...]:
    """The regions of a frame, highest peak first, at most `MOST_REGIONS`.

    Only the part of the frame that can reach the threshold is up-sampled; where the map does not, nothing is done.

    Args:
        network_map: (h, w), any size; brought to the frame's as `stlm_edge.imaging.resize_map` does.
        frame_size: (height, width).
        inspected: (height, width), 0 where nothing is to be found.
    """
    window = _window(network_map >= threshold, frame_size)
    if window is None:
        return ()
    rows, columns = window
    enlarged = _enlarged(network_map, frame_size, rows, columns)
    found = enlarged >= threshold
    if inspected is not None:
        found &= inspected[rows.start : rows.stop, columns.start : columns.stop] > 0
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    peaks = np.full(count, -np.inf, np.float32)
    np.maximum.at(peaks, np.asarray(labels[found], np.intp), enlarged[found])
    highest = np.argsort(-peaks[1:], kind="stable")[:MOST_REGIONS] + 1  # 0 is what lies around them
    return tuple(
        Region(
            left=int(stats[label, cv2.CC_STAT_LEFT]) + columns.start,
            top=int(stats[label, cv2.CC_STAT_TOP]) + rows.start,
            width=int(stats[label, cv2.CC_STAT_WIDTH]),
            height=int(stats[label, cv2.CC_STAT_HEIGHT]),
            area=int(stats[label, cv2.CC_STAT_AREA]),
            peak=float(peaks[label]),
        )
        for label in highest
    )


def _window(reached: NDArray[np.bool_], frame_size: Size) -> tuple[range, range] | None:
    """Rows and columns of the frame that hold all pixels next to a cell that was reached; None if there is none."""
    rows, columns = np.flatnonzero(reached.any(axis=1)), np.flatnonzero(reached.any(axis=0))
    if not rows.size:
        return None
    height, width = reached.shape
    return (
        _between(int(rows[0]), int(rows[-1]), cells=height, length=frame_size[0]),
        _between(int(columns[0]), int(columns[-1]), cells=width, length=frame_size[1]),
    )


def _between(first: int, last: int, *, cells: int, length: int) -> range:
    """Pixels in which the cells `first` to `last` have a share: up to the centres of the cells around them."""
    scale = length / cells
    return range(max(0, int((first - 0.5) * scale) - 1), min(length, int((last + 1.5) * scale) + 2))


def _enlarged(network_map: Map, frame_size: Size, rows: range, columns: range) -> Map:
    """The window of what `resize_map` makes of the whole map."""
    if len(rows) * len(columns) > _MOST_OF_A_FRAME * frame_size[0] * frame_size[1]:
        return resize_map(network_map, frame_size)[rows.start : rows.stop, columns.start : columns.stop]
    upper, lower, share = _neighbours(rows, cells=network_map.shape[0], length=frame_size[0])
    bands = network_map[upper] * (1 - share)[:, None] + network_map[lower] * share[:, None]
    left, right, share = _neighbours(columns, cells=network_map.shape[1], length=frame_size[1])
    return np.asarray(bands[:, left] * (1 - share) + bands[:, right] * share, np.float32)


def _neighbours(
    pixels: range, *, cells: int, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The cells before and behind the centre of each pixel, and the share of the one behind."""
    at = np.clip((np.arange(pixels.start, pixels.stop) + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    before = at.astype(np.intp)
    return before, np.minimum(before + 1, cells - 1), (at - before).astype(np.float32)
