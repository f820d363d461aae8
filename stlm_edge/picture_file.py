"""What a picture's file says of itself, before a pixel of it is decoded: how large it is and whether it is whole.

OpenCV decodes whatever a header announces, gigabytes for a file of a few kilobytes, and which damage it notices depends
on its version: one fills what is missing with grey, another with what lay in memory. So the structure is read here:
JPEG's markers, PNG's chunks with their checksums, TIFF's directories. What is not named in `_READERS` is no picture.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2

from stlm_edge import tiff
from stlm_edge.spec import Size

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_MOST_SCANS = 100
"""Of a progressive JPEG, each of which takes as long as a picture; programs write about ten."""
_PNM_HEADER = re.compile(
    rb"P([1-6])(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})(?:(?:\s|#[^\n]*\n)+(\d{1,5}))?\s"
)
_ENDED_BY_JPEG_2000 = ("4.10.", "4.11.")
"""OpenCV's versions that crash on most damaged ones; 4.8, 4.9, 4.12 and 5.0 were tried with thousands and do not."""
_JPEG_2000_START = b"\xff\x4f\xff\x51"


@dataclass(frozen=True)
class PictureFile:
    """A picture's file, as its structure has it.

    Attributes:
        size: (height, width) of the largest area that decoding it allocates, as stored.
        is_whole: that nothing is missing and no checksum is wrong; data behind the picture's end does not matter.
        pages: how many pictures it holds, thumbnails not counted.
        orientation: EXIF's, 1 to 8, where OpenCV leaves it to us (it reads that of WebP from 4.12 on only); else 1.
        is_white_zero: that OpenCV hands its 16 bits over with white as zero.
        alpha: where the two bytes stand that say that transparency has to be multiplied in; None if there are none.
        lacks_end: that it ends with its last number, and OpenCV wants a blank or a line end behind that.
        highest: the value that stands for white where OpenCV does not scale by it; None where it does.
        refused: why it must not be decoded although it is whole; None if it may.
    """

    size: Size
    is_whole: bool
    pages: int = 1
    orientation: int = 1
    is_white_zero: bool = False
    alpha: slice | None = None
    lacks_end: bool = False
    highest: int | None = None
    refused: str | None = None


def examine(data: bytes) -> PictureFile | None:
    """Read the structure of a JPEG, PNG, TIFF, BMP, WebP, PNM or JPEG 2000. None if it is none of them, or cut."""
    for start, read in _READERS:
        if start.match(data):
            try:
                return read(data)
            except (struct.error, IndexError, OverflowError, zlib.error, tiff.TiffError):
                return None
    return None


def _jpeg(data: bytes) -> PictureFile:
    """Segments are stepped over by their lengths, so that a thumbnail's end within one is not taken for the end.

    A second beginning or size before the end is another picture's, behind one that was cut.
    """
    at, height, width, scans = 2, 0, 0, 0
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            refused = f"has {scans} scans, which may take minutes" if scans > _MOST_SCANS else None
            return PictureFile((height, width), is_whole=height * width > 0, refused=refused)
        if marker == 0xD8 or (marker in _JPEG_SIZES and height):
            break
        if marker in _JPEG_ALONE:
            continue
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 3)
        scans += marker == 0xDA
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return PictureFile((height, width), is_whole=False)


def _png(data: bytes) -> PictureFile:
    width, height = struct.unpack_from(">II", data, 16)
    at, view, is_sound = 8, memoryview(data), True
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if kind[:1].isupper():  # what a picture cannot do without
            is_sound &= zlib.crc32(view[at + 4 : end]) == struct.unpack_from(">I", data, end)[0]
        if kind == b"IEND":
            return PictureFile((height, width), is_whole=is_sound)
        at = end + 4
    return PictureFile((height, width), is_whole=False)


def _webp(data: bytes) -> PictureFile:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    at, height, width, orientation = 12, 0, 0, 1
    while at + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, at)
        content = data[at + 8 : at + 8 + min(length, 1 << 20)]
        if kind == b"VP8X":
            rows, columns = (1 + int.from_bytes(content[part : part + 3], "little") for part in (7, 4))
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", content, 1)[0]
            rows, columns = 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
        elif kind == b"VP8 ":
            columns, rows = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 6))
        else:
            rows = columns = 0
            if kind == b"EXIF":
                orientation = _orientation(content.removeprefix(b"Exif\0\0"))
        height, width = max(height, rows), max(width, columns)
        at += 8 + length + length % 2
    return PictureFile((height, width), is_whole=end <= len(data), orientation=orientation)


def _orientation(exif: bytes) -> int:
    try:
        first, _ = tiff.directory(exif, tiff.Layout.of(exif).first)
    except (struct.error, OverflowError, tiff.TiffError):
        return 1
    value = first.number(tiff.ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def _bmp(data: bytes) -> PictureFile:
    start, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        (width, height, bits), compression = struct.unpack_from("<HH2xH", data, 18), 0
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", data, 18)
    is_plain = compression in (0, 3, 6)  # run lengths cannot be counted from outside
    stored = (width * bits + 31) // 32 * 4 * abs(height) if is_plain else 0
    return PictureFile((abs(height), width), is_whole=start + stored <= len(data))


def _pnm(data: bytes) -> PictureFile:
    header = _PNM_HEADER.match(data, 0, 4096)
    if header is None or (header[4] is None and header[1] not in (b"1", b"4")):
        raise IndexError
    kind, width, height = (int(number) for number in header.groups()[:3])
    samples = height * width * (3 if kind in (3, 6) else 1)
    highest = None
    if kind in (1, 4):
        start = header.end(3) + 1
        stored = (width + 7) // 8 * height if kind == 4 else samples
    else:
        start, top = header.end(), int(header[4])
        depth = 2 if top > 255 else 1
        if top not in (0, 255, 65535) and (kind > 3 or depth == 2):  # OpenCV scales 8 bits of text, and nothing else
            highest = top
        stored = samples * depth if kind > 3 else 2 * samples - 1  # as text: at least a digit and a space for each
    return PictureFile(
        (height, width),
        is_whole=start + stored <= len(data),
        lacks_end=kind in (2, 3) and data[-1:].isdigit(),
        highest=highest,
    )


def _jpeg_2000(data: bytes) -> PictureFile:
    start = data.find(_JPEG_2000_START)
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    components = struct.unpack_from(">H", data, start + 40)[0]
    refused = None
    if cv2.__version__.startswith(_ENDED_BY_JPEG_2000):
        refused = (
            f"is JPEG 2000, a damaged one of which ends the whole program in OpenCV {cv2.__version__}, not in 4.12"
        )
    elif components > 4:
        refused = f"has {components} components, expected 1 to 4"
    return PictureFile(
        (bottom - top, right - left),
        is_whole=start >= 0 and data.find(b"\xff\xd9", start) >= 0,
        refused=refused,
    )


def _tiff(data: bytes) -> PictureFile:
    pages = tiff.pages(data)
    first = pages[0]
    if first.refused is not None:
        return PictureFile(first.largest, is_whole=True, refused=first.refused)
    return PictureFile(
        first.largest,
        is_whole=first.is_whole(data, jpeg_is_whole=lambda part: _jpeg(part).is_whole),
        pages=sum(not page.is_thumbnail for page in pages[1:]) + 1,
        is_white_zero=first.is_white_zero and first.bits > 8,
        alpha=first.unmultiplied_alpha,
    )


def _unread(data: bytes) -> PictureFile:
    kind = "a GIF" if data.startswith(b"GIF8") else "HEIF or AVIF"
    return PictureFile((1, 1), is_whole=True, refused=f"is {kind}, which is not read here")


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], PictureFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), _png),
    (re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"), _tiff),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"P[1-6][\s#]"), _pnm),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), _jpeg_2000),
    (re.compile(rb"GIF8[79]a|....ftyp(?:hei|hev|mif1|msf1|avi)", re.DOTALL), _unread),
)
