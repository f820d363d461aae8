"""What the page shows of a picture: the picture in a size that a browser takes quickly, and its map as a layer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from runtime.review.kept import Said, map_of, what_was_said
from stlm_edge.drawing import heat_layer
from stlm_edge.errors import DataError, ImageError
from stlm_edge.imaging import Map, Mask, decode, encode_image, resize
from stlm_edge.spec import Size

MOST_SIDE = 2048
"""Pixels of the picture that is shown at first; masks of larger pictures are drawn on it."""

_MARK = (214, 43, 255, 255)
"""Blue, green, red, opacity; as `review.js` has it."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture that was read, with all that is known of it.

    Attributes:
        sha256: of its file.
        size: (height, width).
        preview: a JPEG of at most `MOST_SIDE` pixels a side.
        anomaly_map: (h, w); None where there is none.
        said: what the line said.
        fault: why the picture cannot be shown, or its map not; None if both can.
    """

    sha256: str
    size: Size | None
    preview: bytes | None
    anomaly_map: Map | None
    said: Said
    fault: str | None

    @property
    def preview_size(self) -> Size | None:
        return None if self.size is None else fitted_size(self.size)


def read_bytes(path: Path) -> bytes:
    """Raises `DataError` if the file is gone or cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); nothing was decided of it, and the others go on"
        ) from None


def show(path: Path) -> Shown:
    """Read a picture and what lies beside it; one that is damaged is told of in `fault`.

    Raises:
        DataError: if the file is gone or cannot be read.
    """
    data = read_bytes(path)
    said = what_was_said(path)
    anomaly_map, preview, size, faults = None, None, None, [said.fault]
    try:
        anomaly_map = map_of(said)
    except ImageError as error:
        faults.append(str(error))
    try:
        image = decode(data)
        size = (image.shape[0], image.shape[1])
        preview = encode_image(resize(image, fitted_size(size)), suffix=".jpg")
    except ImageError as error:
        faults.append(f"{path.name}: {error}")
    fault = "; ".join(each for each in faults if each) or None
    return Shown(hashlib.sha256(data).hexdigest(), size, preview, anomaly_map, said, fault)


def fitted_size(size: Size) -> Size:
    """The size (height, width) of what is shown of a picture."""
    scale = min(1.0, MOST_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def layer(shown: Shown) -> bytes | None:
    """The heat map as a PNG with transparency, in the map's own size; None where there is no map."""
    if shown.anomaly_map is None or shown.said.threshold is None:
        return None
    return cv2.imencode(".png", heat_layer(shown.anomaly_map, threshold=shown.said.threshold))[1].tobytes()


def marked(mask: Mask) -> bytes:
    """A mask as a PNG to draw on: opaque in the page's colour where it is marked, nothing elsewhere.

    Args:
        mask: (H, W) of 0 and 1.
    """
    return cv2.imencode(".png", mask[:, :, None] * np.array(_MARK, np.uint8))[1].tobytes()
