"""Good pictures under other light and the other way round, so that neither is mistaken for a defect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from stlm_edge.imaging import Image
from train.config import TrainConfig

LARGEST_GAIN = 2.0
"""Of the light at brightness 1, up or down: one stop."""
LARGEST_GAMMA = 1.5
"""Likewise; what cameras and lamps differ by in their curves."""


@dataclass(frozen=True)
class Variation:
    """How a good picture may look when it is photographed again; not in the paper.

    Attributes:
        brightness: 0 leaves it as it is, 1 varies it by up to a stop and the gamma by up to 1.5 either way.
        flip_horizontal, flip_vertical: whether half of the pictures are mirrored; only for parts that may lie so.
    """

    brightness: float
    flip_horizontal: bool
    flip_vertical: bool

    def draw(self, rng: np.random.Generator, image: Image) -> Image:
        """
        Args:
            image: (H, W, 3) uint8, left unchanged.
        Returns:
            (H, W, 3) uint8, a variant of the picture; `image` itself where nothing varies.
        """
        if self == AS_THEY_ARE:
            return image
        if self.flip_horizontal and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.flip_vertical and rng.random() < 0.5:
            image = image[::-1]
        if self.brightness > 0:
            gain = math.exp(self.brightness * rng.uniform(-1, 1) * math.log(LARGEST_GAIN))
            gamma = math.exp(self.brightness * rng.uniform(-1, 1) * math.log(LARGEST_GAMMA))
            image = expose(image, gain=gain, gamma=gamma)
        return np.ascontiguousarray(image)


AS_THEY_ARE = Variation(brightness=0, flip_horizontal=False, flip_vertical=False)


def variation_of(config: TrainConfig) -> Variation:
    """What a training with these settings varies."""
    return Variation(config.brightness, config.flip_horizontal, config.flip_vertical)


def expose(image: Image, *, gain: float, gamma: float) -> Image:
    """255 * gain * (image / 255) ^ gamma, rounded and cut off at 255 as a sensor does.

    Args:
        image: (H, W, 3) uint8.
        gain, gamma: more than 0; 1 changes nothing.
    """
    levels = np.arange(256) / 255
    table = np.clip(np.round(255 * gain * levels**gamma), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)
