"""Files of pictures as programs other than OpenCV write them, byte by byte, for tests."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import PIL.Image

H, W = 24, 40
_ROWS, _COLUMNS = np.mgrid[:H, :W]

GREY = (6 * _COLUMNS + _ROWS % 2).astype(np.uint8)
"""(H, W), no value of which is its mirror image's or its negative's."""
COLOURS = np.stack([6 * _COLUMNS, 10 * _ROWS, 3 * (_COLUMNS + _ROWS)], axis=-1).astype(np.uint8)
"""(H, W, 3), BGR."""
ALPHA = np.where(_COLUMNS < 10, 0, 128).astype(np.uint8)

Order = Literal["<", ">"]


def deep(pixels: np.ndarray) -> np.ndarray:
    """The same in 16 bits: 255 → 65535."""
    return pixels.astype(np.uint16) * 257


def rgb(pixels: np.ndarray) -> np.ndarray:
    """BGR → RGB, with the transparency where it is."""
    return np.ascontiguousarray(np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=-1))


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    """As PIL writes BGR or grey pixels."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels if pixels.ndim == 2 else rgb(pixels)).save(file, kind, **options)
    return file.getvalue()


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF, not compressed.

    Attributes:
        pixels: (H, W) or (H, W, C), in the file's order of colours; bits below 8 as whole bytes.
        photometric: 0 white is zero, 1 black is zero, 2 RGB.
        extra: kinds of the channels beyond the colours: 0 unspecified, 1 multiplied in, 2 transparency.
        tile: (height, width); None for one strip.
        sample_format: 1 unsigned, 2 signed, 3 floating.
        subfile: 1 for a thumbnail.
        size: what is announced instead of the size of the pixels.
        compression: what is announced, whatever the pixels are.
    """

    pixels: np.ndarray
    photometric: int = 1
    extra: tuple[int, ...] = ()
    planar: bool = False
    tile: tuple[int, int] | None = None
    bits: int | None = None
    sample_format: int = 1
    subfile: int = 0
    size: tuple[int, int] | None = None
    compression: int = 1

    def parts(self, order: Order) -> list[bytes]:
        """Strips or tiles."""
        pixels = self.pixels.astype(self.pixels.dtype.newbyteorder(order))
        if self.bits is not None:
            lower = np.unpackbits(self.pixels.astype(">u2").view(np.uint8).reshape(*self.pixels.shape, 2), axis=2)
            return [np.packbits(lower[..., 16 - self.bits :].reshape(len(pixels), -1), axis=1).tobytes()]
        planes = np.moveaxis(pixels, -1, 0) if self.planar else [pixels]
        if self.tile is None:
            return [np.ascontiguousarray(plane).tobytes() for plane in planes]
        return [part for plane in planes for part in _tiles(plane, self.tile)]


def tiff(*pages: Page, order: Order = "<", big: bool = False) -> bytes:
    """A TIFF, or a BigTIFF, with its pages one after another."""
    word, count, each = ("Q", "Q", 20) if big else ("I", "H", 12)
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + "HHHQ", 43, 8, 0, 0) if big else struct.pack(order + "HI", 42, 0)
    link = len(out) - struct.calcsize(word)
    for page in pages:
        parts = page.parts(order)
        starts = []
        for part in parts:
            starts.append(len(out))
            out += part + bytes(len(part) % 2)
        height, width = page.size or page.pixels.shape[:2]
        samples = page.pixels.shape[2] if page.pixels.ndim == 3 else 1
        bits = page.bits or 8 * page.pixels.dtype.itemsize
        sizes = [len(part) for part in parts]
        fields: list[tuple[int, str, list[int]]] = [
            (254, "I", [page.subfile]),
            (256, "I", [width]),
            (257, "I", [height]),
            (258, "H", [bits] * samples),
            (259, "H", [page.compression]),
            (262, "H", [page.photometric]),
            (277, "H", [samples]),
            (284, "H", [2 if page.planar else 1]),
            (339, "H", [page.sample_format] * samples),
        ]
        if page.tile is None:
            fields += [(273, "I", starts), (278, "I", [height]), (279, "I", sizes)]
        else:
            fields += [(322, "I", [page.tile[1]]), (323, "I", [page.tile[0]]), (324, "I", starts), (325, "I", sizes)]
        if page.extra:
            fields.append((338, "H", list(page.extra)))
        entries = bytearray()
        for tag, kind, values in sorted(fields):
            stored = struct.pack(f"{order}{len(values)}{kind}", *values)
            if len(stored) > struct.calcsize(word):
                place = len(out)
                out += stored + bytes(len(stored) % 2)
                stored = struct.pack(order + word, place)
            entries += struct.pack(f"{order}HH{word}", tag, {"H": 3, "I": 4}[kind], len(values))
            entries += stored.ljust(struct.calcsize(word), b"\0")
        struct.pack_into(order + word, out, link, len(out))
        out += struct.pack(order + count, len(entries) // each) + entries
        link = len(out)
        out += bytes(struct.calcsize(word))
    return bytes(out)


def _tiles(plane: np.ndarray, tile: tuple[int, int]) -> list[bytes]:
    height, width = tile
    filled = np.zeros(
        (-(-len(plane) // height) * height, -(-plane.shape[1] // width) * width, *plane.shape[2:]), plane.dtype
    )
    filled[: len(plane), : plane.shape[1]] = plane
    return [
        np.ascontiguousarray(filled[top : top + height, left : left + width]).tobytes()
        for top in range(0, len(filled), height)
        for left in range(0, filled.shape[1], width)
    ]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int], rows: bytes, *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of unfiltered rows, each behind its zero; colour 0 grey, 2 RGB, 4 grey and 6 RGB with transparency."""
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_rows(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)


def exif(orientation: int, *, thumbnail: bytes = b"", order: Order = "<") -> bytes:
    """A block of EXIF with an orientation, and with a thumbnail in a directory of its own as cameras write it."""
    first = struct.pack(order + "HHHIHH", 1, 0x112, 3, 1, orientation, 0) + struct.pack(
        order + "I", 26 if thumbnail else 0
    )
    second = struct.pack(order + "HHHIHH", 3, 0x103, 3, 1, 6, 0) + struct.pack(
        order + "HHIIHHIII", 0x201, 4, 1, 68, 0x202, 4, 1, len(thumbnail), 0
    )
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    return b"Exif\0\0" + head + first + (second + thumbnail if thumbnail else b"")


def write_deep(path: Path, pixels: np.ndarray) -> Path:
    """Write pixels of any depth, as OpenCV does."""
    done, data = cv2.imencode(path.suffix.lower(), pixels)
    assert done
    path.write_bytes(data.tobytes())
    return path
