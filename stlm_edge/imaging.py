"""Pictures in and out, and the one resize rule that training and inspection share.

**The rule, `halve-linear`.** While a side is at least twice as long as wanted, it is halved (each pixel the mean of
the two it covers); what remains is done by bilinear interpolation. The authors resize with PIL's anti-aliased
bilinear filter, OpenCV's `INTER_LINEAR` alone skips pixels when it shrinks and so invents texture. On the pictures
this was tried on, halving first stays about as near to PIL as OpenCV's `INTER_AREA` and is 6 to 10 times as fast at
1920 x 1080 → 1024 x 1024, which is what decides on a camera line (`python -m benchmarks.resize` measures both).
The aspect ratio is not kept, as in the paper.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import ImageError
from stlm_edge.files import write_bytes
from stlm_edge.spec import ModelSpec, Size

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, BGR."""
Mask = NDArray[np.uint8]
"""(H, W) uint8, 0 normal, 1 defect."""
Map = NDArray[np.float32]
"""(H, W) float32, higher is more anomalous."""
Input = NDArray[np.uint8]
"""(N, H, W, 3) uint8, BGR, of the network's input size."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


def read_image(path: Path) -> Image:
    """Read a grey or colour picture of 8 or 16 bits.

    Returns:
        (H, W, 3) uint8, BGR; grey is repeated, 16 bits are scaled to 8, transparency is dropped.
    Raises:
        ImageError: if the file is missing, empty, truncated or not a picture.
    """
    return _decode(path, cv2.IMREAD_COLOR)


def read_mask(path: Path, *, size: Size) -> Mask:
    """Read a ground-truth mask; any value above half of the range is a defect.

    Returns:
        (H, W) uint8 of 0 and 1.
    Raises:
        ImageError: if the file is not a picture or not of `size`.
    """
    mask = _decode(path, cv2.IMREAD_GRAYSCALE)
    if mask.shape != size:
        raise ImageError(
            f"{path} is {_format(mask.shape)}, its picture is {_format(size)}; a mask must have the size of its picture"
        )
    return np.asarray(mask > 127, np.uint8)


def write_image(path: Path, image: Image) -> None:
    """Write a picture in the format of the path's suffix, atomically. Raises `ImageError`, `OutputError`."""
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise ImageError(f"{path} has a suffix that no picture can be written as; use .png or .jpg")
    write_bytes(path, data.tobytes())


def resize(image: Image, size: Size) -> Image:
    """Resize by the rule `halve-linear` (see the module's text).

    Args:
        image: (H, W, 3) or (H, W) uint8.
        size: (height, width) wanted.
    """
    height, width = size
    while True:
        rows, columns = image.shape[:2]
        halved_rows = -(-rows // 2) if rows >= 2 * height else rows
        halved_columns = -(-columns // 2) if columns >= 2 * width else columns
        if (halved_rows, halved_columns) == (rows, columns):
            break
        image = np.asarray(cv2.resize(image, (halved_columns, halved_rows), interpolation=cv2.INTER_AREA), np.uint8)
    if (rows, columns) == size:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def resize_map(anomaly_map: Map, size: Size) -> Map:
    """Bring an anomaly map to `size` (height, width) by bilinear interpolation with pixel centres aligned."""
    if anomaly_map.shape == size:
        return anomaly_map
    return np.asarray(cv2.resize(anomaly_map, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def to_input(image: Image, *, spec: ModelSpec) -> Input:
    """Resize a camera frame or a picture to the network's input.

    Args:
        image: (H, W, 3) uint8, BGR.
    Returns:
        (1, S, T, 3) uint8, BGR; (S, T) = spec.input_size.
    Raises:
        ImageError: if `image` is not three-channel uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ImageError(f"found a frame of shape {image.shape} and type {image.dtype}, expected (H, W, 3) uint8, BGR")
    return np.ascontiguousarray(resize(image, spec.input_size)[None])


def _decode(path: Path, flags: int) -> Image:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or error}); check the path") from None
    image = None
    if data.size and not _is_truncated(data):
        try:
            image = cv2.imdecode(data, flags)
        except cv2.error:
            image = None
    if image is None:
        raise ImageError(f"{path} is empty, truncated or not a picture; replace or remove it")
    return np.asarray(image, np.uint8)


def _is_truncated(data: NDArray[np.uint8]) -> bool:
    """OpenCV fills what is missing from a cut-off JPEG or PNG with grey and says nothing; the end marker tells."""
    head, tail = data[:8].tobytes(), data[-(1 << 16) :].tobytes()
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    return False


def _format(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} (height x width)"
