"""A synthetic machined part with known defects, to try the whole chain without a data set.

    python -m stlm_edge.plate data --train 40 --test-good 8 --defects 4 --size 256

writes `data/plate` in the layout of MVTec AD. The pictures prove that the chain works, not how good the model is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import ConfigError
from stlm_edge.files import make_folder
from stlm_edge.imaging import Image, Mask, write_image
from stlm_edge.plate import SMALLEST_SIDE, defects
from stlm_edge.plate.scene import Scene, draw, opening_area, place
from stlm_edge.spec import Size

DEFECT_KINDS: tuple[str, ...] = ("scratch", "stain", "chip", "missing_hole")

_DRAWN_ON_TOP: dict[str, Callable[[Scene, np.random.Generator, defects.Colour], defects.Area]] = {
    "scratch": defects.scratch,
    "stain": defects.stain,
    "chip": defects.chip,
}


@dataclass(frozen=True)
class SyntheticPart:
    """A picture of the part and the truth about it.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        mask: (H, W) uint8, 1 on the defect, 0 elsewhere.
        defect: one of `DEFECT_KINDS`, None on a good part.
    """

    image: Image
    mask: Mask
    defect: str | None


def render_part(rng: np.random.Generator, *, size: Size, defect: str | None) -> SyntheticPart:
    """Draw one part; position, light, surface and noise vary from part to part.

    Layout, surface, defect and sensor noise are drawn from generators of their own: from the same state of `rng`, the
    good part and the defective one differ on the mask and nowhere else.

    Args:
        size: (height, width) of the picture, each at least 64.
        defect: one of `DEFECT_KINDS`, or None for a good part.
    Raises:
        ConfigError: for a smaller size or an unknown kind.
    """
    if min(size) < SMALLEST_SIDE:
        raise ConfigError(f"size is {size[0]} x {size[1]}, expected at least {SMALLEST_SIDE} on each side; enlarge it")
    if defect is not None and defect not in DEFECT_KINDS:
        raise ConfigError(f"found the defect {defect!r}, expected one of {', '.join(DEFECT_KINDS)}")
    layout, surface, damage, sensor = (np.random.default_rng(seed) for seed in rng.integers(1 << 62, size=4))
    scene = place(layout, size=size)
    missing = defects.drilled(scene, damage) if defect == "missing_hole" else None
    colour = draw(scene, surface, missing=missing)
    area: defects.Area = np.zeros(size, np.bool_)
    if missing is not None:
        area = opening_area(scene, missing)
    elif defect is not None:
        area = _DRAWN_ON_TOP[defect](scene, damage, colour)
    return SyntheticPart(_expose(colour, sensor), area.astype(np.uint8), defect)


def write_dataset(
    folder: Path, *, train: int, test_good: int, test_defective_per_kind: int, size: Size, seed: int, category: str
) -> None:
    """Write `folder/category` in the layout of MVTec AD: `train/good`, `test/<kind>`, `ground_truth/<kind>`.

    The same arguments write the same pictures. Raises `OutputError`, `ConfigError`.
    """
    root = folder / category
    parts: list[tuple[str, str | None, int]] = [("train", None, train), ("test", None, test_good)]
    parts += [("test", kind, test_defective_per_kind) for kind in DEFECT_KINDS]
    rng = np.random.default_rng(seed)
    for subset, defect, count in parts:
        pictures = root / subset / (defect or "good")
        make_folder(pictures)
        for index in range(count):
            part = render_part(rng, size=size, defect=defect)
            write_image(pictures / f"{index:03d}.png", part.image)
            if defect is not None:
                path = root / "ground_truth" / defect / f"{index:03d}_mask.png"
                write_image(path, part.mask * np.uint8(255))


def _expose(colour: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """Add the sensor's noise and go to 8 bits; one set of random numbers serves the three channels, shifted."""
    height, width = colour.shape[:2]
    noise = rng.standard_normal((height + 34, width), dtype=np.float32)
    shifted = cv2.merge([noise[first : first + height] for first in (0, 17, 34)])
    return np.asarray(cv2.addWeighted(colour, 255, shifted, 2.8, 0, dtype=cv2.CV_8U), np.uint8)
