"""Pseudo anomalies: a texture blended into a normal picture where Perlin noise is high (paper, section 3.2, eq. 1)."""

from __future__ import annotations

import math

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
NOISE_THRESHOLD = 0.5
LARGEST_BETA = 0.8
LARGEST_ANGLE_DEGREES = 90.0


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
    spread over the columns first, lattice row by lattice row, and then over the rows, by matrix products.

    Args:
        gradients: (r0 + 1, r1 + 1, 2), as from `perlin_gradients`.
        shape: (H, W), pixels at the upper-left corners of their cells; need not be a multiple of the lattice.
    Returns:
        (H, W) float32 in -1 … 1, 0 at lattice points.
    """
    row_value, row_slope = _weights(shape[0], gradients.shape[0] - 1)
    column_value, column_slope = _weights(shape[1], gradients.shape[1] - 1)
    scaled = (math.sqrt(2) * gradients).astype(np.float32)
    across = np.concatenate((scaled[..., 0] @ column_value.T, scaled[..., 1] @ column_slope.T))
    return np.asarray(np.concatenate((row_slope, row_value), axis=1) @ across, np.float32)


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
    inside = np.flatnonzero(mask)
    old, new = normal.reshape(-1, 3)[inside], texture.reshape(-1, 3)[inside]
    blended.reshape(-1, 3)[inside] = ((1 - beta) * new + beta * old).astype(np.uint8)
    return blended


def synthesise(
    rng: np.random.Generator, normal: Image, texture: Image, *, largest_beta: float = LARGEST_BETA
) -> tuple[Image, Mask]:
    """Put a pseudo anomaly into a normal picture (paper, section 3.2 and the authors' parameters).

    Lattice scales are 2^0 … 2^5 along each side, the noise is turned by up to 90 degrees either way and cut at 0.5,
    beta is uniform in 0 … `largest_beta`. The mask may come out empty and is then not drawn again. Below 1024 pixels,
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


def _weights(length: int, cells: int) -> tuple[Noise, Noise]:
    """What each lattice line adds at each pixel along one side: the fade, and the fade times the distance.

    Returns:
        Twice (length, cells + 1) float32, two entries of each row not 0.
    """
    position = np.arange(length) * (cells / length)
    cell = np.floor(position).astype(np.intp)
    fraction = position - cell
    fade = fraction**3 * (fraction * (fraction * 6 - 15) + 10)
    value = np.zeros((length, cells + 1), np.float32)
    slope = np.zeros_like(value)
    pixel = np.arange(length)
    value[pixel, cell], value[pixel, cell + 1] = 1 - fade, fade
    slope[pixel, cell], slope[pixel, cell + 1] = (1 - fade) * fraction, fade * (fraction - 1)
    return value, slope
