"""Masks: which pixels of a picture a person has marked.

Masks come from many programs, and one that is read in a way other than its maker meant shows nothing, or everything,
and every figure after it is wrong without a word. So whatever can be read in two ways is refused.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import ImageError
from stlm_edge.imaging import Mask, read_pixels
from stlm_edge.spec import Size

_MOST_LEVELS = 16
"""Different values in a mask that was drawn in flat colours; there every value may mean something."""

_EDGE, _SOFT_EDGE = 4, 16
"""Pixels beside a defect that may be neither white nor black: of flat colours, and of a mask that was enlarged smoothly
or blurred by a format with losses, whose blocks of colour take 16 pixels."""

_NOISE = 16
"""The part of the range, 1 / 16, that such a mask may be off black anywhere."""

_FLAT_SIDE, _LEAST_FLAT = 5, 25
"""Where so many pixels have neighbours of about their own grey, it was drawn, and is no edge."""

_REMEDY = "save it as PNG without transparency, defects white (255) on black (0)"


def read_mask(path: Path, *, size: Size | None, of_classes: bool = False) -> Mask:
    """Read a mask of 8 or 16 bits, grey, palette or colour (the brightest channel counts).

    Args:
        size: (height, width) of its picture; None where any size will do.
        of_classes: any value but 0 is marked, as by VisA's own prepare_data.py, whose numbers are 1 to 9, so the grey
            of a smooth edge too; otherwise values above half of the range are.
    Returns:
        (H, W) uint8 of 0 and 1.
    Raises:
        ImageError: if the file is not a picture or not of `size`, or could be understood in more than one way: it has
            values but none above half of the range, darker areas that are no edges, or another shape in its
            transparency than in its colours.
    """
    values = read_pixels(path).max(axis=2)
    if size is not None and values.shape != size:
        raise ImageError(
            f"{path} is {values.shape[0]} x {values.shape[1]} (height x width), its picture is {size[0]} x {size[1]} "
            "(height x width); a mask must have the size of its picture"
        )
    if of_classes and _has_losses(path):
        raise ImageError(
            f"{path} holds numbers of classes in a format that changes them, expected PNG; fetch the masks again"
        )
    whole = int(np.iinfo(values.dtype).max)
    marked = np.asarray(values > (0 if of_classes else whole // 2), np.uint8)
    _check_transparency(path, marked)
    if not of_classes:
        _check_levels(path, values, marked)
    return marked


def _check_transparency(path: Path, marked: Mask) -> None:
    """Raises `ImageError` if what is opaque is not what the colours show; a constant transparency says nothing."""
    layers = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if layers is None or layers.ndim != 3 or layers.shape[2] != 4 or layers.shape[:2] != marked.shape:
        return
    opaque = layers[:, :, 3] > 0
    if layers[:, :, 3].min() < layers[:, :, 3].max() and (not marked.any() or np.any(marked.astype(bool) & ~opaque)):
        raise ImageError(
            f"{path} shows another shape in its transparency ({np.count_nonzero(opaque)} opaque pixels) than in its "
            f"colours ({np.count_nonzero(marked)} bright pixels); {_REMEDY}"
        )


def _check_levels(path: Path, values: NDArray[np.uint8 | np.uint16], marked: Mask) -> None:
    whole = int(np.iinfo(values.dtype).max)
    if values.any() and not marked.any():
        raise ImageError(
            f"{path} has values up to {values.max()} and none above half of {whole}, so it would show no defect; "
            f"expected 0 for normal and {whole} for defective pixels: scale it"
        )
    has_losses = _has_losses(path)
    is_soft = has_losses or np.count_nonzero(np.bincount(values.ravel())) > _MOST_LEVELS
    edge = _SOFT_EDGE if is_soft else _EDGE
    near = cv2.dilate(marked, np.ones((2 * edge + 1, 2 * edge + 1), np.uint8))
    doubtful = values[(values > (whole // _NOISE if is_soft else 0)) & (near == 0)]
    where = "away from all bright ones"
    if not doubtful.size and has_losses:
        doubtful, where = _flat_greys(values, whole), "beside bright ones"
    if doubtful.size:
        levels = np.unique(doubtful)
        named = ", ".join(map(str, levels[:4])) + (", …" if levels.size > 4 else "")
        raise ImageError(
            f"{path} has {doubtful.size} pixels of grey ({named} of {whole}) {where}, which may be "
            f"defects or not; {_REMEDY}"
        )


def _has_losses(path: Path) -> bool:
    """Whether a file's content, whatever its name, is of a format that changes values: JPEG, WebP or JPEG 2000."""
    with path.open("rb") as file:
        head = file.read(4096)
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith((b"\xff\xd8", b"\xff\x4f")) or head[4:8] == b"jP  " or (is_webp and b"VP8L" not in head)


def _flat_greys(values: NDArray[np.uint8 | np.uint16], whole: int) -> NDArray[np.uint8 | np.uint16]:
    """The greys of areas that are neither black nor white and no edges; none if there are but a few such pixels."""
    window = np.ones((_FLAT_SIDE, _FLAT_SIDE), np.uint8)
    lowest, highest = cv2.erode(values, window), cv2.dilate(values, window)
    is_flat = highest - lowest < whole // 32
    greys = values[is_flat & (values > whole // _NOISE) & (values < whole - whole // 8)]
    return greys if greys.size >= _LEAST_FLAT else greys[:0]
