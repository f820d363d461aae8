"""AUROC and AUPRO of each side of a comparison, at the pictures' own resolution, as the runtime would answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.gate.answers import Answer
from export.gate.pictures import Picture
from stlm_edge.curves import ScoreCurve, ScorePool, area_up_to, pixel_pool
from stlm_edge.datasets import GOOD
from stlm_edge.imaging import Map, Mask, resize_map
from stlm_edge.metrics import FPR_LIMIT, curve_auroc, roc_auc
from stlm_edge.spec import Size

_TOGETHER = 64
"""Pictures whose full maps are in memory at once."""


@dataclass(frozen=True)
class Metrics:
    """In 0 … 1; None where the labels or masks for it are missing."""

    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None


@dataclass(frozen=True, eq=False)
class _Truth:
    """What is true about one picture; the mask, None on good ones, at one bit a pixel."""

    is_defective: bool
    size: Size
    bits: NDArray[np.uint8] | None

    @property
    def is_placed(self) -> bool:
        """Whether it is known where its defects are."""
        return not self.is_defective or self.bits is not None

    def mask(self) -> Mask:
        if self.bits is None:
            return np.zeros(self.size, np.uint8)
        return np.unpackbits(self.bits, count=self.size[0] * self.size[1]).reshape(self.size)


class AccuracyMeter:
    """Keeps the scores and coarse maps of several sides, and what is true about their pictures."""

    def __init__(self, sides: int) -> None:
        self._truths: list[_Truth] = []
        self._scores: list[list[float]] = [[] for _ in range(sides)]
        self._maps: list[list[Map]] = [[] for _ in range(sides)]

    @property
    def pictures(self) -> int:
        """How many have been counted."""
        return len(self._truths)

    @property
    def pairs(self) -> int:
        """Of a good and a defective picture."""
        defective = sum(truth.is_defective for truth in self._truths)
        return defective * (len(self._truths) - defective)

    def add(self, picture: Picture, answers: Sequence[Answer | None]) -> None:
        """Count one picture; a side that has no answer has no metrics from then on."""
        bits = None if picture.mask is None else np.packbits(picture.mask)
        size = (picture.image.shape[0], picture.image.shape[1])
        self._truths.append(_Truth(picture.label != GOOD, size, bits))
        for scores, maps, answer in zip(self._scores, self._maps, answers, strict=True):
            if answer is not None:
                scores.append(answer.score)
                maps.append(answer.coarse)

    def metrics(self, side: int) -> Metrics | None:
        """Of one side over all pictures; None if it did not answer all of them."""
        if len(self._scores[side]) < len(self._truths):
            return None
        defective = np.array([truth.is_defective for truth in self._truths])
        image_auroc = roc_auc(np.array(self._scores[side]), defective)
        if not defective.any() or not all(truth.is_placed for truth in self._truths):
            return Metrics(_defined(image_auroc), None, None)
        curve = ScoreCurve.over(self._pools(self._maps[side]))
        return Metrics(
            _defined(image_auroc), _defined(curve_auroc(curve)), _defined(area_up_to(curve.pro(), FPR_LIMIT))
        )

    def _pools(self, maps: Sequence[Map]) -> Iterator[ScorePool]:
        for start in range(0, len(maps), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            truths = self._truths[part]
            full = [resize_map(coarse, truth.size) for coarse, truth in zip(maps[part], truths, strict=True)]
            yield pixel_pool(full, [truth.mask() for truth in truths])


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
