"""A small ground surface with defects, as `benchmarks.alternatives` takes it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


def surface(rng: np.random.Generator, *, size: tuple[int, int] = (96, 80), defect: bool = False):
    """Noise on grey; the defect is a bright square. Gives picture and mask, 0 or 255."""
    grey = rng.normal(110, 6, size)
    mask = np.zeros(size, np.uint8)
    if defect:
        top, left = rng.integers(8, 50, 2)
        mask[top : top + 20, left : left + 20] = 255
        grey = np.where(mask, 200, grey)
    image = np.clip(grey, 0, 255).astype(np.uint8)
    return np.repeat(image[:, :, None], 3, axis=2), mask


@pytest.fixture(scope="session")
def ground(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("alternatives") / "ground"
    rng = np.random.default_rng(0)
    for folder in ("train/good", "test/good", "test/bright", "ground_truth/bright"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        cv2.imwrite(str(root / f"train/good/{index}.png"), surface(rng)[0])
    for index in range(3):
        cv2.imwrite(str(root / f"test/good/{index}.png"), surface(rng)[0])
        image, mask = surface(rng, defect=True)
        cv2.imwrite(str(root / f"test/bright/{index}.png"), image)
        cv2.imwrite(str(root / f"ground_truth/bright/{index}_mask.png"), mask)
    return root
