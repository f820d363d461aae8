"""Textures in the colours of the picture that they go into, so that colour alone gives no pseudo anomaly away."""

from __future__ import annotations

import numpy as np

from stlm_edge.imaging import Image

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
