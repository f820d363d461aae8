"""The bar: a Gabor filter bank and the nearest neighbour among good patches. Nothing is learnt; no torch.

A picture is brought to one length, its brightness and contrast are evened out locally, and the energies of a bank of
Gabor filters describe each patch, as texture analysis has done since the nineties. What is far from every patch of the
good pictures is anomalous.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image, read_image, resize, resize_map
from stlm_edge.inspection import Answer

Field = NDArray[np.float32]

LONGER_SIDE = 256
NORMALISATION_SIGMA = 16.0
"""Pixels over which brightness and contrast are evened out; larger soft regions vanish, which is the price."""
NOISE_VARIANCE = 4.0
"""Of a camera, squared grey levels: what a flat region is not amplified beyond."""
WAVELENGTHS = (4.0, 8.0, 16.0)
ORIENTATIONS = 4
SIGMA_PER_WAVELENGTH = 0.5
ASPECT = 0.5
"""Of the Gabor envelope: across to along the stripes."""
POOLING_SIGMA = 8.0
STRIDE = 8
FAINTEST_ENERGY = 0.01
"""Added before the logarithm, in standard deviations of the evened picture."""
MEMORY = 10_000
"""Patches of good pictures to compare with."""
TOP_SHARE = 0.2
"""Of a map: the mean of its highest patches is the score; defects here are large or change much around them."""


def features(image: Image) -> Field:
    """(H, W, 3) uint8 → (rows, columns, F), one for each `STRIDE` resized pixels: log energies under F filters."""
    height, width = image.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    size = (max(STRIDE, round(height * scale)), max(STRIDE, round(width * scale)))
    even = _even_out(np.asarray(cv2.cvtColor(resize(image, size), cv2.COLOR_BGR2GRAY), np.float32))
    planes = []
    for cosine, sine in _bank():
        energy = np.hypot(cv2.filter2D(even, -1, cosine), cv2.filter2D(even, -1, sine))
        pooled = _blur(energy, POOLING_SIGMA)[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
        planes.append(np.log(pooled + FAINTEST_ENERGY))
    return np.stack(planes, axis=-1)


@dataclass(frozen=True)
class GaborMemory:
    """Patches of good pictures, (P, F), standardised by the mean and deviation of all of them, (F,)."""

    name = "Gabor filters"

    mean: Field
    deviation: Field
    patches: Field

    @classmethod
    def of(cls, paths: Sequence[Path], *, seed: int = 0) -> GaborMemory:
        """Remember patches drawn at random. Raises `ImageError`."""
        patches = np.concatenate([_rows(features(read_image(path))) for path in paths])
        mean, deviation = patches.mean(axis=0), np.maximum(patches.std(axis=0), 1e-6)
        chosen = np.random.default_rng(seed).choice(len(patches), min(MEMORY, len(patches)), replace=False)
        return cls(mean, deviation, (patches[chosen] - mean) / deviation)

    def inspect(self, image: Image) -> Answer:
        """The smoothed distance to the nearest good patch at the picture's resolution, and its highest fifth's mean."""
        described = features(image)
        wanted = (_rows(described) - self.mean) / self.deviation
        # |a - b|² is multiplied out, so that the work is one matrix product.
        squares = np.sum(self.patches**2, axis=1) - 2 * wanted @ self.patches.T
        nearest = np.sqrt(np.maximum(squares.min(axis=1) + np.sum(wanted**2, axis=1), 0))
        coarse = _blur(nearest.reshape(described.shape[:2]).astype(np.float32), POOLING_SIGMA / STRIDE)
        count = max(1, round(TOP_SHARE * coarse.size))
        highest = np.partition(coarse.ravel(), coarse.size - count)[coarse.size - count :]
        full = resize_map(coarse, (image.shape[0], image.shape[1]))
        return Answer(full, float(highest.mean(dtype=np.float64)))


def _even_out(grey: Field) -> Field:
    detail = grey - _blur(grey, NORMALISATION_SIGMA)
    return np.asarray(detail / np.sqrt(_blur(detail**2, NORMALISATION_SIGMA) + NOISE_VARIANCE), np.float32)


def _bank() -> Iterator[tuple[Field, ...]]:
    """Even and odd filter of each wavelength and orientation, without response to brightness."""
    for wavelength, index in product(WAVELENGTHS, range(ORIENTATIONS)):
        sigma, angle = SIGMA_PER_WAVELENGTH * wavelength, math.pi * index / ORIENTATIONS
        side = 2 * math.ceil(3 * sigma / ASPECT) + 1
        kernels = (
            cv2.getGaborKernel((side, side), sigma, angle, wavelength, ASPECT, phase) for phase in (0, math.pi / 2)
        )
        balanced = [kernel - kernel.mean() for kernel in kernels]
        yield tuple(np.asarray(kernel / np.abs(kernel).sum(), np.float32) for kernel in balanced)


def _blur(field: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def _rows(described: Field) -> Field:
    return described.reshape(-1, described.shape[2])
