"""Pixel formats of GenICam cameras, and their bytes as pictures.

Names and codes are those of GenICam's Pixel Format Naming Convention, and what older cameras say in their place. More
than 8 bits become 8 by the rule of `stlm_edge.imaging.read_image`: by the range of the format, so the upper eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import SourceError
from stlm_edge.imaging import Image
from stlm_edge.spec import Size

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class PixelFormat:
    """How pixels lie in a buffer.

    Attributes:
        name: by the convention.
        bits: a pixel.
        unpack: makes 8 bits of each sample.
        samples: a pixel.
        convert: makes grey or BGR of (H, W, samples); None where they are that already.
    """

    name: str
    bits: int
    unpack: Callable[[Bytes], Bytes]
    samples: int = 1
    convert: Callable[[Bytes], Bytes] | None = None

    @property
    def is_grey(self) -> bool:
        """Whether pictures have no colour."""
        return self.samples == 1 and self.convert is None


def decode(data: Bytes, *, code: int, size: Size, is_plain: bool = True) -> Image:
    """A picture from a camera's bytes.

    Args:
        data: (N,), which may be overwritten later: the picture has its own.
        code: of the pixel format.
        size: (height, width).
        is_plain: nothing but pixels is in `data`, so that what is too much pads the rows.
    Returns:
        (H, W) uint8 of a grey camera, (H, W, 3) uint8, BGR, of others.
    Raises:
        SourceError: if the format is not read, or there are fewer bytes than it takes.
    """
    found = FORMATS.get(code)
    if found is None:
        raise SourceError(f"found pictures of the pixel format {code:#010x}, which is not read; {_CHOOSE}")
    height, width = size
    stored = -(-height * width * found.bits // 8)
    if len(data) < stored or not stored:
        raise SourceError(
            f"found {len(data)} bytes for {height} x {width} (height x width) in {found.name}, expected {stored}; "
            "check the camera's settings"
        )
    row = width * found.bits // 8
    if is_plain and len(data) > stored and len(data) % height == 0 and not width * found.bits % 8:
        data = data.reshape(height, -1)[:, :row].reshape(-1)
    samples = found.unpack(data[:stored])[: height * width * found.samples]
    image = samples.reshape((height, width) if found.samples == 1 else (height, width, found.samples))
    if found.convert is not None:
        return found.convert(image)
    return image.copy() if found.unpack is _as_they_are else image


def _as_they_are(data: Bytes) -> Bytes:
    return data


def _of_words(bits: int) -> Callable[[Bytes], Bytes]:
    """Two bytes a sample, the value in the lower bits."""
    return lambda data: (data.view("<u2") >> (bits - 8)).astype(np.uint8)


def _of_ten_bits(data: Bytes) -> Bytes:
    """Four samples in five bytes, from the lowest bit on."""
    first, second, third, fourth, fifth = _groups(data, 5).T.astype(np.uint16)
    samples = (first >> 2 | second << 6, second >> 4 | third << 4, third >> 6 | fourth << 2, fifth)
    return np.stack(samples, axis=1).astype(np.uint8).reshape(-1)


def _of_twelve_bits(data: Bytes) -> Bytes:
    """Two samples in three bytes, from the lowest bit on."""
    first, second, third = _groups(data, 3).T.astype(np.uint16)
    return np.stack((first >> 4 | second << 4, third), axis=1).astype(np.uint8).reshape(-1)


def _of_gige_vision(data: Bytes) -> Bytes:
    """GigE Vision's own `Packed`: two samples in three bytes, whose middle one has the lower bits of both."""
    return _groups(data, 3)[:, ::2].reshape(-1)


def _groups(data: Bytes, count: int) -> Bytes:
    return np.pad(data, (0, -len(data) % count)).reshape(-1, count)


def _by(code: int) -> Callable[[Bytes], Bytes]:
    return lambda image: np.asarray(cv2.cvtColor(image, code), np.uint8)


def _from_yuv(first_luma: int) -> Callable[[Bytes], Bytes]:
    """Y and alternately U and V, all from 0 to 255, as the manuals of Basler's runner and AVT's Pike have it; OpenCV's
    own 4:2:2 is that of video, with 16 to 235.

    Args:
        first_luma: where of its two samples a pixel has Y.
    """

    def convert(image: Bytes) -> Bytes:
        height, width = image.shape[:2]
        if width % 2:
            raise SourceError(f"found 4:2:2 pictures of {width} pixels in a row, expected an even number; set Width")
        chroma = image[:, :, 1 - first_luma].reshape(height, width // 2, 2).repeat(2, axis=1)
        return _by(cv2.COLOR_YCrCb2BGR)(np.dstack((image[:, :, first_luma], chroma[:, :, 1], chroma[:, :, 0])))

    return convert


_MOSAICS = {
    "RG": cv2.COLOR_BayerBG2BGR,
    "GB": cv2.COLOR_BayerGR2BGR,
    "GR": cv2.COLOR_BayerGB2BGR,
    "BG": cv2.COLOR_BayerRG2BGR,
}
"""First two pixels of the first row, as GenICam names a mosaic → OpenCV's constant, which names it by the second and
third pixel of the second row."""

_PACKINGS: dict[str, tuple[int, Callable[[Bytes], Bytes]]] = {
    "8": (8, _as_they_are),
    "10": (16, _of_words(10)),
    "12": (16, _of_words(12)),
    "14": (16, _of_words(14)),
    "16": (16, _of_words(16)),
    "10p": (10, _of_ten_bits),
    "12p": (12, _of_twelve_bits),
    "10Packed": (12, _of_gige_vision),
    "12Packed": (12, _of_gige_vision),
}

_SINGLE = {
    "Mono": (0x080001, 0x100003, 0x100005, 0x100025, 0x100007, 0x0A0046, 0x0C0047, 0x0C0004, 0x0C0006),
    "BayerGR": (0x080008, 0x10000C, 0x100010, 0x100109, 0x10002E, 0x0A0056, 0x0C0057, 0x0C0026, 0x0C002A),
    "BayerRG": (0x080009, 0x10000D, 0x100011, 0x10010A, 0x10002F, 0x0A0058, 0x0C0059, 0x0C0027, 0x0C002B),
    "BayerGB": (0x08000A, 0x10000E, 0x100012, 0x10010B, 0x100030, 0x0A0054, 0x0C0055, 0x0C0028, 0x0C002C),
    "BayerBG": (0x08000B, 0x10000F, 0x100013, 0x10010C, 0x100031, 0x0A0052, 0x0C0053, 0x0C0029, 0x0C002D),
}  # fmt: skip
"""Codes of one sample a pixel less the 0x01000000 that they all have, in the order of `_PACKINGS`."""

FORMATS: dict[int, PixelFormat] = {
    0x01000000 | code: PixelFormat(
        f"{name}{packing}",
        *_PACKINGS[packing],
        convert=_by(_MOSAICS[name.removeprefix("Bayer")]) if name != "Mono" else None,
    )
    for name, codes in _SINGLE.items()
    for packing, code in zip(_PACKINGS, codes, strict=True)
} | {
    0x02180014: PixelFormat("RGB8", 24, _as_they_are, 3, _by(cv2.COLOR_RGB2BGR)),
    0x02180015: PixelFormat("BGR8", 24, _as_they_are, 3),
    0x02200016: PixelFormat("RGBa8", 32, _as_they_are, 4, _by(cv2.COLOR_RGBA2BGR)),
    0x02200017: PixelFormat("BGRa8", 32, _as_they_are, 4, _by(cv2.COLOR_BGRA2BGR)),
    0x0210001F: PixelFormat("YUV422_8_UYVY", 16, _as_they_are, 2, _from_yuv(1)),
    0x02100032: PixelFormat("YUV422_8", 16, _as_they_are, 2, _from_yuv(0)),
    0x0210003B: PixelFormat("YCbCr422_8", 16, _as_they_are, 2, _from_yuv(0)),
}
"""Code → format, of those that are read."""

_OLDER = ("YUV422Packed", "YUV422_YUYV_Packed", "RGB8Packed", "BGR8Packed", "RGBA8Packed", "BGRA8Packed")
NAMES = frozenset(each.name for each in FORMATS.values()) | frozenset(_OLDER)
"""What cameras call them, to tell from a camera's own list which to choose."""
_CHOOSE = "choose one that is by pixel-format=…, as in pixel-format=Mono8"
