"""Which pseudo anomaly a training picture gets (paper, sections 3.1 and 3.2, table 11)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stlm_edge.imaging import Image, Mask
from train.patches import scar, seamless_patches
from train.synthesis import synthesise
from train.textures import TextureSource
from train.tones import cracks, finish, pits


class PseudoAnomalies:
    """Draws a kind for each picture, all kinds equally likely, and puts such an anomaly into it, or none.

    Args:
        kinds: of `train.config.PseudoAnomalyName`.
        images: good pictures, for the kinds that cut from them.
        textures: the anomaly source, for the other kinds.
        probability: of an anomaly; otherwise the picture stays as it is.
        largest_beta: how faint a blended one may get; 1 is invisible.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        *,
        images: Sequence[Image],
        textures: TextureSource,
        probability: float,
        largest_beta: float,
    ) -> None:
        self.kinds = kinds
        self.images = images
        self.textures = textures
        self.probability = probability
        self.largest_beta = largest_beta

    def draw(self, rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
        """
        Args:
            normal: (H, W, 3) uint8, left unchanged; as large as the other pictures.
        Returns:
            (H, W, 3) uint8 and (H, W) uint8, 1 on the pseudo anomaly.
        """
        size = (normal.shape[0], normal.shape[1])
        if rng.random() >= self.probability:
            return normal, np.zeros(size, np.uint8)
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        if kind in ("pit", "crack"):
            return {"pit": pits, "crack": cracks}[kind](rng, normal)
        if kind in ("nsa", "finish"):
            other = self.images[int(rng.integers(len(self.images)))]
            return {"nsa": seamless_patches, "finish": finish}[kind](rng, normal, other)
        texture = self.textures.draw(rng, size)
        draw = {"perlin": synthesise, "scar": scar}[kind]
        return draw(rng, normal, texture, largest_beta=self.largest_beta)
