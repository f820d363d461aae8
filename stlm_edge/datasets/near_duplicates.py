"""Which of some good pictures look like the same part again: another exposure of it, the next frame of a video.

Parts in a fixture look nearly alike without being the same, so what all pictures share is taken away first, and the
rest is compared where each neighbourhood counts the same, whatever its contrast. Only pairs are joined that are far
more alike than pairs of these pictures are: where all of them resemble one another, as parts that differ by little more
than their place do, that is none. What is missed makes intervals too narrow, what is joined wrongly too wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.imaging import Image

MOST_PICTURES = 2000
"""That are compared with one another; twice as many would take four times as long, and 10 s are enough."""
FEWEST_PICTURES = 8
"""From which one can see what all share."""

_SIDE = 48
_SIGMA = 2.0
"""Of the neighbourhood that each cell is compared with."""
_SHIFTS = 2
"""Cells that a part may have moved by."""
_LEAST = 0.5
"""Correlation of two pictures of a part at least, and how many deviations of all pairs it lies above them."""
_DEVIATIONS = 5.0

Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Look:
    """What of a picture is compared with others.

    Attributes:
        cells: (48, 48) float32, grey.
        digest: of all pixels.
    """

    cells: Values
    digest: bytes

    @classmethod
    def of(cls, image: Image) -> Look:
        """Args: image: (H, W, 3) uint8, BGR; all of one size."""
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        cells = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        return cls(np.asarray(cells, np.float32), blake2b(np.ascontiguousarray(image).tobytes()).digest())


def near_duplicates(looks: Sequence[Look]) -> list[int]:
    """The part of each picture, by a number that the pictures of a part share.

    Equal pictures are of one part however alike the others are, and so are those without any structure, which nothing
    tells apart. Others are not compared where there are less than `FEWEST_PICTURES`, and none where there are more than
    `MOST_PICTURES`: then each is a part of its own.
    """
    if len(looks) > MOST_PICTURES:
        return list(range(len(looks)))
    cells = np.stack([look.cells for look in looks])
    has_structure = cells.std(axis=(1, 2)) > 1
    equal = _equal(looks, has_structure)
    if len(looks) < FEWEST_PICTURES:
        return _components(equal)
    similarity = _similarity(np.stack([_levelled(picture) for picture in cells]), has_structure)
    pairs = similarity[np.triu_indices(len(looks), 1)]
    middle = np.median(pairs)
    spread = 1.4826 * np.median(np.abs(pairs - middle))
    return _components(equal | (similarity >= max(_LEAST, middle + _DEVIATIONS * spread)))


def _levelled(cells: Values) -> Values:
    """With the mean and the deviation of each cell's neighbourhood made alike; 1 keeps grain of no depth small."""
    rest = cells - cv2.GaussianBlur(cells, (0, 0), _SIGMA)
    return np.asarray(rest / (np.sqrt(cv2.GaussianBlur(rest * rest, (0, 0), _SIGMA)) + 1), np.float32)


def _similarity(cells: Values, has_structure: NDArray[np.bool_]) -> Values:
    """(N, N): the highest correlation of two pictures, less what all share, over small shifts."""
    rest = cells - cells.mean(axis=0)
    inner = slice(_SHIFTS, _SIDE - _SHIFTS)
    still = _normalised(rest[:, inner, inner], has_structure)
    best = np.full((len(cells), len(cells)), -1, np.float32)
    for down in range(2 * _SHIFTS + 1):
        for right in range(2 * _SHIFTS + 1):
            rows, columns = slice(down, down + _SIDE - 2 * _SHIFTS), slice(right, right + _SIDE - 2 * _SHIFTS)
            np.maximum(best, still @ _normalised(rest[:, rows, columns], has_structure).T, out=best)
    return np.maximum(best, best.T)


def _normalised(cells: Values, has_structure: NDArray[np.bool_]) -> Values:
    flat = cells.reshape(len(cells), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat * (has_structure[:, None] / np.maximum(length, 1e-3)), np.float32)


def _equal(looks: Sequence[Look], has_structure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, N): whether two pictures have the same pixels, or both no structure."""
    digests = [look.digest.hex() if told else "" for look, told in zip(looks, has_structure, strict=True)]
    _, numbers = np.unique(digests, return_inverse=True)
    return np.asarray(numbers[:, None] == numbers[None])


def _components(joined: NDArray[np.bool_]) -> list[int]:
    """The lowest number among all that a picture is joined with, by way of others too."""
    numbers = np.arange(len(joined))
    while True:
        lowest = np.minimum(numbers, np.where(joined, numbers, len(joined)).min(axis=1))
        if (lowest == numbers).all():
            return [int(number) for number in numbers]
        numbers = lowest
