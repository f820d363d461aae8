"""Pseudo anomalies without a seam that hide something: patches of good pictures, Poisson-blended. Not the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image, Mask
from stlm_edge.spec import Size
from train.pseudo_anomalies.perlin import log_uniform

Corners = NDArray[np.int64]
"""(N, 2): row and column of each one's upper left pixel; or one of them, (2,)."""

PATCH_SIDES = (0.06, 0.3)
"""Of the shorter side."""
MOST_PATCHES = 4
MOST_TRIES = 5
ENOUGH = 0.001
"""Share of the picture from which on a visible change is not tried to be bettered."""
HIDING_SHARE = 0.5
"""Share of the patches that hide something: a plain patch, put where a structure stands alone."""
PLAIN_CANDIDATES = 8
ISLAND_CANDIDATES = 96
VISIBLE_SHARE = 0.4
"""Of the picture's contrast, the standard deviation of its levels: from there on a pixel of a seamless patch counts as
changed; less is what good parts differ by. On the bright and dark synthetic part it comes to 25 grey levels."""
SMALLEST_VISIBLE = 10.0
"""Grey levels; less is noise in however flat a picture."""
SMOOTHING = 5
SMALLEST_PIECE = 24
"""Pixels of a visible change; less are specks where one rough surface replaces another."""
SMOOTHED_SIDE = 256
"""Changes are looked at at about this size, so that masks have the same detail in any picture."""


def seamless_patches(rng: np.random.Generator, normal: Image, other: Image) -> tuple[Image, Mask]:
    """Poisson-blend one to four patches of another good picture into a normal one, at other places.

    After the natural synthetic anomalies of Schlueter et al. (NSA, 2022). There is no seam to learn from, so what a
    patch hides or repeats has to be recognised. Half of the patches are plain ones put on a structure that stands
    alone, as if it were missing; that is not in NSA, whose random places hardly ever hide anything whole.

    The mask is where the picture changed visibly for its contrast, smoothed by a median. Where like comes upon like
    and little changed, other patches are drawn, a few times, and those that changed most are taken; if none changed
    anything visibly, the picture stays as it is.

    Args:
        normal, other: (H, W, 3) uint8 of one size, left unchanged.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 where the picture changed.
    """
    best, best_mask = normal, np.zeros(normal.shape[:2], np.uint8)
    for _ in range(MOST_TRIES):
        pasted = normal
        for _ in range(int(rng.integers(1, MOST_PATCHES + 1))):
            pasted = _paste(rng, pasted, other)
        mask = _visible(pasted, normal)
        if np.count_nonzero(mask) > np.count_nonzero(best_mask):
            best, best_mask = pasted, mask
        if np.count_nonzero(best_mask) >= ENOUGH * mask.size:
            break
    return best, best_mask


def _visible(pasted: Image, normal: Image) -> Mask:
    """(H, W), 1 where a channel differs by more than good pictures do, over more than a speck."""
    height, width = normal.shape[:2]
    factor = max(1, min(height, width) // SMOOTHED_SIDE)
    small = (width // factor, height // factor)
    limit = max(SMALLEST_VISIBLE, VISIBLE_SHARE * float(cv2.meanStdDev(normal)[1].max()))
    change = cv2.resize(cv2.absdiff(pasted, normal), small, interpolation=cv2.INTER_AREA)
    smooth = cv2.medianBlur(cv2.max(cv2.max(change[:, :, 0], change[:, :, 1]), change[:, :, 2]), SMOOTHING)
    visible = cv2.morphologyEx(np.asarray(smooth > limit, np.uint8), cv2.MORPH_CLOSE, np.ones((SMOOTHING, SMOOTHING)))
    _, pieces, statistics, _ = cv2.connectedComponentsWithStats(visible)
    large = np.asarray(statistics[:, cv2.CC_STAT_AREA] >= SMALLEST_PIECE, np.float32)
    large[0] = 0  # what is not visible
    return np.asarray(cv2.resize(large[pieces], (width, height), interpolation=cv2.INTER_LINEAR) > 0.5, np.uint8)


def _paste(rng: np.random.Generator, picture: Image, other: Image) -> Image:
    side = min(picture.shape[:2])
    size = (max(8, round(log_uniform(rng, PATCH_SIDES) * side)), max(8, round(log_uniform(rng, PATCH_SIDES) * side)))
    if rng.random() < HIDING_SHARE:
        sources = _corners(rng, other, size, PLAIN_CANDIDATES)
        source = sources[int(np.argmin([_window(other, corner, size).std() for corner in sources]))]
        places = _corners(rng, picture, size, ISLAND_CANDIDATES)
        place = places[int(np.argmax(_island_strengths(picture, places, size)))]
    else:
        source, place = _corners(rng, other, size, 1)[0], _corners(rng, picture, size, 1)[0]
    outline = _outline(rng, size)
    middle = (int(place[1]) + size[1] // 2, int(place[0]) + size[0] // 2)
    patch = np.ascontiguousarray(_window(other, source, size))
    return np.asarray(cv2.seamlessClone(patch, picture, outline, middle, cv2.NORMAL_CLONE), np.uint8)


def _corners(rng: np.random.Generator, picture: Image, size: Size, count: int) -> Corners:
    """Of random windows with at least a pixel of the picture around them, as OpenCV wants it."""
    tops = rng.integers(1, picture.shape[0] - size[0], count)
    return np.stack((tops, rng.integers(1, picture.shape[1] - size[1], count)), axis=1)


def _window(picture: Image, corner: Corners, size: Size) -> Image:
    return picture[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def _island_strengths(picture: Image, corners: Corners, size: Size) -> NDArray[np.float64]:
    """(N,), high where the middle of a window is structured and its border is not: a hole, a screw, a letter."""
    tables = cv2.integral2(np.ascontiguousarray(picture[:, :, 1]), sdepth=cv2.CV_64F)
    end = corners + size
    across, down = np.array((2, size[1])), np.array((size[0], 2))
    border = [
        (corners, corners + across),
        (end - across, end),
        (corners, corners + down),
        (end - down, end),
    ]
    return _spread(tables, [(corners, end)]) - 4 * _spread(tables, border)


def _spread(tables: Sequence[NDArray[Any]], rectangles: Sequence[tuple[Corners, Corners]]) -> NDArray[np.float64]:
    """(N,) standard deviations over several rectangles each, from summed-area tables of values and of squares."""
    first, last = (np.stack(corners) for corners in zip(*rectangles, strict=True))
    top, left, bottom, right = first[..., 0], first[..., 1], last[..., 0], last[..., 1]
    count = ((bottom - top) * (right - left)).sum(axis=0)
    mean, square = (
        (table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]).sum(axis=0) / count
        for table in tables
    )
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def _outline(rng: np.random.Generator, shape: Size) -> NDArray[np.uint8]:
    """A rectangle or an ellipse of 255, one pixel inside the patch's border."""
    height, width = shape
    outline = np.zeros(shape, np.uint8)
    if rng.random() < 0.5:
        outline[1:-1, 1:-1] = 255
    else:
        axes = (width // 2 - 1, height // 2 - 1)
        cv2.ellipse(outline, (width // 2, height // 2), axes, 0, 0, 360, (255,), cv2.FILLED)
    return outline
