"""The obvious way to make training pictures, written down to be measured against; nothing else uses it.

As published training codes do it: each picture and each texture is decoded and resized anew whenever it is drawn, the
noise is evaluated pixel by pixel in double precision, and the blend is computed over the whole picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage

from stlm_edge.imaging import Image, Mask
from stlm_edge.spec import Size

Values = NDArray[np.float64]


def batches(
    pictures: Sequence[Path], textures: Sequence[Path], *, size: Size, batch_size: int, probability: float, seed: int
) -> Iterator[torch.Tensor]:
    """Pseudo-anomalous pictures without end, (N, H, W, 3) uint8 each."""
    for epoch in count(1):
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(pictures)).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            made = []
            for index in order[start : start + batch_size]:
                normal, mask = _read(pictures[index], size), np.zeros(size, np.uint8)
                if rng.random() < probability:
                    texture = _read(textures[int(rng.integers(len(textures)))], size)
                    normal, mask = _anomalous(rng, normal, texture)
                made.append((normal, mask))
            torch.from_numpy(np.stack([mask for _, mask in made])).float()
            yield torch.from_numpy(np.stack([image for image, _ in made]))


def _read(path: Path, size: Size) -> Image:
    with PilImage.open(path) as file:
        return np.asarray(file.convert("RGB").resize(size[::-1], PilImage.Resampling.BILINEAR))


def _anomalous(rng: np.random.Generator, normal: Image, texture: Image) -> tuple[Image, Mask]:
    noise = _noise(rng, (normal.shape[0], normal.shape[1]), (1 << int(rng.integers(6)), 1 << int(rng.integers(6))))
    centre = ((normal.shape[1] - 1) / 2, (normal.shape[0] - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, rng.uniform(-90, 90), 1.0)
    mask = np.where(cv2.warpAffine(noise, turn, (normal.shape[1], normal.shape[0])) > 0.5, 1.0, 0.0)
    beta, inside = rng.uniform(0, 0.8), mask[:, :, None]
    blended = (1 - inside) * normal + (1 - beta) * inside * texture + beta * inside * normal
    return blended.astype(np.uint8), mask.astype(np.uint8)


def _noise(rng: np.random.Generator, size: Size, lattice: Size) -> Values:
    """Perlin noise by its definition: at each pixel the fade between the gradients of four lattice points."""
    angles = 2 * math.pi * rng.random((lattice[0] + 1, lattice[1] + 1))
    position = np.mgrid[0 : size[0], 0 : size[1]] * (np.array(lattice) / size)[:, None, None]
    cell = np.floor(position).astype(int)
    y, x = position - cell

    def corner(down: int, right: int) -> Values:
        angle = angles[cell[0] + down, cell[1] + right]
        return np.asarray(np.cos(angle) * (y - down) + np.sin(angle) * (x - right))

    fade_y, fade_x = (t**3 * (t * (t * 6 - 15) + 10) for t in (y, x))
    left = corner(0, 0) + fade_y * (corner(1, 0) - corner(0, 0))
    right = corner(0, 1) + fade_y * (corner(1, 1) - corner(0, 1))
    return np.asarray(math.sqrt(2) * (left + fade_x * (right - left)))
