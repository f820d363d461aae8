"""Which pseudo anomaly a training picture gets (paper, sections 3.1 and 3.2, table 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from stlm_edge.imaging import Image, Mask
from train.config import TrainConfig
from train.pseudo_anomalies.cutpaste import cutpaste_patch, cutpaste_scar, cutpaste_union
from train.pseudo_anomalies.hiding import seamless_patches
from train.pseudo_anomalies.nsa import OF_CATEGORIES, Nsa, natural_patches
from train.pseudo_anomalies.perlin import scar, synthesise
from train.pseudo_anomalies.textures import TextureSource, match_tone
from train.pseudo_anomalies.tones import cracks, finish, pits

MOST_DRAWS = 20
"""Of a pseudo anomaly that shall not be empty; a black picture takes no crack, however often one is drawn."""

CUT = {"cutpaste-patch": cutpaste_patch, "cutpaste-scar": cutpaste_scar, "cutpaste-union": cutpaste_union}
CUT |= {"pit": pits, "crack": cracks}
"""Kinds that take nothing but the picture itself."""
NSA = "nsa-binary"
PAIRED = {"hiding": seamless_patches, "finish": finish}
"""Kinds that take another good picture, as `NSA` does, which also goes by the category."""


class PseudoAnomalies:
    """Draws a kind for each picture, all kinds equally likely, and puts such an anomaly into it, or none.

    Args:
        kinds: of `train.config.PseudoAnomalyName`.
        images: good pictures, for `hiding`, `finish` and `nsa-binary`, which take from another one.
        textures: the anomaly source, for `perlin` and `scar`.
        probability: of an anomaly; otherwise the picture stays as it is.
        largest_beta: how faint a blended one may get; 1 is invisible.
        texture_tone: `match` brings textures to the picture's colours and near its brightness.
        category: of MVTec AD, for `nsa-binary`; any other has that kind's defaults.
        empty: what becomes of a picture that shall get one which comes out empty: `keep` leaves it as a good one, as
            the authors' code does; `redraw` draws another kind and another anomaly, up to `MOST_DRAWS` times.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        *,
        images: Sequence[Image],
        textures: TextureSource,
        probability: float,
        largest_beta: float,
        texture_tone: Literal["as-is", "match"] = "as-is",
        empty: Literal["keep", "redraw"] = "keep",
        category: str = "",
    ) -> None:
        self.kinds = kinds
        self.images = images
        self.textures = textures
        self.probability = probability
        self.largest_beta = largest_beta
        self.texture_tone = texture_tone
        self.empty = empty
        self.nsa = OF_CATEGORIES.get(category, Nsa())

    def draw(self, rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
        """Put one into the picture, or none.

        Args:
            normal: (H, W, 3) uint8, left unchanged; as large as the other pictures.
        Returns:
            (H, W, 3) uint8 and (H, W) uint8, 1 on the pseudo anomaly. The picture is `normal` itself where there was to
            be none, and another array where one came out empty.
        """
        if rng.random() >= self.probability:
            return normal, np.zeros(normal.shape[:2], np.uint8)
        drawn = self._once(rng, normal)
        for _ in range(MOST_DRAWS - 1 if self.empty == "redraw" else 0):
            if drawn[1].any():
                break
            drawn = self._once(rng, normal)
        return (normal.copy() if drawn[0] is normal else drawn[0]), drawn[1]

    def _once(self, rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
        size = (normal.shape[0], normal.shape[1])
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        if kind == NSA:
            return natural_patches(rng, normal, self.images[int(rng.integers(len(self.images)))], self.nsa)
        if kind in PAIRED:
            return PAIRED[kind](rng, normal, self.images[int(rng.integers(len(self.images)))])
        if kind in CUT:
            return CUT[kind](rng, normal)
        texture = self.textures.draw(rng, size)
        if self.texture_tone == "match":
            texture = match_tone(rng, texture, normal)
        draw = {"perlin": synthesise, "scar": scar}[kind]
        return draw(rng, normal, texture, largest_beta=self.largest_beta)


def pseudo_anomalies_of(
    config: TrainConfig,
    *,
    images: Sequence[Image],
    textures: TextureSource,
    category: str,
    kinds: Sequence[str] | None = None,
) -> PseudoAnomalies:
    """What a training with these settings draws; with `kinds`, always one of those."""
    return PseudoAnomalies(
        config.pseudo_anomalies.split("+") if kinds is None else kinds,
        images=images,
        textures=textures,
        probability=config.anomaly_probability if kinds is None else 1.0,
        largest_beta=config.largest_beta,
        texture_tone=config.texture_tone,
        empty=config.empty_anomalies,
        category=category,
    )
