"""Pseudo anomalies of surfaces, made from the good picture itself: other finish, pits, cracks. Not in the paper.

A texture blended in is loud beside what a machined surface really shows: a region finished differently, a cavity, a
hairline crack. All three are relative to the picture's own brightness, so a dark picture gets a dark one's defects.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image, Mask
from stlm_edge.spec import Size
from train.pseudo_anomalies.perlin import log_uniform

Field = NDArray[np.float32]
"""(H, W) or (H, W, 3)."""

FINISH_AREA = (0.03, 0.45)
"""Of the picture."""
FINISH_SOFTNESS = (0.004, 0.05)
"""Standard deviation of a region's border, of the shorter side."""
GRAIN_SIZE = (0.01, 0.05)
"""Standard deviation of the blur that parts tone from grain, of the shorter side."""
TONE_FACTORS = (1.2, 2.5)
GRAIN_FACTORS = (1.6, 5.0)
"""Or their inverse: what tone and grain are multiplied by. Less is what good surfaces differ by."""
VISIBLE_CHANGE = 0.12
"""Mean change in a region, of its brightness."""
DARK = 8
"""Grey levels added to the brightness: in black regions a level more or less is no change."""
MOST_TRIES = 5
BAND_PROBABILITY = 0.5
AXIS_ALIGNED_PROBABILITY = 0.7

PIT_RADII = (0.005, 0.03)
PIT_DEPTHS = (0.3, 0.9)
"""Share of the light that is lost in a pit or a crack."""
MOST_PITS = 3
LARGEST_ASPECT = 2.5

CRACK_LENGTHS = (0.08, 0.5)
CRACK_WIDTHS = (0.004, 0.014)
CRACK_STEPS = 24
CRACK_TURN = 0.25
"""Standard deviation of the change of direction from step to step, in radians."""
MOST_CRACKS = 2

SHIFT = 4
"""Fractional bits of OpenCV's drawing coordinates."""


def finish(rng: np.random.Generator, normal: Image, other: Image) -> tuple[Image, Mask]:
    """Give a large region another tone, another grain or both, as if it had been ground or coated differently.

    The picture is parted by a blur into tone and grain. In the region the tone gets brighter or darker, or the grain
    stronger or weaker; half of the time the grain is another good picture's, mirrored or turned.

    A change that nobody would see is drawn again, a few times; then the picture stays as it is and the mask empty.

    Args:
        normal, other: (H, W, 3) uint8 of one size, left unchanged.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 where more than half of the change is reached.
    """
    for _ in range(MOST_TRIES):
        changed, mask = _refinish(rng, normal, other)
        inside = mask != 0
        change = cv2.absdiff(changed, normal)[inside].astype(np.float32)
        if inside.any() and change.mean() >= VISIBLE_CHANGE * (float(normal[inside].mean()) + DARK):
            return changed, mask
    return normal, np.zeros_like(mask)


def _refinish(rng: np.random.Generator, normal: Image, other: Image) -> tuple[Image, Mask]:
    size = (normal.shape[0], normal.shape[1])
    sigma = log_uniform(rng, GRAIN_SIZE) * min(size)
    picture = normal.astype(np.float32)
    tone = _blur(picture, sigma)
    grain = picture - tone
    changes_tone, changes_grain = ((True, False), (False, True), (True, True))[int(rng.integers(3))]
    if changes_grain:
        if rng.random() < 0.5:
            turned = _turned(rng, other).astype(np.float32)
            smooth = _blur(turned, sigma)
            grain = (turned - smooth) * (tone / np.maximum(smooth, 1))
        grain = grain * _factor(rng, GRAIN_FACTORS)
    if changes_tone:
        flat = rng.uniform(0, 1) * (rng.random() < 0.5)
        tone = _factor(rng, TONE_FACTORS) * (flat * tone.mean(axis=(0, 1)) + (1 - flat) * tone)
    weight = _region(rng, size)
    changed = picture + weight[:, :, None] * (tone + grain - picture)
    return _to_image(changed), (weight > 0.5).astype(np.uint8)


def pits(rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
    """Darken one to three small spots, as cavities do.

    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 on the pits.
    """
    size = (normal.shape[0], normal.shape[1])
    cover = np.zeros(size, np.uint8)
    for _ in range(int(rng.integers(1, MOST_PITS + 1))):
        radius, aspect = log_uniform(rng, PIT_RADII) * min(size), rng.uniform(1, LARGEST_ASPECT)
        middle = (_fixed(rng.uniform(0, size[1])), _fixed(rng.uniform(0, size[0])))
        axes = (_fixed(radius * math.sqrt(aspect)), _fixed(radius / math.sqrt(aspect)))
        cv2.ellipse(cover, middle, axes, rng.uniform(0, 180), 0, 360, (255,), cv2.FILLED, cv2.LINE_AA, SHIFT)
    return _darken(rng, normal, cover)


def cracks(rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
    """Draw one or two thin dark lines that wander.

    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 on the cracks.
    """
    size = (normal.shape[0], normal.shape[1])
    cover = np.zeros(size, np.uint8)
    for _ in range(int(rng.integers(1, MOST_CRACKS + 1))):
        length, width = log_uniform(rng, CRACK_LENGTHS) * min(size), log_uniform(rng, CRACK_WIDTHS) * min(size)
        turns = rng.normal(0, CRACK_TURN, CRACK_STEPS)
        heading = rng.uniform(0, 2 * math.pi) + np.cumsum(turns)
        steps = length / CRACK_STEPS * np.stack((np.cos(heading), np.sin(heading)), axis=1)
        points = np.cumsum(steps, axis=0) + rng.uniform(0, 1, 2) * size[::-1]
        vertices = np.round(points * (1 << SHIFT)).astype(np.int32)
        cv2.polylines(cover, [vertices], False, (255,), max(1, round(width)), cv2.LINE_AA, SHIFT)
    return _darken(rng, normal, cover)


def _region(rng: np.random.Generator, size: Size) -> Field:
    """A soft region of 0 … 1: a band across the picture or along a side, or a blob; its border wobbles."""
    height, width = size
    area = rng.uniform(*FINISH_AREA)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    rows, columns = rows / height - 0.5, columns / width - 0.5
    wobble = _wobble(rng, size)
    if rng.random() < BAND_PROBABILITY:
        angle = (
            rng.integers(4) * math.pi / 2 if rng.random() < AXIS_ALIGNED_PROBABILITY else rng.uniform(0, 2 * math.pi)
        )
        across = math.cos(angle) * columns + math.sin(angle) * rows
        # half of them begin at a side, where a tool enters or leaves
        middle = rng.uniform(-0.5, 0.5) if rng.random() < 0.5 else 0.5
        height_field = -np.abs(across - middle) + rng.uniform(0, 0.12) * wobble
    else:
        angle, stretch = rng.uniform(0, math.pi), math.exp(rng.uniform(-0.8, 0.8))
        dx, dy = columns - rng.uniform(-0.5, 0.5), rows - rng.uniform(-0.5, 0.5)
        along = stretch * (math.cos(angle) * dx + math.sin(angle) * dy)
        aside = (math.cos(angle) * dy - math.sin(angle) * dx) / stretch
        height_field = -np.hypot(along, aside) + rng.uniform(0, 0.25) * wobble
    inside = (height_field >= np.quantile(height_field, 1 - area)).astype(np.float32)
    return _blur(inside, log_uniform(rng, FINISH_SOFTNESS) * min(size))


def _wobble(rng: np.random.Generator, size: Size) -> Field:
    """Smooth noise of standard deviation 1 or so."""
    cells = int(rng.integers(3, 9))
    noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _turned(rng: np.random.Generator, picture: Image) -> Image:
    """Mirrored, and turned by a quarter half of the time (square pictures only: others keep their size)."""
    if rng.random() < 0.5 and picture.shape[0] == picture.shape[1]:
        picture = picture.transpose(1, 0, 2)
    return np.ascontiguousarray(picture[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))])


def _darken(rng: np.random.Generator, normal: Image, cover: NDArray[np.uint8]) -> tuple[Image, Mask]:
    depth = rng.uniform(*PIT_DEPTHS)
    light = 1 - depth * cover[:, :, None].astype(np.float32) / 255
    return _to_image(normal * light), (cover > 127).astype(np.uint8)


def _factor(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    factor = log_uniform(rng, limits)
    return factor if rng.random() < 0.5 else 1 / factor


def _blur(field: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def _fixed(value: float) -> int:
    return round(value * (1 << SHIFT))


def _to_image(values: NDArray[np.floating[Any]]) -> Image:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
