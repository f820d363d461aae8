"""A labelled data set in MVTec AD's layout whose pictures are as bright as a test wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stlm_edge.imaging import write_image

from ..runtime.conftest import picture

SIZE = (96, 192)

GOOD = (60, 120)
SPOTS = (250, 100, 90)
"""The first is brighter than the engine's threshold of 0.5, the second darker than a good picture."""


def draw_set(root: Path) -> Path:
    """Two good test pictures and three with a bright spot, with masks."""
    write_image(root / "train" / "good" / "0.png", picture(60, size=SIZE))
    for index, grey in enumerate(GOOD):
        write_image(root / "test" / "good" / f"{index}.png", picture(grey, size=SIZE))
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[24:48, 48:72] = 255
    for index, spot in enumerate(SPOTS):
        write_image(root / "test" / "spot" / f"{index}.png", picture(70, spot=spot, size=SIZE))
        write_image(root / "ground_truth" / "spot" / f"{index}_mask.png", mask)
    return root
