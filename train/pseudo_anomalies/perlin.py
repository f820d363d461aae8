"""Pseudo anomalies of a texture, blended in (paper, 3.2, equation 1) where Perlin noise is high, or as thin scars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image, Mask
from stlm_edge.spec import Size

Noise = NDArray[np.float32]
Gradients = NDArray[np.float64]

LARGEST_SCALE_EXPONENT = 5
SMALLEST_CELL = 32
"""Pixels of a noise cell: two cells of the anomaly map, less would vanish from the target between its cells."""
BAND_ELEMENTS = 1 << 15
"""Of the noise at once. They fit into the cache, and the product is too small for NumPy's threads: a loader's worker
has one core, and results do not depend on how many there are."""
NOISE_THRESHOLD = 0.5
LARGEST_BETA = 0.8
LARGEST_ANGLE_DEGREES = 90.0

SCAR_LENGTHS = (0.05, 0.35)
"""Of the shorter side."""
SCAR_WIDTHS = (0.004, 0.025)
"""Likewise; a pixel at 256, so that the finest scratches are among them."""
MOST_SCARS = 2


def perlin_gradients(rng: np.random.Generator, res: Size) -> Gradients:
    """Random unit vectors at the corners of a lattice of `res` (rows, columns) cells.

    Returns:
        (rows + 1, columns + 1, 2) float64; the first component goes with rows.
    """
    angle = 2 * math.pi * rng.random((res[0] + 1, res[1] + 1))
    return np.stack((np.cos(angle), np.sin(angle)), axis=-1)


def perlin_noise(gradients: Gradients, shape: Size) -> Noise:
    """Perlin noise over a picture, times sqrt(2).

    Along x the noise is a sum of terms, each a lattice value of row p times a function of the column alone; so it is
    spread over the columns first, lattice row by lattice row, and then over the rows: each lies between two lattice
    rows, with four such terms in all, and is done with its neighbours as a product of (rows, 4) and (4, columns).

    Args:
        gradients: (r0 + 1, r1 + 1, 2), as from `perlin_gradients`.
        shape: (H, W), pixels at the upper-left corners of their cells; need not be a multiple of the lattice.
    Returns:
        (H, W) float32 in -1 … 1, 0 at lattice points.
    """
    scaled = (math.sqrt(2) * gradients).astype(np.float32)
    column = _weights(shape[1], gradients.shape[1] - 1)
    left, right = scaled[:, column.cell], scaled[:, column.cell + 1]
    with_rows = column.near * left[..., 0] + column.far * right[..., 0]
    with_columns = column.near_slope * left[..., 1] + column.far_slope * right[..., 1]
    row = _weights(shape[0], gradients.shape[0] - 1)
    weights = np.stack((row.near_slope, row.near, row.far_slope, row.far), axis=1)
    noise = np.empty(shape, np.float32)
    for start, stop in _bands(row.cell, BAND_ELEMENTS // shape[1]):
        cell = int(row.cell[start])
        lines = np.stack((with_rows[cell], with_columns[cell], with_rows[cell + 1], with_columns[cell + 1]))
        np.matmul(weights[start:stop], lines, out=noise[start:stop])
    return noise


def rotate_noise(noise: Noise, angle_degrees: float) -> Noise:
    """Turn a picture of noise about its centre, clockwise for positive angles; bilinear, 0 outside, size kept."""
    height, width = noise.shape
    cosine, sine = math.cos(math.radians(angle_degrees)), math.sin(math.radians(angle_degrees))
    x, y = (width - 1) / 2, (height - 1) / 2
    to_input = np.array(((cosine, sine, x - cosine * x - sine * y), (-sine, cosine, y + sine * x - cosine * y)))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(noise, to_input, (width, height), flags=flags), np.float32)


def blend(normal: Image, texture: Image, mask: Mask, beta: float) -> Image:
    """I = (1 - M) N + (1 - beta) M A + beta M N (equation 1), truncated to whole levels as the authors' code does.

    Args:
        normal, texture: N and A, (H, W, 3) uint8.
        mask: M, (H, W) uint8 of 0 and 1.
        beta: weight of the normal picture inside the mask, 0 … 1; 0 is pure texture.
    Returns:
        (H, W, 3) uint8.
    """
    blended = normal.copy()
    inside = np.flatnonzero(mask.astype(bool))  # ten times as fast as on numbers
    old, new = (image.reshape(-1, 3).take(inside, axis=0) for image in (normal, texture))
    blended.reshape(-1, 3)[inside] = ((1 - beta) * new + beta * old).astype(np.uint8)
    return blended


def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Between two positive limits, small values as likely as large ones: the logarithm is uniform."""
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


def synthesise(
    rng: np.random.Generator, normal: Image, texture: Image, *, largest_beta: float = LARGEST_BETA
) -> tuple[Image, Mask]:
    """Put a pseudo anomaly into a normal picture (paper, section 3.2 and the authors' parameters).

    Lattice scales are 2^0 … 2^5 along each side, the noise is turned by up to 90 degrees either way and cut at 0.5,
    beta is uniform in 0 … `largest_beta`. The mask may come out empty, as in the authors' code. Below 1024 pixels,
    where the paper is silent, the finest scales are left out, so that a noise cell keeps at least 32 pixels.

    Args:
        normal: (H, W, 3) uint8, left unchanged.
        texture: the anomaly source, same shape.
        largest_beta: how faint a pseudo anomaly may get; 0.8 is the authors'.
    Returns:
        (H, W, 3) uint8 and (H, W) uint8, 1 on the pseudo anomaly.
    """
    shape = (normal.shape[0], normal.shape[1])
    finest = min(LARGEST_SCALE_EXPONENT, max(0, (min(shape) // SMALLEST_CELL).bit_length() - 1))
    exponents = rng.integers(0, finest + 1, size=2)
    gradients = perlin_gradients(rng, (1 << int(exponents[0]), 1 << int(exponents[1])))
    angle = rng.uniform(-LARGEST_ANGLE_DEGREES, LARGEST_ANGLE_DEGREES)
    noise = rotate_noise(perlin_noise(gradients, shape), angle)
    mask = (noise > NOISE_THRESHOLD).astype(np.uint8)
    return blend(normal, texture, mask, rng.uniform(0, largest_beta)), mask


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
        extent = (log_uniform(rng, SCAR_LENGTHS) * side, log_uniform(rng, SCAR_WIDTHS) * side)
        corners = cv2.boxPoints((middle, extent, rng.uniform(0, 180)))
        cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], (1,), cv2.LINE_8, 4)
    return blend(normal, texture, mask, rng.uniform(0, largest_beta)), mask


@dataclass(frozen=True)
class _Weights:
    """What the two lattice lines around each pixel add to it along one side, each (length,).

    Attributes:
        cell: the number of the nearer to the beginning; the other is the next.
        near, far: the fade.
        near_slope, far_slope: the fade times the distance.
    """

    cell: NDArray[np.intp]
    near: Noise
    far: Noise
    near_slope: Noise
    far_slope: Noise


def _weights(length: int, cells: int) -> _Weights:
    position = np.arange(length) * (cells / length)
    cell = np.floor(position).astype(np.intp)
    fraction = position - cell
    far = fraction**3 * (fraction * (fraction * 6 - 15) + 10)
    near = 1 - far
    parts = (near, far, near * fraction, far * (fraction - 1))
    return _Weights(cell, *(part.astype(np.float32) for part in parts))


def _bands(cells: NDArray[np.intp], most_rows: int) -> Iterator[tuple[int, int]]:
    """Stretches of rows, [start, stop), that lie in one lattice row and are not more than that many."""
    edges = [0, *(np.flatnonzero(np.diff(cells)) + 1).tolist(), len(cells)]
    for begin, end in pairwise(edges):
        for start in range(begin, end, max(1, most_rows)):
            yield start, min(start + max(1, most_rows), end)
