"""Where the map reaches the threshold, as boxes: what an event log, a robot or a person can use."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Map, Mask, resize_map
from stlm_edge.spec import Size

MOST_REGIONS = 100
"""Of one frame; those with the highest peaks are kept."""

_LARGEST_SHARE = 1 / 8
"""Of the frame in windows; OpenCV makes the whole one in the time that NumPy takes for about this much."""


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

    Only what can reach the threshold is up-sampled; where the map does not, nothing is done.

    Args:
        network_map: (h, w), any size; brought to the frame's as `stlm_edge.imaging.resize_map` does.
        frame_size: (height, width).
        inspected: (height, width), 0 where nothing is to be found.
    """
    reached = network_map >= threshold
    if not reached.any():
        return ()
    is_coarse = network_map.shape[0] < frame_size[0] and network_map.shape[1] < frame_size[1]
    spots = _spots(reached, frame_size) if is_coarse else None
    regions: list[Region] = []
    if spots is None:
        enlarged = resize_map(network_map, frame_size)
        regions += _components(enlarged, enlarged >= threshold, inspected, top=0, left=0)
    else:
        labels, windows = spots
        for label, (rows, columns) in enumerate(windows, start=1):
            enlarged, nearest = _enlarged(network_map, labels, frame_size, rows, columns)
            found = (enlarged >= threshold) & (nearest == label)
            regions += _components(enlarged, found, inspected, top=rows.start, left=columns.start)
    return tuple(sorted(regions, key=lambda region: -region.peak)[:MOST_REGIONS])


def _spots(reached: NDArray[np.bool_], frame_size: Size) -> tuple[NDArray[np.int32], list[tuple[range, range]]] | None:
    """Parts of a coarse map that can be looked at one by one, each with its rows and columns of the frame.

    A pixel that reaches the threshold lies in a cell that does so or beside one. So what is connected in the frame is
    so on the map, grown by a cell.

    Returns:
        (h, w) from 1 on, 0 for none, and the windows; None where they are so large that the whole frame is made sooner.
    """
    grown = cv2.dilate(reached.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(grown, connectivity=8)
    windows = []
    for spot in range(1, count):
        left, top, width, height = (int(value) for value in stats[spot, :4])
        rows = _pixels_of(top, top + height, cells=reached.shape[0], length=frame_size[0])
        columns = _pixels_of(left, left + width, cells=reached.shape[1], length=frame_size[1])
        windows.append((rows, columns))
    pixels = sum(len(rows) * len(columns) for rows, columns in windows)
    if pixels > _LARGEST_SHARE * frame_size[0] * frame_size[1]:
        return None
    return np.asarray(labels, np.int32), windows


def _components(
    enlarged: Map, found: NDArray[np.bool_], inspected: Mask | None, *, top: int, left: int
) -> list[Region]:
    """The regions of a window of the frame whose upper left corner lies at `top`, `left`."""
    if inspected is not None:
        found &= inspected[top : top + found.shape[0], left : left + found.shape[1]] > 0
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.view(np.uint8), connectivity=8)
    regions = []
    for label in range(1, count):  # 0 is what lies around them
        box = tuple(int(value) for value in stats[label, : cv2.CC_STAT_AREA])
        window = slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2])
        _, peak, _, _ = cv2.minMaxLoc(enlarged[window], (labels[window] == label).view(np.uint8))
        area = int(stats[label, cv2.CC_STAT_AREA])
        regions.append(Region(box[0] + left, box[1] + top, box[2], box[3], area=area, peak=peak))
    return regions


def _pixels_of(first: int, end: int, *, cells: int, length: int) -> range:
    """The pixels whose centres lie in the cells from `first` up to `end`."""
    return range(math.ceil(first * length / cells - 0.5), math.ceil(end * length / cells - 0.5))


def _enlarged(
    network_map: Map, spots: NDArray[np.int32], frame_size: Size, rows: range, columns: range
) -> tuple[Map, NDArray[np.int32]]:
    """A window of what `resize_map` makes of the whole map, and which spot the cell around each pixel belongs to."""
    row = _Side(rows, cells=network_map.shape[0], length=frame_size[0])
    column = _Side(columns, cells=network_map.shape[1], length=frame_size[1])
    bands = network_map[row.before] * (1 - row.share)[:, None] + network_map[row.behind] * row.share[:, None]
    enlarged = bands[:, column.before] * (1 - column.share) + bands[:, column.behind] * column.share
    return np.asarray(enlarged, np.float32), spots[row.around][:, column.around]


class _Side:
    """For each pixel along a side, the cell around its centre, those before and behind it, and the latter's share."""

    def __init__(self, pixels: range, *, cells: int, length: int) -> None:
        centres = (np.arange(pixels.start, pixels.stop) + 0.5) * (cells / length)
        self.around = centres.astype(np.intp)
        between = np.clip(centres - 0.5, 0, cells - 1)
        self.before = between.astype(np.intp)
        self.behind = np.minimum(self.before + 1, cells - 1)
        self.share = (between - self.before).astype(np.float32)
