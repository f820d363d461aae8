"""The anomaly source, A of equation 1: a folder of textures or procedural ones, as they are or in a picture's tone."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.datasets import texture_paths
from stlm_edge.errors import DataError, ImageError
from stlm_edge.imaging import Image, read_image, resize
from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

CACHE_BYTES = 1 << 29
"""In each process that draws: 170 textures of 1024 x 1024, or 2,700 of 256 x 256."""

Pattern = NDArray[np.float32]
"""(H, W) in 0 … 1."""


class TextureSource(Protocol):
    """Gives one picture at a time to cut pseudo anomalies from."""

    def draw(self, rng: np.random.Generator, size: Size) -> Image:
        """A texture of `size`, (H, W, 3) uint8, BGR."""


class FolderTextures:
    """Random pictures of a folder tree such as DTD's, resized as the training pictures are (paper, 4.1.1).

    A file that cannot be read is named in a warning and another one drawn; one texture is as good as another. What is
    drawn depends on the generator alone, not on what was drawn before.

    Args:
        cache_bytes: how much of the resized pictures to keep; those longest not drawn make way. DTD at 1024 x 1024
            would be 17 GB.
    """

    def __init__(self, paths: Sequence[Path], *, cache_bytes: int = CACHE_BYTES) -> None:
        self._paths = list(paths)
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[tuple[int, Size], Image] = OrderedDict()
        self._unreadable: set[int] = set()

    def draw(self, rng: np.random.Generator, size: Size) -> Image:
        """Raises `DataError` when no texture can be read. The picture is shared: not to be written to."""
        while len(self._unreadable) < len(self._paths):
            index = int(rng.integers(len(self._paths)))
            if index in self._unreadable:
                continue
            if (index, size) in self._cache:
                self._cache.move_to_end((index, size))
                return self._cache[index, size]
            try:
                texture = resize(read_image(self._paths[index]), size)
            except ImageError as error:
                logger.warning("skipped: %s", error)
                self._unreadable.add(index)
                continue
            self._keep((index, size), texture)
            return texture
        raise DataError("none of the textures can be read; give another folder with --textures")

    def _keep(self, key: tuple[int, Size], texture: Image) -> None:
        self._cache[key] = texture
        self._cached_bytes += texture.nbytes
        while self._cached_bytes > self._cache_bytes:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes


class ProceduralTextures:
    """Noise of several scales, stripes, checks and speckle in random colours; not the paper's, but needs no files."""

    def draw(self, rng: np.random.Generator, size: Size) -> Image:
        pattern = (_clouds, _stripes, _checks, _speckle)[rng.integers(4)](rng, size)
        low, high = rng.uniform(0, 255, (2, 3)).astype(np.float32)
        if rng.random() < 0.5:  # half of them grey, as most technical surfaces are
            low[:], high[:] = low[0], high[0]
        ramp = low + (high - low) * np.linspace(0, 1, 256, dtype=np.float32)[:, None]
        level = np.asarray(255 * pattern, np.uint8)
        return np.asarray(cv2.LUT(cv2.merge((level, level, level)), ramp.astype(np.uint8)[None]), np.uint8)


def texture_source(folder: Path | None) -> TextureSource:
    """The textures of a folder tree; without one procedural patterns, which a warning says. Raises `DataError`."""
    if folder is not None:
        return FolderTextures(texture_paths(folder))
    logger.warning("NO TEXTURES: pseudo anomalies are cut from procedural patterns; give --textures, such as DTD")
    return ProceduralTextures()


def _clouds(rng: np.random.Generator, size: Size) -> Pattern:
    total = np.zeros(size, np.float32)
    for octave in range(2, 2 + int(rng.integers(2, 6))):
        cells = rng.random((1 << octave, 1 << octave), dtype=np.float32)
        total += cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC) / (octave - 1)
    return _unit(total)


def _stripes(rng: np.random.Generator, size: Size) -> Pattern:
    rows, _ = _grid(rng, size)
    phase = rows * rng.uniform(4, 60) + _clouds(rng, size) * (0.2 * rng.uniform(0, 6))
    return _unit(np.sin(2 * np.pi * phase))


def _checks(rng: np.random.Generator, size: Size) -> Pattern:
    rows, columns = _grid(rng, size)
    count = rng.uniform(4, 40)
    return _unit(np.sign(np.sin(2 * np.pi * count * rows) * np.sin(2 * np.pi * count * columns)))


def _speckle(rng: np.random.Generator, size: Size) -> Pattern:
    noise = rng.random(size, dtype=np.float32)
    return _unit(cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.5, 3)))


def _grid(rng: np.random.Generator, size: Size) -> tuple[Pattern, Pattern]:
    """Coordinates in 0 … 1, turned by a random angle."""
    rows, columns = (np.arange(side, dtype=np.float32) / max(size) for side in size)
    angle = rng.uniform(0, np.pi)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.add.outer(rows * cosine, columns * sine), np.add.outer(-rows * sine, columns * cosine)


def _unit(values: NDArray[Any]) -> Pattern:
    low, high = values.min(), values.max()
    scale = np.float32(1 / max(high - low, 1e-6))
    return np.asarray((values - low) * scale, np.float32)


LARGEST_SHIFT = 2.0
"""How far the mean may lie from the picture's, in standard deviations of the picture."""
CONTRASTS = (0.5, 1.5)
"""Standard deviation, of the picture's."""
SMALLEST_DEVIATION = 4.0
"""Grey levels; a flat picture or texture counts as having as much."""


def match_tone(rng: np.random.Generator, texture: Image, normal: Image) -> Image:
    """Bring a texture near a picture's brightness and contrast, and make it grey where the picture is.

    On a grey surface, a coloured photograph is found by its colour, and no defect has any.

    Args:
        texture, normal: (H, W, 3) uint8, left unchanged.
    Returns:
        (H, W, 3) uint8, the texture.
    """
    own = texture.astype(np.float32)
    if not np.any(normal != normal[:, :, :1]):
        own = np.repeat(own.mean(axis=2, keepdims=True), 3, axis=2)
    deviation = max(float(normal.std(axis=(0, 1)).mean()), SMALLEST_DEVIATION)
    shift = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT) * deviation
    contrast = rng.uniform(*CONTRASTS) * deviation / max(float(own.std(axis=(0, 1)).mean()), SMALLEST_DEVIATION)
    matched = normal.mean(axis=(0, 1)) + shift + contrast * (own - own.mean(axis=(0, 1)))
    return np.asarray(np.clip(np.round(matched), 0, 255), np.uint8)
