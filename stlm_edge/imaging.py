"""Pictures in and out, and the one resize rule that training and inspection share.

**The rule, `halve-linear`.** While a side is at least twice as long as wanted, it is halved (each pixel the mean of
the two it covers); what remains is done by bilinear interpolation. The authors resize with PIL's anti-aliased
bilinear filter, OpenCV's `INTER_LINEAR` alone skips pixels when it shrinks and so invents texture. On the pictures
this was tried on, halving first stays about as near to PIL as OpenCV's `INTER_AREA` and is 6 to 10 times as fast at
1920 x 1080 → 1024 x 1024, which is what decides on a camera line (`benchmarks.resize` of commit 9c83b53 measures both).
The aspect ratio is not kept, as in the paper.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

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

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})

ALMOST_BLACK = 1 << 12
"""A 16-bit picture below this is most likely one of 12 bits in the lower bits."""

_folders_warned_of: set[Path] = set()


def read_image(path: Path) -> Image:
    """Read a grey, palette or colour picture of 8 or 16 bits.

    16 bits are scaled by the range of the format, 65535 → 255, and never by what is in the picture: the same part
    must give the same pixels whatever lies beside it. So a camera's 10 or 12 bits must be stored in the upper bits; a
    folder where they are not gets one warning.

    Returns:
        (H, W, 3) uint8, BGR; grey is repeated, transparency is dropped.
    Raises:
        ImageError: if the file is missing, empty, truncated, not a picture or of another depth.
    """
    image = _decode(path)
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    if image.max() < ALMOST_BLACK:
        _warn_of_low_bits(path, int(image.max()))
    return (image >> 8).astype(np.uint8)


def pixel_limit() -> int:
    """How many pixels a picture may have; a few kilobytes may announce gigabytes."""
    return 100_000_000


def decode(data: bytes) -> Image:
    """Decode a picture that a camera sent.

    Returns:
        (H, W, 3) uint8, BGR.
    Raises:
        ImageError: if it is damaged, cut off, or announces more than `pixel_limit`.
    """
    pixels = np.frombuffer(data, np.uint8)
    frame = re.search(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\x00.\x08(..)(..)", data, re.DOTALL)
    if (
        frame is not None
        and (size := int.from_bytes(frame[1], "big") * int.from_bytes(frame[2], "big")) > pixel_limit()
    ):
        raise ImageError(f"the picture announces {size} pixels, expected at most {pixel_limit()}")
    image = None if not data or _is_truncated(pixels) else _attempt(pixels, cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError("the picture is damaged")
    return np.asarray(image, np.uint8)


def read_mask(path: Path, *, size: Size | None, of_classes: bool = False) -> Mask:
    """Read a ground-truth mask of 8 or 16 bits, grey, palette or colour (the brightest channel counts).

    Args:
        size: (height, width) of its picture; None where any size will do.
        of_classes: any value but 0 is a defect; otherwise values above half of the range are.
    Returns:
        (H, W) uint8 of 0 and 1.
    Raises:
        ImageError: if the file is not a picture or not of `size`, or has values but none above half of the range.
    """
    mask = _decode(path).max(axis=2)
    if size is not None and mask.shape != size:
        raise ImageError(
            f"{path} is {_format(mask.shape)}, its picture is {_format(size)}; a mask must have the size of its picture"
        )
    if of_classes:
        return np.asarray(mask > 0, np.uint8)
    whole = int(np.iinfo(mask.dtype).max)
    defects = np.asarray(mask > whole // 2, np.uint8)
    if mask.any() and not defects.any():
        raise ImageError(
            f"{path} has values up to {mask.max()} and none above half of {whole}, so it would show no defect; "
            f"expected 0 for normal and {whole} for defective pixels: scale it"
        )
    return defects


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


def check_frame(image: Image) -> None:
    """Raises `ImageError` unless `image` is (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ImageError(f"found a frame of shape {image.shape} and type {image.dtype}, expected (H, W, 3) uint8, BGR")


def to_input(image: Image, *, spec: ModelSpec) -> Input:
    """Resize a camera frame or a picture to the network's input, unless the graph does that itself.

    Args:
        image: (H, W, 3) uint8, BGR.
    Returns:
        (1, S, T, 3) uint8, BGR; (S, T) = spec.picture_size.
    Raises:
        ImageError: if `image` is not three-channel uint8, or has another size than the frames that the graph resizes.
    """
    check_frame(image)
    if spec.frame_size is None:
        return np.ascontiguousarray(resize(image, spec.input_size)[None])
    if image.shape[:2] != spec.frame_size:
        raise ImageError(
            f"found a frame of {_format(image.shape)}, this engine was exported for frames of "
            f"{_format(spec.frame_size)}; set the camera to that, or export without --frame-size"
        )
    return np.ascontiguousarray(image[None])


def _decode(path: Path) -> NDArray[np.uint8 | np.uint16]:
    """(H, W, 3) in the depth of the file, BGR."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror or error}); check the path") from None
    if data.size and not _is_truncated(data):
        image = _attempt(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if image is None:
            image = _attempt(data, cv2.IMREAD_UNCHANGED)  # 32 bits are read in no other way
        if image is not None and image.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"{path} holds {image.dtype} pixels, expected 8 or 16 bits; convert it")
        if image is not None and image.ndim == 3 and image.shape[2] == 3:
            return image
    raise ImageError(f"{path} is empty, truncated or not a picture; replace or remove it")


def _attempt(data: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:
        return None


def _warn_of_low_bits(path: Path, highest: int) -> None:
    if path.parent in _folders_warned_of:
        return
    _folders_warned_of.add(path.parent)
    logger.warning(
        "ALMOST BLACK: %s has 16 bits but no value above %d of 65535, and perhaps others in its folder too; if the "
        "camera gives 10 or 12 bits, store them in the upper bits (12 bits: times 16)",
        path,
        highest,
    )


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
