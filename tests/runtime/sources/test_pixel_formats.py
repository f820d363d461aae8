"""Bytes of drawn pictures, packed here by the bit as the convention has it, become these pictures again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.sources.genicam.pixel_formats import FORMATS, decode
from stlm_edge.errors import SourceError
from stlm_edge.imaging import read_image

CODES = {found.name: code for code, found in FORMATS.items()}
SIZE = (6, 10)


def samples(bits: int, *, seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, size, np.uint16)


def in_words(values: np.ndarray) -> np.ndarray:
    return values.astype("<u2").reshape(-1).view(np.uint8)


def by_the_bit(values: np.ndarray, *, bits: int) -> np.ndarray:
    """Sample after sample from the lowest bit of the first byte on."""
    whole = sum(int(value) << bits * place for place, value in enumerate(values.reshape(-1)))
    return np.frombuffer(whole.to_bytes(-(-values.size * bits // 8), "little"), np.uint8)


def as_gige_vision(values: np.ndarray, *, bits: int) -> np.ndarray:
    """Two in three bytes: upper eight bits of the first, lower ones of both, upper eight of the second."""
    found, low = [], bits - 8
    for first, second in values.reshape(-1, 2).tolist():
        mask = (1 << low) - 1
        found += [first >> low, (first & mask) | (second & mask) << 4, second >> low]
    return np.array(found, np.uint8)


@pytest.mark.parametrize(
    ("name", "bits", "pack"),
    [
        ("Mono10", 10, in_words),
        ("Mono12", 12, in_words),
        ("Mono14", 14, in_words),
        ("Mono16", 16, in_words),
        ("Mono10p", 10, lambda values: by_the_bit(values, bits=10)),
        ("Mono12p", 12, lambda values: by_the_bit(values, bits=12)),
        ("Mono10Packed", 10, lambda values: as_gige_vision(values, bits=10)),
        ("Mono12Packed", 12, lambda values: as_gige_vision(values, bits=12)),
    ],
)
def test_more_than_eight_bits_give_the_pixels_that_training_has_of_the_same_picture(name, bits, pack, tmp_path: Path):
    values = samples(bits)
    stored = tmp_path / "picture.png"
    cv2.imwrite(str(stored), values << (16 - bits))
    image = decode(pack(values), code=CODES[name], size=SIZE)
    assert image.shape == SIZE
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, read_image(stored)[:, :, 0])


@pytest.mark.parametrize("width", [1, 3, 5, 7])
def test_packed_pixels_that_end_within_a_group(width):
    values = samples(10, size=(1, width))
    np.testing.assert_array_equal(
        decode(by_the_bit(values, bits=10), code=CODES["Mono10p"], size=(1, width)), values >> 2
    )


@pytest.mark.parametrize("pattern", ["RG", "GB", "GR", "BG"])
@pytest.mark.parametrize(
    ("packing", "bits", "pack"),
    [
        ("8", 8, lambda values: values.astype(np.uint8).reshape(-1)),
        ("10", 10, in_words),
        ("12p", 12, lambda values: by_the_bit(values, bits=12)),
        ("12Packed", 12, lambda values: as_gige_vision(values, bits=12)),
    ],
)
def test_drawn_mosaic_has_its_colours(pattern, packing, bits, pack):
    """Left a warm plane, right a cold one; away from the edge between them both have exactly their colour."""
    colours = {"left": {"R": 200, "G": 120, "B": 40}, "right": {"R": 30, "G": 90, "B": 220}}
    filters = (pattern[0], pattern[1]), {"RG": "GB", "GB": "RG", "GR": "BG", "BG": "GR"}[pattern]
    mosaic = np.empty((12, 24), np.uint16)
    for row in range(12):
        for column in range(24):
            side = "left" if column < 12 else "right"
            mosaic[row, column] = colours[side][filters[row % 2][column % 2]] << (bits - 8)
    image = decode(pack(mosaic), code=CODES[f"Bayer{pattern}{packing}"], size=(12, 24))
    assert image.shape == (12, 24, 3)
    assert (image[2:-2, 2:9] == (40, 120, 200)).all()
    assert (image[2:-2, 15:-2] == (220, 90, 30)).all()


@pytest.mark.parametrize(("name", "order"), [("RGB8", (2, 1, 0)), ("BGR8", (0, 1, 2)), ("RGBa8", (2, 1, 0, 3))])
def test_colours_become_blue_green_red(name, order):
    bgra = np.random.default_rng(0).integers(0, 256, (4, 6, 4), np.uint8)
    image = decode(bgra[:, :, order].reshape(-1), code=CODES[name], size=(4, 6))
    np.testing.assert_array_equal(image, bgra[:, :, :3])


@pytest.mark.parametrize(
    ("name", "luma", "chroma"), [("YUV422_8_UYVY", 1, 0), ("YUV422_8", 0, 1), ("YCbCr422_8", 0, 1)]
)
def test_luma_and_chroma_of_full_range_become_the_colours_they_were_made_of(name, luma, chroma):
    bgr = np.random.default_rng(0).integers(0, 256, (4, 3, 3)).repeat(2, axis=1).astype(float)
    bgr[0, :2], bgr[0, 2:4] = 0, 255
    blue, green, red = np.moveaxis(bgr, 2, 0)
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = 0.564 * (blue - y) + 128, 0.713 * (red - y) + 128
    packed = np.empty((4, 6, 2))
    packed[:, :, luma] = y
    packed[:, ::2, chroma], packed[:, 1::2, chroma] = u[:, ::2], v[:, ::2]
    image = decode(packed.round().clip(0, 255).astype(np.uint8).reshape(-1), code=CODES[name], size=(4, 6))
    assert np.abs(image - bgr).max() <= 2


def test_picture_is_its_own_and_padded_rows_are_cut():
    data = np.arange(4 * 8, dtype=np.uint8)
    plain, padded = (decode(data[:count], code=CODES["Mono8"], size=(4, 6)) for count in (24, 32))
    np.testing.assert_array_equal(plain, np.arange(24).reshape(4, 6))
    np.testing.assert_array_equal(padded, data.reshape(4, 8)[:, :6])
    chunks_behind = decode(data, code=CODES["Mono8"], size=(4, 6), is_plain=False)
    np.testing.assert_array_equal(chunks_behind, plain)
    data[:] = 0
    assert plain.max() == 23


def test_what_cannot_be_read_is_a_line():
    with pytest.raises(
        SourceError, match="pixel format 0x01080002, which is not read; choose one that is by pixel-format"
    ):
        decode(np.zeros(9, np.uint8), code=0x01080002, size=(3, 3))
    with pytest.raises(SourceError, match=r"found 8 bytes for 3 x 3 \(height x width\) in Mono8, expected 9"):
        decode(np.zeros(8, np.uint8), code=CODES["Mono8"], size=(3, 3))
    with pytest.raises(SourceError, match="found 4:2:2 pictures of 3 pixels in a row"):
        decode(np.zeros(18, np.uint8), code=CODES["YUV422_8"], size=(3, 3))
