"""The directories of a TIFF, and whether what they point to can be decoded.

libtiff, under OpenCV, goes on after an error in a strip and leaves there what lay in memory, so each strip's or tile's
data is tried here: its length, zlib's checksum, the lengths of PackBits and LZW. Source: TIFF 6.0, sections 2, 9, 13.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stlm_edge.spec import Size

ORIENTATION = 274
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_SUBFILE, _EXTRA, _FORMAT = 254, 338, 339
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""The whole numbers among the types of a field."""

_COMPRESSIONS = frozenset(
    {*range(1, 9), 32766, 32771, 32773, 32809, 32909, 32946, 34661, 34676, 34677, 34887, 34925, 50000, 50001}
)
"""That libtiff knows by number, whether or not it is built with them; of any other, such as the JPEG 2000 of
microscopes, it makes a black picture without an error."""

_MOST_PIXELS = 1 << 30
"""More are decoded by no OpenCV, and not unpacked here."""
_MOST_PAGES = 10_000
_MOST_VALUES = 1 << 20
_CLEAR, _END = 256, 257
_LZW_CODES = 4096
_LZW_WIDTHS = 9 + (np.arange(_LZW_CODES)[:, None] >= np.array([254, 766, 1790])).sum(axis=1)
"""Bits of the k-th code after the table was cleared: one more from the code on whose entry is 511, 1023, 2047."""
_LZW_AT = np.concatenate([[0], np.cumsum(_LZW_WIDTHS)])[:-1]


class TiffError(Exception):
    """It is no TIFF, or its directories are damaged."""


@dataclass(frozen=True)
class Layout:
    """How a TIFF's numbers are stored: struct's byte order, whether it is a BigTIFF, where the first directory is."""

    order: str
    is_big: bool
    first: int

    @classmethod
    def of(cls, data: bytes) -> Layout:
        """Raises `TiffError`, `struct.error`."""
        order = {b"II": "<", b"MM": ">"}.get(data[:2])
        if order is None:
            raise TiffError
        version = struct.unpack_from(order + "H", data, 2)[0]
        if version == 43:
            return cls(order, True, struct.unpack_from(order + "Q", data, 8)[0])
        return cls(order, False, struct.unpack_from(order + "I", data, 4)[0])


@dataclass(frozen=True)
class Directory:
    """The fields of a picture in the file that are whole numbers: tag → values, and tag → where they stand."""

    values: dict[int, tuple[int, ...]]
    places: dict[int, int]

    def number(self, tag: int, default: int) -> int:
        """The first value of a field."""
        return self.values[tag][0] if self.values.get(tag) else default

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.number(_HEIGHT, 0), self.number(_WIDTH, 0)

    @property
    def largest(self) -> Size:
        """(height, width) of what decoding allocates: a tile may be larger than its picture."""
        return max(self.size[0], self.number(_TILE_HEIGHT, 0)), max(self.size[1], self.number(_TILE_WIDTH, 0))

    @property
    def bits(self) -> int:
        """Of a sample."""
        return self.number(_BITS, 1)

    @property
    def is_thumbnail(self) -> bool:
        """Whether it is another page's picture in a smaller size, or a mask of its transparency."""
        return bool(self.number(_SUBFILE, 0) & 0b101)

    @property
    def is_white_zero(self) -> bool:
        """Whether 0 stands for white (WhiteIsZero)."""
        return self.number(_PHOTOMETRIC, 1) == 0

    @property
    def refused(self) -> str | None:
        """Why it must not be decoded although nothing is missing; None if it may."""
        samples, sample_format = self.number(_SAMPLES, 1), self.number(_FORMAT, 1)
        if sample_format != 1 or self.bits > 16:
            kind = {1: "uint", 2: "int", 3: "float"}.get(sample_format, "other numbers of ")
            return f"holds {kind}{self.bits} pixels, expected 8 or 16 bits"
        if (compression := self.number(_COMPRESSION, 1)) not in _COMPRESSIONS:
            return f"is compressed in a way that OpenCV does not read (number {compression})"
        if samples > 4:
            return f"has {samples} channels, expected 1 to 4"
        if self.number(_PLANAR, 1) == 2 and samples > 1 and self.bits > 8:
            return "keeps each colour by itself in 16 bits, which OpenCV mixes up"
        return None

    @property
    def unmultiplied_alpha(self) -> slice | None:
        """Where the two bytes of the field stand that make libtiff multiply transparency into 8 bits; None: nowhere."""
        extra = self.values.get(_EXTRA, ())
        place = self.places.get(_EXTRA)
        return slice(place, place + 2) if place is not None and extra[:1] == (2,) else None

    def is_whole(self, data: bytes, *, jpeg_is_whole: Callable[[bytes], bool]) -> bool:
        """Whether each strip or tile lies in the file and can be decoded to the length that it must have.

        Of compressions other than LZW, Deflate, PackBits and JPEG only the place in the file is looked at.
        """
        is_tiled = _TILES in self.values
        if self.largest[0] * self.largest[1] > _MOST_PIXELS:
            return True  # its size is refused, whatever its data are
        starts = self.values.get(_TILES if is_tiled else _STRIPS, ())
        lengths = self.values.get(_TILE_SIZES if is_tiled else _STRIP_SIZES, ())
        if min(self.size) <= 0 or not 0 < self._parts(is_tiled=is_tiled) <= len(starts):
            return False
        if not lengths:  # very old writers leave them out, and libtiff estimates them
            return max(starts) < len(data)
        if len(lengths) != len(starts):
            return False
        full, expected = self._bytes_of_parts(len(starts), is_tiled=is_tiled)
        return all(
            start + length <= len(data)
            and (length or not wanted)
            and self._is_sound(data[start : start + length], wanted=wanted, full=full, jpeg_is_whole=jpeg_is_whole)
            for start, length, wanted in zip(starts, lengths, expected, strict=True)
        )

    def _is_sound(self, part: bytes, *, wanted: int, full: int, jpeg_is_whole: Callable[[bytes], bool]) -> bool:
        """Whether a strip or tile can be decoded to `wanted` bytes; some writers fill up the last one to `full`."""
        compression = self.number(_COMPRESSION, 1)
        if compression == 7:
            return jpeg_is_whole(part)
        if compression == 1:
            return len(part) >= wanted
        if compression in _LENGTHS and wanted:
            return _LENGTHS[compression](part, full) in (wanted, full)
        return True

    def _parts(self, *, is_tiled: bool) -> int:
        """How many strips or tiles the picture takes; 0 if its tiles are damaged."""
        height, width = self.size
        planes = self.number(_SAMPLES, 1) if self.number(_PLANAR, 1) == 2 else 1
        if not is_tiled:
            return -(-height // self._rows) * planes
        tall, wide = self.number(_TILE_HEIGHT, 0), self.number(_TILE_WIDTH, 0)
        return -(-height // tall) * -(-width // wide) * planes if tall and wide else 0

    @property
    def _rows(self) -> int:
        """Of a strip."""
        return max(1, min(self.number(_ROWS, self.size[0]), self.size[0]))

    def _bytes_of_parts(self, parts: int, *, is_tiled: bool) -> tuple[int, list[int]]:
        """How many bytes a full strip or tile decodes to, and how many each of them does; 0 where that is not told."""
        height, width = self.size
        if self.number(_PHOTOMETRIC, 1) == 6:  # colour is stored at a lower resolution, which other fields describe
            return 0, [0] * parts
        samples = 1 if self.number(_PLANAR, 1) == 2 else self.number(_SAMPLES, 1)
        columns = self.number(_TILE_WIDTH, 0) if is_tiled else width
        row = (columns * samples * self.bits + 7) // 8
        if is_tiled:
            full = self.number(_TILE_HEIGHT, 0) * row
            return full, [full] * parts
        strips = -(-height // self._rows)
        return self._rows * row, [
            row * min(self._rows, height - self._rows * (index % strips)) for index in range(parts)
        ]


def pages(data: bytes) -> list[Directory]:
    """The directories of a file, at least one. Raises `TiffError`, `struct.error` if one is damaged."""
    place, found, seen = Layout.of(data).first, list[Directory](), set[int]()
    while place:
        if place in seen or len(found) == _MOST_PAGES:
            raise TiffError
        seen.add(place)
        page, place = directory(data, place)
        found.append(page)
    if not found:
        raise TiffError
    return found


def directory(data: bytes, place: int) -> tuple[Directory, int]:
    """The directory at `place`, and where the next one is (0: there is none). Raises `TiffError`, `struct.error`."""
    layout = Layout.of(data)
    counts, each, inline, word = ("Q", 20, 8, "Q") if layout.is_big else ("H", 12, 4, "I")
    entries = struct.unpack_from(layout.order + counts, data, place)[0]
    place += struct.calcsize(counts)
    if place + entries * each > len(data):
        raise TiffError
    values: dict[int, tuple[int, ...]] = {}
    places: dict[int, int] = {}
    for at in range(place, place + entries * each, each):
        tag, kind, count = struct.unpack_from(f"{layout.order}HH{word}", data, at)
        if kind not in _TYPES or count > _MOST_VALUES:
            continue
        stored = at + each - inline
        if count * struct.calcsize(_TYPES[kind]) > inline:
            stored = struct.unpack_from(layout.order + word, data, stored)[0]
        values[tag] = struct.unpack_from(f"{layout.order}{count}{_TYPES[kind]}", data, stored)
        places[tag] = stored
    return Directory(values, places), struct.unpack_from(layout.order + word, data, place + entries * each)[0]


def _deflated_length(part: bytes, most: int) -> int | None:
    """Bytes that zlib's data stands for; None if it is damaged."""
    decoder, length = zlib.decompressobj(), 0
    try:
        for at in range(0, len(part), 1 << 16):
            length += len(decoder.decompress(part[at : at + (1 << 16)]))
            if decoder.eof or length > most:
                break
    except zlib.error:
        return None
    return length


def _packbits_length(part: bytes, most: int) -> int | None:
    """Bytes that runs and copies stand for; None if the last one is cut."""
    at = length = 0
    while at < len(part) and length < most:
        count = part[at]
        if count < 128:
            at, length = at + count + 2, length + count + 1
        else:
            at, length = at + (1 if count == 128 else 2), length + (0 if count == 128 else 257 - count)
    return length if at <= len(part) else None


def _lzw_length(part: bytes, most: int) -> int | None:
    """Bytes that the codes stand for; None if one comes before it is known.

    A code stands for as many bytes as its entry's prefix and one more; the prefixes of all codes since the table was
    cleared are followed together, twice as far each time.
    """
    if len(part) > 1 and part[0] == 0 and part[1] & 1:
        return most  # the order of bits before TIFF 6.0, which libtiff reads too
    padded = np.frombuffer(part + bytes(4), np.uint8).astype(np.uint32)
    words = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]
    at, length = 0, 0
    while length <= most:
        bits = at + _LZW_AT
        there = np.count_nonzero(bits + _LZW_WIDTHS <= 8 * len(part))
        bits, widths = bits[:there], _LZW_WIDTHS[:there]
        codes = ((words[bits >> 3] >> (32 - (bits & 7) - widths)) & ((1 << widths) - 1)).astype(np.int64)
        marks = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        count = int(marks[0]) if marks.size else there
        known = codes[:count]
        if np.any(known > np.maximum(_CLEAR - 1, _END + np.arange(count))):
            return None
        length += _decoded_length(known)
        if not marks.size or codes[count] == _END:
            break
        at = int(bits[count] + widths[count])
    return length


def _decoded_length(codes: NDArray[np.int64]) -> int:
    """Bytes that the codes since the table was cleared stand for."""
    nothing = codes.size
    prefix = np.append(np.where(codes > _END, codes - (_END + 1), nothing), nothing)
    length = (prefix != nothing).astype(np.int64)
    while np.any(prefix != nothing):
        length += length[prefix]
        prefix = prefix[prefix]
    return int(length.sum()) + codes.size


_LENGTHS: dict[int, Callable[[bytes, int], int | None]] = {
    5: _lzw_length,
    8: _deflated_length,
    32946: _deflated_length,
    32773: _packbits_length,
}
