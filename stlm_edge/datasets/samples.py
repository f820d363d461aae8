"""What all layouts have in common: samples, categories and the truth about a picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlm_edge.errors import DataError, ImageError
from stlm_edge.imaging import Mask
from stlm_edge.masks import read_mask
from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

GOOD = "good"
ANOMALY = "anomaly"
"""The label of defects in data sets that do not tell their kinds."""


_INVERTED = 2 / 3
"""Of the border of a picture that is marked for the most part; large defects of real data sets reach a half of it."""


@dataclass(frozen=True)
class Sample:
    """One picture on disk.

    Attributes:
        path: of the picture.
        label: `good`, or the kind of defect, escaped as `stlm_edge.names` has it; so is a category's name.
        mask: of the ground truth; None where there is none, as for good pictures and for defects nobody has marked.
        mask_of_classes: the mask holds class numbers, any but 0 is a defect (VisA); otherwise bright is a defect.
        mask_fault: why nobody can say which mask is this picture's, if so. Its label can be used all the same.
    """

    path: Path
    label: str
    mask: Path | None
    mask_of_classes: bool = False
    mask_fault: str | None = None


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


def check_masks(samples: Sequence[Sample]) -> None:
    """Before pixels are judged: one warning if defects have no mask, since figures over pixels will be missing then.

    Raises:
        DataError: if nobody can say which mask is whose.
    """
    for sample in samples:
        if sample.mask_fault is not None:
            raise DataError(sample.mask_fault)
    defective = [sample for sample in samples if sample.label != GOOD]
    unmarked = [sample for sample in defective if sample.mask is None]
    if unmarked:
        kinds = sorted({sample.label for sample in unmarked})
        logger.warning(
            "NO MASKS for %d of %d defective pictures (%s), the first is %s: figures over pixels are left out of these "
            "kinds and of all pictures together; those over whole pictures need no masks",
            len(unmarked),
            len(defective),
            ", ".join(kinds),
            unmarked[0].path,
        )


def read_truth(sample: Sample, *, size: Size) -> Mask | None:
    """Which pixels of a sample are defective.

    Args:
        size: (height, width) of its picture.
    Returns:
        (H, W) uint8 of 0 and 1; all 0 for a good picture, None for a defect that nobody has marked.
    Raises:
        DataError: if nobody can say which mask is its.
        ImageError: if the mask cannot be used, or contradicts the label.
    """
    if sample.mask_fault is not None:
        raise DataError(sample.mask_fault)
    if sample.mask is None:
        return np.zeros(size, np.uint8) if sample.label == GOOD else None
    mask = read_mask(sample.mask, size=size, of_classes=sample.mask_of_classes)
    if sample.label == GOOD:
        if mask.any():
            raise ImageError(
                f"{sample.mask} marks {np.count_nonzero(mask)} pixels of {sample.path}, labelled good; correct "
                "the label, or remove the mask"
            )
    elif not mask.any():
        raise ImageError(
            f"{sample.mask} is black, but {sample.path} is labelled {sample.label}; mark the defect in white, or "
            "remove the mask, and figures over pixels are left out"
        )
    elif mask.mean() > 0.5 and np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean() > _INVERTED:
        raise ImageError(
            f"{sample.mask} marks {100 * mask.mean():.3g} % of {sample.path} and most of its border, so it looks "
            "inverted; expected the defect in white on black: invert it, or remove it, and figures over pixels are "
            "left out"
        )
    return mask
