"""Pseudo anomalies beside the Perlin blend: scars (CutPaste) and seamless patches (NSA)."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image, Mask
from stlm_edge.spec import Size
from train.synthesis import blend

SCAR_LENGTHS = (0.05, 0.35)
"""Of the shorter side."""
SCAR_WIDTHS = (0.004, 0.025)
"""Likewise; a pixel at 256, so that the finest scratches are among them."""
MOST_SCARS = 2
PATCH_SIDES = (0.06, 0.3)
"""Of the shorter side."""
MOST_PATCHES = 4
MOST_TRIES = 5
HIDING_SHARE = 0.5
"""Share of the patches that hide something: a plain patch, put where a structure stands alone."""
PLAIN_CANDIDATES = 8
ISLAND_CANDIDATES = 96
VISIBLE_CHANGE = 25
"""Grey levels from which a pixel of a seamless patch counts as changed; less is what good parts differ by."""
SMOOTHING = 5


def scar(rng: np.random.Generator, normal: Image, texture: Image, *, largest_beta: float) -> tuple[Image, Mask]:
    """Blend one or two thin strips of a texture into a normal picture, at any angle.

    After the scars of CutPaste (Li et al. 2021), with the anomaly source in them and blended by equation 1.

    Args:
        normal, texture: (H, W, 3) uint8, left unchanged.
        largest_beta: how faint a scar may get, 1 is invisible.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 on the scars.
    """
    height, width = normal.shape[:2]
    side = min(height, width)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(1, MOST_SCARS + 1))):
        middle = (rng.uniform(0, width), rng.uniform(0, height))
        extent = (_share(rng, SCAR_LENGTHS) * side, _share(rng, SCAR_WIDTHS) * side)
        corners = cv2.boxPoints((middle, extent, rng.uniform(0, 180)))
        cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], (1,), cv2.LINE_8, 4)
    return blend(normal, texture, mask, rng.uniform(0, largest_beta)), mask


def seamless_patches(rng: np.random.Generator, normal: Image, other: Image) -> tuple[Image, Mask]:
    """Poisson-blend one to four patches of another good picture into a normal one, at other places.

    After the natural synthetic anomalies of Schlueter et al. (NSA, 2022). There is no seam to learn from, so what a
    patch hides or repeats has to be recognised. Half of the patches are plain ones put on a structure that stands
    alone, as if it were missing; that is not in NSA, whose random places hardly ever hide anything whole.

    The mask is where the picture changed visibly, smoothed by a median. Where like comes upon like and nothing
    changed, other patches are drawn, a few times; then the mask stays empty.

    Args:
        normal, other: (H, W, 3) uint8 of one size, left unchanged.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 where the picture changed.
    """
    for _ in range(MOST_TRIES):
        pasted = normal
        for _ in range(int(rng.integers(1, MOST_PATCHES + 1))):
            pasted = _paste(rng, pasted, other)
        change = cv2.absdiff(pasted, normal).max(axis=2)
        mask = (cv2.medianBlur(change, SMOOTHING) > VISIBLE_CHANGE).astype(np.uint8)
        if mask.any():
            break
    return pasted, mask


def _paste(rng: np.random.Generator, picture: Image, other: Image) -> Image:
    height, width = picture.shape[:2]
    side = min(height, width)
    size = (max(8, round(_share(rng, PATCH_SIDES) * side)), max(8, round(_share(rng, PATCH_SIDES) * side)))
    if rng.random() < HIDING_SHARE:
        source = min(_windows(rng, other, size, PLAIN_CANDIDATES), key=lambda window: float(other[window].std()))
        place = max(
            _windows(rng, picture, size, ISLAND_CANDIDATES), key=lambda window: _island_strength(picture[window])
        )
    else:
        (source,), (place,) = _windows(rng, other, size, 1), _windows(rng, picture, size, 1)
    outline = _outline(rng, size)
    middle = (place[1].start + size[1] // 2, place[0].start + size[0] // 2)
    patch = np.ascontiguousarray(other[source])
    return np.asarray(cv2.seamlessClone(patch, picture, outline, middle, cv2.NORMAL_CLONE), np.uint8)


def _windows(rng: np.random.Generator, picture: Image, size: Size, count: int) -> list[tuple[slice, slice]]:
    """Random windows with at least a pixel of the picture around them, as OpenCV wants it."""
    tops = rng.integers(1, picture.shape[0] - size[0], count)
    lefts = rng.integers(1, picture.shape[1] - size[1], count)
    return [
        (slice(int(top), int(top) + size[0]), slice(int(left), int(left) + size[1]))
        for top, left in zip(tops, lefts, strict=True)
    ]


def _island_strength(window: Image) -> float:
    """High where the middle of a window is structured and its border is not: a hole, a screw, a letter."""
    grey = window[:, :, 1]
    border = np.concatenate((grey[:2].ravel(), grey[-2:].ravel(), grey[:, :2].ravel(), grey[:, -2:].ravel()))
    return float(grey.std()) - 4 * float(border.std())


def _share(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Between the limits, small values as likely as large ones: the logarithm is uniform."""
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


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
