"""Pseudo anomalies cut from the picture itself: CutPaste (Li et al. 2021), which the paper's table 11 compares with."""

from __future__ import annotations

import math

import cv2
import numpy as np

from stlm_edge.imaging import Image, Mask

PATCH_AREAS = (0.02, 0.15)
"""Of the picture."""
PATCH_ASPECTS = (0.3, 3.3)
"""Width to height; as often upright as lying."""
SCAR_WIDTHS = (2.0, 16.0)
"""Pixels of a picture whose shorter side has `REFERENCE_SIDE`, likewise the lengths."""
SCAR_LENGTHS = (10.0, 25.0)
REFERENCE_SIDE = 256
THINNEST = 2
"""Pixels, in however small a picture: a turned line of one can fall between the pixels."""
LARGEST_ANGLE_DEGREES = 45.0
JITTER = 0.1
"""How much brightness, contrast and saturation may change; and the hue, as a share of the colour circle."""


def cutpaste_patch(rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
    """Cut a rectangle from the picture, change its colours a little and paste it at another place.

    Args:
        normal: (H, W, 3) uint8, left unchanged.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 where something was pasted, even if it looks like what it covers.
    """
    height, width = normal.shape[:2]
    area = rng.uniform(*PATCH_AREAS) * height * width
    lying = rng.random() < 0.5
    aspect = math.exp(
        rng.uniform(0, math.log(PATCH_ASPECTS[1])) if lying else rng.uniform(math.log(PATCH_ASPECTS[0]), 0)
    )
    rows = min(height, max(1, round(math.sqrt(area / aspect))))
    columns = min(width, max(1, round(math.sqrt(area * aspect))))
    patch = jitter(rng, _cut(rng, normal, rows, columns))
    return _paste(rng, normal, patch, np.ones((rows, columns), np.uint8))


def cutpaste_scar(rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
    """Cut a long thin rectangle from the picture, change its colours a little, turn it and paste it elsewhere.

    Arguments and results as of `cutpaste_patch`.
    """
    scale = min(normal.shape[:2]) / REFERENCE_SIDE
    rows, columns = (max(THINNEST, round(scale * rng.uniform(*limits))) for limits in (SCAR_LENGTHS, SCAR_WIDTHS))
    patch = jitter(rng, _cut(rng, normal, rows, columns))
    angle_degrees = rng.uniform(-LARGEST_ANGLE_DEGREES, LARGEST_ANGLE_DEGREES)
    return _paste(rng, normal, *_turned(patch, angle_degrees))


def cutpaste_union(rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
    """Either of the two, equally likely."""
    return (cutpaste_patch if rng.random() < 0.5 else cutpaste_scar)(rng, normal)


def jitter(rng: np.random.Generator, patch: Image) -> Image:
    """Change brightness, contrast, saturation and hue, each by up to `JITTER`; grey stays grey.

    Args:
        patch: (H, W, 3) uint8, BGR, left unchanged.
    """
    brightness, contrast, saturation = rng.uniform(1 - JITTER, 1 + JITTER, 3).tolist()
    turn_degrees = 360 * rng.uniform(-JITTER, JITTER)
    level = np.asarray(patch, np.float32) * np.float32(brightness / 255)
    mean = float(cv2.cvtColor(level, cv2.COLOR_BGR2GRAY).mean())
    level = mean + np.float32(contrast) * (level - np.float32(mean))
    colours = cv2.cvtColor(np.clip(level, 0, 1).astype(np.float32), cv2.COLOR_BGR2HSV)
    colours[:, :, 0] = (colours[:, :, 0] + turn_degrees) % 360
    colours[:, :, 1] = np.minimum(colours[:, :, 1] * saturation, 1)
    return np.asarray(np.rint(255 * cv2.cvtColor(colours, cv2.COLOR_HSV2BGR)), np.uint8)


def _cut(rng: np.random.Generator, picture: Image, rows: int, columns: int) -> Image:
    top, left = _corner(rng, picture, rows, columns)
    return picture[top : top + rows, left : left + columns]


def _paste(rng: np.random.Generator, normal: Image, patch: Image, outline: Mask) -> tuple[Image, Mask]:
    """The part of the patch where `outline` is 1 somewhere in the picture, as a whole inside of it."""
    rows, columns = outline.shape
    top, left = _corner(rng, normal, rows, columns)
    place = (slice(top, top + rows), slice(left, left + columns))
    pasted = normal.copy()
    mask = np.zeros(normal.shape[:2], np.uint8)
    mask[place] = outline
    pasted[place] = np.where(outline[:, :, None] == 1, patch, pasted[place])
    return pasted, mask


def _corner(rng: np.random.Generator, picture: Image, rows: int, columns: int) -> tuple[int, int]:
    """Of a random window inside the picture."""
    height, width = picture.shape[:2]
    return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))


def _turned(patch: Image, angle_degrees: float) -> tuple[Image, Mask]:
    """The patch turned about its middle, in a box that it just fits into, and where in the box it is."""
    rows, columns = patch.shape[:2]
    cosine, sine = abs(math.cos(math.radians(angle_degrees))), abs(math.sin(math.radians(angle_degrees)))
    width = math.ceil(columns * cosine + rows * sine)
    height = math.ceil(columns * sine + rows * cosine)
    turn = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), angle_degrees, 1.0)
    turn[:, 2] += ((width - columns) / 2, (height - rows) / 2)
    # Beyond its border the patch goes on, so that nothing foreign is mixed into its outermost pixels.
    turned = cv2.warpAffine(patch, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    ones = np.ones((rows, columns), np.uint8)
    outline = cv2.warpAffine(ones, turn, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(turned, np.uint8), np.asarray(outline, np.uint8)
