"""TIFFs of the kinds that cameras, microscopes and image editors write."""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from stlm_edge.errors import ImageError
from stlm_edge.imaging import decode
from stlm_edge.picture_file import examine
from tests.picture_files import ALPHA, COLOURS, GREY, Order, Page, W, deep, rgb, saved, tiff

COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
NOISE = np.random.default_rng(0).integers(0, 256, COLOURS.shape, dtype=np.uint8)

orders = pytest.mark.parametrize("order", ["<", ">"])
compressions = pytest.mark.parametrize("compression", COMPRESSIONS)


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


@orders
@pytest.mark.parametrize("tile", [None, (32, 32), (64, 32)])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_is_the_right_way_round(
    order: Order, tile: tuple[int, int] | None, white_is_zero: bool, bits: int
) -> None:
    stored = GREY if bits == 8 else deep(GREY)
    page = Page(~stored if white_is_zero else stored, photometric=0 if white_is_zero else 1, tile=tile)
    assert np.array_equal(decode(tiff(page, order=order)), repeated(GREY))


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [1, 10, 12, 14])
def test_grey_of_other_depths_is_scaled_by_its_range(white_is_zero: bool, bits: int) -> None:
    levels = (GREY.astype(np.uint16) * 257) >> (16 - bits)
    whole = (1 << bits) - 1
    stored = whole - levels if white_is_zero else levels
    image = decode(tiff(Page(stored, photometric=0 if white_is_zero else 1, bits=bits), order=">"))
    assert np.abs(image.astype(int) - repeated(levels * 255.0 / whole)).max() <= 1


@orders
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tile", [None, (32, 64)])
def test_colours_are_read_from_strips_tiles_and_planes(
    order: Order, planar: bool, tile: tuple[int, int] | None
) -> None:
    page = Page(rgb(COLOURS), photometric=2, planar=planar, tile=tile)
    assert np.array_equal(decode(tiff(page, order=order)), COLOURS)


@orders
def test_deep_colours_are_read_and_refused_in_planes(order: Order) -> None:
    page = Page(rgb(deep(COLOURS)), photometric=2)
    assert np.array_equal(decode(tiff(page, order=order)), COLOURS)
    with pytest.raises(ImageError, match="keeps each colour by itself in 16 bits, which OpenCV mixes up; convert it"):
        decode(tiff(dataclasses.replace(page, planar=True), order=order))


@orders
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("coloured", [False, True])
def test_transparency_is_not_multiplied_in(order: Order, kind: int, bits: int, coloured: bool) -> None:
    pixels = rgb(COLOURS) if coloured else GREY[..., None]
    layers = np.concatenate([pixels, ALPHA[..., None]], axis=2)
    page = Page(layers if bits == 8 else deep(layers), photometric=2 if coloured else 1, extra=(kind,))
    assert np.array_equal(decode(tiff(page, order=order)), COLOURS if coloured else repeated(GREY))


@orders
def test_big_tiff_is_read(order: Order) -> None:
    assert np.array_equal(decode(tiff(Page(rgb(COLOURS), photometric=2), order=order, big=True)), COLOURS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_is_applied(orientation: int, bits: int) -> None:
    image = PIL.Image.fromarray(rgb(COLOURS))
    turned = PIL.ImageOps.exif_transpose(
        PIL.Image.open(io.BytesIO(saved(COLOURS, "TIFF", tiffinfo={274: orientation})))
    )
    if bits == 8:
        data = saved(COLOURS, "TIFF", tiffinfo={274: orientation})
        assert np.array_equal(decode(data), np.asarray(turned)[..., ::-1])
    else:
        assert image.size == (W, len(GREY))
        image = PIL.Image.fromarray(deep(GREY))
        data = io.BytesIO()
        image.save(data, "TIFF", tiffinfo={274: orientation})
        grey = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(data))) >> 8
        assert np.array_equal(decode(data.getvalue()), repeated(grey))


@compressions
@pytest.mark.parametrize("pixels", [COLOURS, GREY, NOISE], ids=["colours", "grey", "noise"])
def test_compressed_picture_is_read(compression: str, pixels: np.ndarray) -> None:
    image = decode(saved(pixels, "TIFF", compression=compression))
    assert np.array_equal(image, pixels if pixels.ndim == 3 else repeated(pixels))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_predictor_and_many_strips_are_read(compression: str) -> None:
    data = saved(COLOURS, "TIFF", compression=compression, strip_size=3 * W * 5, tiffinfo={317: 2})
    assert np.array_equal(decode(data), COLOURS)


def test_long_lzw_strip_is_read_over_several_tables() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = saved(noise, "TIFF", compression="tiff_lzw", strip_size=noise.size)
    assert np.array_equal(decode(data), noise)
    flat = np.full((300, 300, 3), 7, np.uint8)
    assert np.array_equal(decode(saved(flat, "TIFF", compression="tiff_lzw", strip_size=flat.size)), flat)


@compressions
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_cut_file_is_not_whole(compression: str, share: float) -> None:
    data = saved(NOISE, "TIFF", compression=compression)
    file = examine(data[: int(share * len(data))])
    assert file is None or not file.is_whole


@compressions
def test_strip_with_a_hole_of_zeros_is_not_whole(compression: str) -> None:
    """As a disk leaves it that was full, or a download that was begun at its full size."""
    data = bytearray(saved(NOISE, "TIFF", compression=compression))
    tags = PIL.Image.open(io.BytesIO(data)).tag_v2
    start, length = tags[273][0], tags[279][0]
    data[start + length // 2 : start + length] = bytes(length - length // 2)
    with pytest.raises(ImageError, match="is empty, truncated, damaged or not a picture"):
        decode(bytes(data))


def test_lzw_code_before_its_entry_is_noticed() -> None:
    """libtiff goes on after it, and leaves in the rest of the strip what lay in memory."""
    whole = saved(NOISE, "TIFF", compression="tiff_lzw")
    start = PIL.Image.open(io.BytesIO(whole)).tag_v2[273][0]
    damaged = bytearray(whole)
    damaged[start + 300 : start + 304] = b"\xff" * 4
    file = examine(bytes(damaged))
    assert file is not None
    assert not file.is_whole


def test_jpeg_within_a_tiff_is_read_and_noticed_when_cut() -> None:
    data = saved(COLOURS, "TIFF", compression="jpeg", quality=100)
    assert np.abs(decode(data).astype(int) - COLOURS).max() < 60
    start, length = (PIL.Image.open(io.BytesIO(data)).tag_v2[tag][0] for tag in (273, 279))
    file = examine(data[: start + length // 2] + bytes(length - length // 2) + data[start + length :])
    assert file is not None
    assert not file.is_whole


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax_is_read(compression: str) -> None:
    data = io.BytesIO()
    PIL.Image.fromarray(GREY > 100).save(data, "TIFF", compression=compression)
    assert np.array_equal(decode(data.getvalue()), repeated(np.where(GREY > 100, 255, 0)))


def test_pages_are_counted_without_thumbnails() -> None:
    page = Page(GREY)
    thumbnail = Page(GREY[::4, ::4].copy(), subfile=1)
    assert [
        file.pages for file in map(examine, (tiff(page), tiff(page, page, page), tiff(page, thumbnail))) if file
    ] == [
        1,
        3,
        1,
    ]


def test_first_of_several_pages_is_read() -> None:
    assert np.array_equal(decode(tiff(Page(GREY), Page(255 - GREY))), repeated(GREY))


@pytest.mark.parametrize(
    "page",
    [
        Page(GREY.astype(np.float32), sample_format=3),
        Page(GREY.astype(np.float64), sample_format=3),
        Page(GREY.astype(np.float16), sample_format=3),
        Page(GREY.astype(np.uint32)),
        Page(GREY.astype(np.int16), sample_format=2),
        Page((GREY // 2).astype(np.int8), sample_format=2),
    ],
    ids=["float32", "float64", "float16", "uint32", "int16", "int8"],
)
def test_other_kinds_of_numbers_are_refused(page: Page) -> None:
    with pytest.raises(ImageError, match=rf"holds {page.pixels.dtype} pixels, expected 8 or 16 bits; convert it"):
        decode(tiff(page))


def test_more_channels_than_four_are_refused() -> None:
    with pytest.raises(ImageError, match="has 5 channels, expected 1 to 4; convert it"):
        decode(tiff(Page(np.repeat(GREY[..., None], 5, axis=2), extra=(0, 0, 0, 0))))


@pytest.mark.parametrize("compression", [33003, 34712, 34933, 50002, 65000])
def test_compression_that_libtiff_does_not_know_is_refused(compression: int) -> None:
    """It makes a black picture of that, which would get a verdict. The first two are JPEG 2000 of microscopes."""
    with pytest.raises(ImageError, match=rf"does not read \(number {compression}\); convert it"):
        decode(tiff(Page(GREY, compression=compression)))


def test_size_is_refused_before_strips_are_unpacked() -> None:
    """A megabyte of Deflate stands for a gigabyte."""
    data = bytearray(saved(np.zeros((8, 8), np.uint8), "TIFF", compression="tiff_deflate"))
    tags = PIL.Image.open(io.BytesIO(data)).tag_v2
    start, length = tags[273][0], tags[279][0]
    data[start : start + length] = b"\x01" * length  # no Deflate at all
    for tag in (256, 257, 278):
        place = data.index(struct.pack("<H", tag) + struct.pack("<H", 3)) + 2
        struct.pack_into("<HII", data, place, 4, 1, 1 << 17)
    with pytest.raises(ImageError, match="announces 131072 x 131072"):
        decode(bytes(data))


@orders
def test_picture_of_one_column_announces_itself(order: Order) -> None:
    file = examine(tiff(Page(GREY[:, :1].copy()), order=order))
    assert file is not None
    assert file.size == (len(GREY), 1)


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_picture_of_more_rows_than_it_has_strips_or_tiles_is_not_whole(tile: tuple[int, int] | None) -> None:
    data = tiff(dataclasses.replace(Page(GREY, tile=tile), size=(100_000, W)))
    if tile is None:
        data = data.replace(struct.pack("<HHII", 278, 4, 1, 100_000), struct.pack("<HHII", 278, 4, 1, len(GREY)))
    file = examine(data)
    assert file is not None
    assert file.size == (100_000, W)
    assert not file.is_whole


@pytest.mark.parametrize("big", [False, True])
def test_damaged_directories_are_no_picture(big: bool) -> None:
    data = tiff(Page(GREY), big=big)
    place = 8 if big else 4
    first = struct.unpack_from("<Q" if big else "<I", data, place)[0]
    word = "<Q" if big else "<I"
    for target in (0, len(data) - 1, len(data) + 10, (1 << 64) - 1 if big else (1 << 32) - 1):
        damaged = bytearray(data)
        struct.pack_into(word, damaged, place, target)
        assert examine(bytes(damaged)) is None
    looped = bytearray(data)
    struct.pack_into(word, looped, len(data) - struct.calcsize(word), first)
    assert examine(bytes(looped)) is None
