"""What all layouts have in common: samples, categories and the truth about a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlm_edge.imaging import Mask, read_mask
from stlm_edge.spec import Size

GOOD = "good"
ANOMALY = "anomaly"
"""The label of defects in data sets that do not tell their kinds."""


@dataclass(frozen=True)
class Sample:
    """One picture on disk.

    Attributes:
        path: of the picture.
        label: `good`, or the kind of defect.
        mask: of the ground truth, None for a good picture.
        mask_of_classes: the mask holds class numbers, any but 0 is a defect (VisA); otherwise bright is a defect.
    """

    path: Path
    label: str
    mask: Path | None
    mask_of_classes: bool = False


@dataclass(frozen=True)
class Category:
    """The pictures of one part, sorted by label and name.

    Attributes:
        train: good pictures only.
        test: good and defective pictures; empty for a plain folder.
    """

    name: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def read_truth(sample: Sample, *, size: Size) -> Mask:
    """Which pixels of a sample are defective.

    Args:
        size: (height, width) of its picture.
    Returns:
        (H, W) uint8 of 0 and 1; all 0 for a good picture.
    Raises:
        ImageError: if the mask cannot be used.
    """
    if sample.mask is None:
        return np.zeros(size, np.uint8)
    return read_mask(sample.mask, size=size, of_classes=sample.mask_of_classes)
