"""Good pictures under other light, mirrored and turned, before they get their pseudo anomaly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Image
from train.config import TrainConfig

Rotation = Literal["none", "slight", "full"]
"""What is done to a picture: nothing; up to 5 degrees either way; that, after a random multiple of 90 degrees."""
RotationName = Literal["none", "slight", "full", "mvtec"]
"""What can be asked for: a rotation, or the one that belongs to a category of MVTec AD."""

LARGEST_ANGLE_DEGREES = 5.0
QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
FILL = 114
"""Grey level of the corners that a turned picture leaves free."""

MVTEC: dict[str, Rotation] = {
    **dict.fromkeys(("capsule", "metal_nut", "pill", "toothbrush", "transistor"), "none"),
    **dict.fromkeys(("wood", "zipper", "cable"), "slight"),
    **dict.fromkeys(("bottle", "grid", "hazelnut", "leather", "tile", "carpet", "screw"), "full"),
}
"""STLM's authors (trainSTLM.py of StitchKoala/STLM at 8ac0841) train grid, screw and transistor with several settings
each; those three are as in DeSTSeg here, whose settings the others are in both."""


def rotation_for(setting: str, category: str) -> Rotation:
    """The rotation that a setting means for a category.

    Args:
        setting: of `RotationName`.
        category: looked up when the setting is `mvtec`, otherwise without influence.
    Raises:
        ConfigError: for an unknown setting, or a category that MVTec AD does not have.
    """
    if setting not in get_args(RotationName):
        raise ConfigError(f"rotation is {setting!r}, expected one of {', '.join(get_args(RotationName))}")
    if setting != "mvtec":
        return check_rotation(setting)
    if category not in MVTEC:
        raise ConfigError(
            f"rotation mvtec knows the categories {', '.join(sorted(MVTEC))}, not {category!r}; "
            f"choose {', '.join(get_args(Rotation))} yourself"
        )
    return MVTEC[category]


def check_rotation(name: str) -> Rotation:
    """The same text with its type. Raises `ConfigError` for anything that is no rotation."""
    for rotation in get_args(Rotation):
        if name == rotation:
            return rotation  # type: ignore[no-any-return]
    raise ConfigError(f"rotation is {name!r}, expected one of {', '.join(get_args(Rotation))}")


def rotate(rng: np.random.Generator, image: Image, rotation: Rotation) -> Image:
    """Turn a picture at random about its centre and keep its size; bilinear, corners grey.

    A picture that is not square is turned by 0 or 180 degrees where a square one is by a multiple of 90.

    Args:
        image: (H, W, 3) uint8, left unchanged.
    Returns:
        (H, W, 3) uint8; `image` itself for `none`.
    """
    if rotation == "none":
        return image
    height, width = image.shape[:2]
    if rotation == "full":
        quarters = int(rng.integers(4)) if height == width else 2 * int(rng.integers(2))
        if quarters:
            image = np.asarray(cv2.rotate(image, QUARTERS[quarters]), np.uint8)
    angle_degrees = rng.uniform(-LARGEST_ANGLE_DEGREES, LARGEST_ANGLE_DEGREES)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_degrees, 1.0)
    turned = cv2.warpAffine(image, turn, (width, height), borderValue=(FILL,) * 3)
    return np.asarray(turned, np.uint8)


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
