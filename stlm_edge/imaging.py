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
import math
import os
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import ConfigError, ImageError
from stlm_edge.files import write_bytes
from stlm_edge.picture_file import examine
from stlm_edge.spec import PIXEL_LIMIT_VARIABLE, ModelSpec, Size

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, BGR; of a camera also (H, W), grey."""
Mask = NDArray[np.uint8]
"""(H, W) uint8, 0 normal, 1 defect."""
Map = NDArray[np.float32]
"""(H, W) float32, higher is more anomalous."""
Input = NDArray[np.uint8]
"""(N, H, W, 3) uint8, BGR, of the network's input size."""

logger = logging.getLogger(__name__)

_MAX_MEGAPIXELS = 100
_OPENCV_PIXELS = 1 << 30
"""More are read by no OpenCV."""
_LONGEST_JPEG = 65_500
"""Of a side that OpenCV writes."""
_MOST_BYTES_A_PIXEL, _MOST_BYTES_BESIDE = 8, 64 << 20
"""Of a file: 16 bits in four channels, and what cameras append."""

ALMOST_BLACK = 1 << 12
"""A 16-bit picture below this is most likely one of 12 bits in the lower bits."""

_warned_of: set[tuple[str, Path]] = set()


def read_image(path: Path) -> Image:
    """Read a grey, palette or colour picture of 8 or 16 bits.

    16 bits are scaled by the range of the format, 65535 → 255, and never by what is in the picture: the same part
    must give the same pixels whatever lies beside it. So a camera's 10 or 12 bits must be stored in the upper bits; a
    folder where they are not gets one warning. EXIF's orientation is applied, transparency is dropped (not multiplied
    in), of several pages the first is read, with a warning.

    Returns:
        (H, W, 3) uint8, BGR; grey is repeated.
    Raises:
        ImageError: if the file is missing, empty, truncated, damaged, not a picture, of another depth or larger than
            `pixel_limit`.
    """
    return _eight_bits(read_pixels(path), name=str(path), folder=path.parent)


def read_with_file(path: Path) -> tuple[Image, bytes]:
    """The same, and the file as it is."""
    data = _content(path)
    name, folder = str(path), path.parent
    return _eight_bits(_decode(data, name=name, folder=folder), name=name, folder=folder), data


def write_image(path: Path, image: Image) -> None:
    """Write a picture in the format of the path's suffix, atomically; smaller where it is too long for a JPEG.

    Raises `ImageError`, `OutputError`.
    """
    try:
        data = encode_image(image, suffix=path.suffix)
    except ImageError as error:
        raise ImageError(f"{path} has a suffix that no picture can be written as; use .png or .jpg") from error
    write_bytes(path, data)


def encode_image(image: Image, *, suffix: str) -> bytes:
    """A picture as a file of the format of a suffix (`.jpg`); smaller where it is too long for a JPEG.

    Raises `ImageError`.
    """
    longest = max(image.shape[:2])
    if suffix.lower() in (".jpg", ".jpeg") and longest > _LONGEST_JPEG:
        height, width = (max(1, side * _LONGEST_JPEG // longest) for side in image.shape[:2])
        image = resize(image, (height, width))
    try:
        done, data = cv2.imencode(suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise ImageError(f"no picture can be written as {suffix!r}; use .png or .jpg")
    return data.tobytes()


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


def as_frame(image: NDArray[np.uint8 | np.uint16]) -> Image:
    """A camera's picture as it is inspected: 16 bits become 8 by the rule of `read_image`, grey stays grey.

    Args:
        image: (H, W, 3), BGR, or (H, W), grey; uint8, or uint16 with the value in its upper bits.
    Returns:
        The same in uint8; the very same where it was that.
    Raises:
        ImageError: if it is nothing of these.
    """
    is_picture = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not is_picture or image.dtype not in (np.uint8, np.uint16) or 0 in image.shape:
        raise ImageError(
            f"found a frame of shape {image.shape} and type {image.dtype}, expected (H, W, 3), BGR, or (H, W), grey, "
            "as uint8 or uint16"
        )
    return _upper_bits(image)


def in_colour(image: Image) -> Image:
    """(H, W, 3) of a picture that may be grey, which is then repeated."""
    return image if image.ndim == 3 else np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)


def to_input(image: NDArray[np.uint8 | np.uint16], *, spec: ModelSpec) -> Input:
    """Resize a camera frame or a picture to the network's input, unless the graph does that itself.

    Args:
        image: what `as_frame` takes.
    Returns:
        (1, S, T, 3) uint8, BGR; (S, T) = spec.picture_size.
    Raises:
        ImageError: if `image` is no such picture, or has another size than the frames that the graph resizes.
    """
    image = as_frame(image)
    if spec.frame_size is None:  # grey becomes colour when it is small
        return np.ascontiguousarray(in_colour(resize(image, spec.input_size))[None])
    if image.shape[:2] != spec.frame_size:
        raise ImageError(
            f"found a frame of {_format(image.shape)}, this engine was exported for frames of "
            f"{_format(spec.frame_size)}; set the camera to that, or export without --frame-size"
        )
    return np.ascontiguousarray(in_colour(image)[None])


def read_pixels(path: Path) -> NDArray[np.uint8 | np.uint16]:
    """(H, W, 3) BGR in the depth of the file, turned as its EXIF orientation says. Raises as `read_image` does."""
    return _decode(_content(path), name=str(path), folder=path.parent)


def _content(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # no waiting for a pipe's writer
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{path} is no file, expected a picture")
            if status.st_size > _MOST_BYTES_A_PIXEL * pixel_limit() + _MOST_BYTES_BESIDE:
                raise ImageError(f"{path} has {status.st_size >> 20} MiB, more than any picture that may be read here")
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read ({reason}); check the path") from None


def decode(data: bytes) -> Image:
    """Decode a picture that a camera sent.

    Returns:
        (H, W, 3) uint8, BGR.
    Raises:
        ImageError: as `read_image` does; it says "the picture" where that names the file.
    """
    name = "the picture"
    return _eight_bits(_decode(data, name=name, folder=None), name=name, folder=None)


def pixel_limit() -> int:
    """How many pixels a picture may have: 100 million, or what `STLM_MAX_MEGAPIXELS` says. Raises `ConfigError`."""
    value = os.environ.get(PIXEL_LIMIT_VARIABLE)
    if value is None:
        return _MAX_MEGAPIXELS * 1_000_000
    try:
        megapixels = float(value)
    except ValueError:
        megapixels = math.nan
    if not 0 < megapixels < math.inf:
        raise ConfigError(
            f"{PIXEL_LIMIT_VARIABLE} is {value!r}, expected a number of megapixels above 0; unset or mend it"
        )
    return min(int(megapixels * 1_000_000), _OPENCV_PIXELS)


def silence_opencv() -> None:
    """Have OpenCV and its FFmpeg print nothing: they name addresses with their passwords, and what they say is said by
    our errors. Who has set `OPENCV_FFMPEG_LOGLEVEL` or `OPENCV_FFMPEG_DEBUG` to see more does."""
    if "OPENCV_FFMPEG_DEBUG" not in os.environ:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # Where the setter is depends on the version.
    set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    set_level(0)


def _decode(data: bytes, *, name: str, folder: Path | None) -> NDArray[np.uint8 | np.uint16]:
    """(H, W, 3) in the depth of the file, BGR."""
    file = examine(data)
    remedy = "" if folder is None else "; replace or remove it"  # a camera's is for the camera to mend
    if file is None or not file.is_whole:
        raise ImageError(f"{name} is empty, truncated, damaged or not a picture{remedy}")
    height, width = file.size
    if height * width > pixel_limit():
        raise ImageError(
            f"{name} announces {_format(file.size)}, expected at most {pixel_limit() / 1e6:g} megapixels; "
            f"if it is meant, allow more by {PIXEL_LIMIT_VARIABLE}"
        )
    if file.refused is not None:
        raise ImageError(f"{name} {file.refused}; convert it to PNG")
    pixels = np.frombuffer(data, np.uint8)
    if file.alpha is not None:  # "unspecified", so that libtiff does not make what is transparent black
        pixels = pixels.copy()
        pixels[file.alpha] = 0
    if file.lacks_end:
        pixels = np.append(pixels, np.uint8(ord("\n")))
    silence_opencv()
    ours = cv2.IMREAD_IGNORE_ORIENTATION if file.orientation != 1 else 0
    image = _attempt(pixels, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | ours)
    if image is None:
        raise ImageError(f"{name} is damaged, or of a kind that this OpenCV does not read{remedy}")
    if file.is_white_zero and image.dtype == np.uint16:  # OpenCV turns 8 bits over, but not 16
        image = np.iinfo(np.uint16).max - image
    if file.highest is not None:
        image = _stretched(image, file.highest)
    if file.pages > 1 and folder is not None:
        _warn_once(
            "MORE PAGES", folder, f"{name} has {file.pages} pages and the first is read; save the others as files"
        )
    return _turned(image, file.orientation)


def _turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn by EXIF's orientation, 1 to 8; from 5 on rows and columns change places."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _stretched(image: NDArray[np.uint8 | np.uint16], highest: int) -> NDArray[np.uint8 | np.uint16]:
    """Have `highest` of the file be the highest of the type."""
    kind, whole = image.dtype, int(np.iinfo(image.dtype).max)
    return (np.minimum(image, highest).astype(np.uint32) * whole // highest).astype(kind)


def _attempt(data: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:
        return None


def _eight_bits(image: NDArray[np.uint8 | np.uint16], *, name: str, folder: Path | None) -> Image:
    """By the range of the format, 65535 → 255."""
    if image.dtype == np.uint16 and folder is not None and image.max() < ALMOST_BLACK:
        _warn_once(
            "ALMOST BLACK",
            folder,
            f"{name} has 16 bits but no value above {image.max()} of 65535, and perhaps others in its folder too; if "
            "the camera gives 10 or 12 bits, store them in the upper bits (12 bits: times 16)",
        )
    return _upper_bits(image)


def _upper_bits(image: NDArray[np.uint8 | np.uint16]) -> Image:
    return np.asarray(image, np.uint8) if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _warn_once(kind: str, folder: Path, line: str) -> None:
    """Once a kind and folder."""
    if (kind, folder) not in _warned_of:
        _warned_of.add((kind, folder))
        logger.warning("%s: %s", kind, line)


def _format(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} (height x width)"
