"""Files of pictures: whole ones with more behind them, cut ones, bombs, turned ones, and what is no file at all."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from stlm_edge.errors import ConfigError, ImageError
from stlm_edge.imaging import decode, pixel_limit, read_image, write_image
from stlm_edge.masks import read_mask
from stlm_edge.picture_file import examine
from stlm_edge.spec import PIXEL_LIMIT_VARIABLE
from tests.picture_files import (
    ALPHA,
    COLOURS,
    GREY,
    H,
    Order,
    Page,
    W,
    chunk,
    deep,
    exif,
    png,
    png_rows,
    rgb,
    saved,
    tiff,
)

RGB = rgb(COLOURS)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
THUMBNAIL = saved(NOISE[::4, ::4], "JPEG")
WAYS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "thumbnail": {"exif": exif(1, thumbnail=THUMBNAIL)},
    "thumbnail-progressive": {"exif": exif(1, thumbnail=THUMBNAIL), "progressive": True},
}
PNG = png((H, W), png_rows(RGB))
TEXT = b" ".join(b"%d" % value for value in RGB.ravel())


def is_whole(data: bytes) -> bool:
    file = examine(data)
    return file is not None and file.is_whole


def pil(data: bytes) -> np.ndarray:
    """(H, W, 3) BGR as PIL reads and turns it."""
    return np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB"))[..., ::-1]


@pytest.mark.parametrize("way", WAYS)
def test_jpeg_with_anything_behind_it_is_whole(way: str) -> None:
    """A phone's motion photo has a video there, others a second picture, a depth map or the rest of a file system."""
    data = saved(NOISE, "JPEG", **WAYS[way])
    tails = (b"", bytes(100_000), data, b"\0\0\0\x18ftypmp42" + NOISE.tobytes() * 6, b"\xff\xd8\xff\xe0 no end")
    for tail in tails:
        assert is_whole(data + tail)
        assert np.abs(decode(data + tail).astype(int) - pil(data)).mean() < 4


@pytest.mark.parametrize("way", WAYS)
def test_cut_jpeg_is_not_whole_whatever_ends_within_it(way: str) -> None:
    data = saved(NOISE, "JPEG", **WAYS[way])
    header = len(THUMBNAIL) if "thumbnail" in way else 0
    for length in (header + 700, len(data) // 2, len(data) * 9 // 10, len(data) - 2, len(data) - 1):
        assert not is_whole(data[:length])
        assert not is_whole(data[:length] + bytes(len(data) - length))  # the disk was full
        assert not is_whole(data[:length] + data)  # the transfer was begun anew, at the end of what was there


def test_ends_within_a_comment_are_not_the_end() -> None:
    data = saved(NOISE, "JPEG")
    commented = data[:2] + b"\xff\xfe\0\x08\xff\xd9\xff\xd8\xff\xd9" + data[2:]
    assert is_whole(commented)
    assert not is_whole(commented[:-2])
    assert is_whole(data[:-2] + b"\xff\xff\xff\xd9")  # bytes that fill up


def test_jpeg_of_endless_scans_is_refused() -> None:
    data = saved(NOISE, "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    decode(data[:-2] + 10 * last + b"\xff\xd9")
    with pytest.raises(ImageError, match="scans, which may take minutes"):
        decode(data[:-2] + 200 * last + b"\xff\xd9")


@pytest.mark.parametrize("tail", [b"", bytes(100_000), b"IEND" * 30_000, PNG])
def test_png_with_anything_behind_it_is_whole(tail: bytes) -> None:
    assert np.array_equal(decode(PNG + tail), COLOURS)


def test_damaged_png_is_not_whole() -> None:
    for length in (20, len(PNG) // 2, len(PNG) - 12, len(PNG) - 1):
        assert not is_whole(PNG[:length])
        assert not is_whole(PNG[:length] + bytes(1000))
    flipped = bytearray(PNG)
    flipped[len(PNG) // 2] ^= 1
    assert not is_whole(bytes(flipped))
    text = PNG[:33] + b"\0\0\0\4tEXtabcd\0\0\0\0" + PNG[33:]  # a wrong checksum of what is no picture
    assert np.array_equal(decode(text), COLOURS)


@pytest.mark.parametrize("rows", [H // 2, H - 1, 0])
def test_png_with_too_few_rows_is_refused(rows: int) -> None:
    with pytest.raises(ImageError):
        decode(png((H, W), png_rows(RGB[:rows])))


PNGS = {
    "grey 1": (png((H, W), b"".join(b"\0" + np.packbits(row > 100).tobytes() for row in GREY), bits=1, colour=0), None),
    "grey 16": (png((H, W), png_rows(deep(GREY)), bits=16, colour=0), GREY),
    "rgb 16": (png((H, W), png_rows(deep(RGB)), bits=16), COLOURS),
    "rgba 8": (png((H, W), png_rows(np.dstack([RGB, ALPHA])), colour=6), COLOURS),
    "rgba 16": (png((H, W), png_rows(deep(np.dstack([RGB, ALPHA]))), bits=16, colour=6), COLOURS),
    "grey alpha 8": (png((H, W), png_rows(np.dstack([GREY, ALPHA])), colour=4), GREY),
    "grey alpha 16": (png((H, W), png_rows(deep(np.dstack([GREY, ALPHA]))), bits=16, colour=4), GREY),
    "rgb with a transparent colour": (PNG[:33] + chunk(b"tRNS", bytes(6)) + PNG[33:], COLOURS),
    "rgb of linear light": (PNG[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + PNG[33:], COLOURS),
}


@pytest.mark.parametrize("kind", PNGS)
def test_png_of_every_kind_gives_its_values(kind: str) -> None:
    data, expected = PNGS[kind]
    expected = np.where(GREY > 100, 255, 0) if expected is None else expected
    assert np.array_equal(decode(data), expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2))


def test_transparent_palette_gives_its_colours() -> None:
    palette = PIL.Image.fromarray(RGB).convert("P", palette=PIL.Image.Palette.ADAPTIVE)
    for transparency in (3, bytes(range(256))):
        data = io.BytesIO()
        palette.save(data, "PNG", transparency=transparency)
        assert np.array_equal(decode(data.getvalue()), np.asarray(palette.convert("RGB"))[..., ::-1])


@pytest.mark.parametrize("options", [{"quality": 95}, {"lossless": True}])
@pytest.mark.parametrize("transparent", [False, True])
def test_webp_is_read_and_noticed_when_cut(options: dict[str, object], transparent: bool) -> None:
    pixels = np.dstack([COLOURS, np.where(ALPHA, ALPHA, 9)]).astype(np.uint8) if transparent else COLOURS
    data = saved(pixels, "WEBP", exact=True, **options)
    assert np.abs(decode(data + bytes(70_000)).astype(int) - COLOURS).mean() < (1e-9 if "lossless" in options else 12)
    for length in (25, len(data) // 2, len(data) - 1):
        assert not is_whole(data[:length])


@pytest.mark.parametrize("pixels", [COLOURS, GREY, np.dstack([COLOURS, ALPHA])], ids=["24", "8", "32"])
def test_bmp_is_read_and_noticed_when_cut(pixels: np.ndarray) -> None:
    data = saved(pixels, "BMP")
    expected = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else COLOURS
    assert np.array_equal(decode(data + bytes(1000)), expected)
    assert not is_whole(data[: len(data) * 2 // 3])
    flipped = bytearray(data)
    struct.pack_into("<i", flipped, 22, -H)  # from the top down
    assert np.array_equal(decode(bytes(flipped)), expected[::-1])


CRASHES = cv2.__version__.startswith(("4.10.", "4.11."))
"""This OpenCV on damaged JPEG 2000."""


def test_jpeg_2000_is_refused_where_a_damaged_one_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.__version__", "4.11.0")
    with pytest.raises(
        ImageError, match=r"is JPEG 2000, a damaged one of which ends the whole program in OpenCV 4\.11"
    ):
        decode(JP2)


@pytest.mark.skipif(CRASHES, reason="refused with this OpenCV")
def test_jpeg_2000_is_read_and_noticed_when_cut() -> None:
    for options in ({}, {"no_jp2": True}):
        data = saved(COLOURS, "JPEG2000", **options)
        assert np.array_equal(decode(data + bytes(70_000)), COLOURS)
        for length in (60, len(data) // 2, len(data) - 1):
            assert not is_whole(data[:length])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P6\n# of a camera\n%d %d\n255\n" % (W, H) + RGB.tobytes(), COLOURS),
        (b"P5 %d %d 255\n" % (W, H) + GREY.tobytes(), GREY),
        (b"P5 %d %d 65535\n" % (W, H) + deep(GREY).astype(">u2").tobytes(), GREY),
        (b"P5 %d %d 1023\n" % (W, H) + (deep(GREY) >> 6).astype(">u2").tobytes(), GREY),
        (b"P6 %d %d 4095\n" % (W, H) + (deep(RGB) >> 4).astype(">u2").tobytes(), COLOURS),
        (b"P5 %d %d 15\n" % (W, H) + (GREY >> 4).tobytes(), (GREY >> 4) * 17),
        (
            b"P2\n%d %d\n15\n" % (W, H) + b" ".join(b"%d" % (value >> 4) for value in GREY.ravel()) + b"\n",
            (GREY >> 4) * 17,
        ),
        (b"P2\n%d %d\n1023\n" % (W, H) + b" ".join(b"%d" % (int(value) * 4) for value in GREY.ravel()) + b"\n", GREY),
        (b"P3\n%d %d\n255\n" % (W, H) + TEXT + b"\n", COLOURS),
        (b"P4\n%d %d\n" % (W, H) + np.packbits(GREY < 100, axis=1).tobytes(), np.where(GREY < 100, 0, 255)),
    ],
    ids=["ppm", "pgm", "16 bits", "10 bits", "12 bits", "4 bits", "text of 4", "text of 10", "text of 8", "pbm"],
)
def test_pnm_is_scaled_by_its_own_white(data: bytes, expected: np.ndarray) -> None:
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    assert np.abs(decode(data).astype(int) - expected).max() <= 1
    assert not is_whole(data[: len(data) // 2])


@pytest.mark.parametrize("kind", [b"P2 2 1 255 7 255", b"P2 2 1 65535 1799 65535", b"P3 2 1 255 7 7 7 255 255 255"])
def test_pnm_of_text_may_end_with_its_last_number(kind: bytes) -> None:
    assert np.array_equal(decode(kind), decode(kind + b"\n"))
    assert decode(kind).tolist() == [[[7] * 3, [255] * 3]]
    with pytest.raises(ImageError, match="is damaged"):
        decode(kind.rpartition(b" ")[0] + b"   ")


def test_opencv_says_nothing_of_a_damaged_picture(capfd: pytest.CaptureFixture[str]) -> None:
    (cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(5)
    with pytest.raises(ImageError, match="is damaged"):
        decode(b"P2 2 1 255 7   ")
    assert "ERROR" not in capfd.readouterr().err


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied(orientation: int, kind: str) -> None:
    """Also in OpenCV before 4.12, which reads that of JPEG alone."""
    block = PIL.Image.Exif()
    block[0x112] = orientation
    data = saved(COLOURS, kind, exif=block, **({"lossless": True} if kind == "WEBP" else {"quality": 100}))
    image = decode(data)
    assert image.shape == pil(data).shape
    assert np.abs(image.astype(int) - pil(data)).mean() < 6


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_stands_in_either_byte_order_and_beside_a_thumbnail(order: Order) -> None:
    data = saved(COLOURS, "JPEG", quality=100, exif=exif(6, thumbnail=THUMBNAIL, order=order))
    assert decode(data).shape == (W, H, 3)


def test_mask_is_turned_as_its_picture_is(tmp_path: Path) -> None:
    """A picture and a mask of the same turn agree; a mask without it has another size than what people see."""
    block = PIL.Image.Exif()
    block[0x112] = 6
    (tmp_path / "a.jpg").write_bytes(saved(COLOURS, "JPEG", exif=block))
    marked = np.zeros((H, W), np.uint8)
    marked[2:6, 30:38] = 255
    (tmp_path / "turned.png").write_bytes(saved(marked, "PNG", exif=block))
    (tmp_path / "seen.png").write_bytes(saved(np.ascontiguousarray(np.rot90(marked, -1)), "PNG"))
    (tmp_path / "stored.png").write_bytes(saved(marked, "PNG"))
    size = read_image(tmp_path / "a.jpg").shape[:2]
    assert size == (W, H)
    seen = read_mask(tmp_path / "seen.png", size=size)
    assert np.array_equal(seen, np.rot90(marked, -1) > 0)
    assert np.array_equal(read_mask(tmp_path / "turned.png", size=size), seen)
    with pytest.raises(ImageError, match=rf"is {H} x {W} .*its picture is {W} x {H}"):
        read_mask(tmp_path / "stored.png", size=size)


def sized(data: bytes, *places: tuple[str, int, int]) -> bytes:
    """The same with numbers written over: format, place, value."""
    changed = bytearray(data)
    for kind, place, value in places:
        struct.pack_into(kind, changed, place, value)
    return bytes(changed)


def _of_jpeg(rows: int, columns: int) -> bytes:
    data = saved(COLOURS, "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return sized(data, (">H", place, rows), (">H", place + 2, columns))


JP2 = saved(COLOURS, "JPEG2000")
SIZ = JP2.index(b"\xff\x4f\xff\x51")
ICONS = saved(COLOURS, "WEBP", lossless=True)
BOMBS = {
    "png": png((25_000, 25_000), b"", bits=1, colour=0),
    "png of 2^31": png((0x7FFFFFFF, 0x7FFFFFFF), b""),
    "png of 2^32": png((0xFFFFFFFF, 0xFFFFFFFF), b""),
    "jpeg": _of_jpeg(60_000, 60_000),
    "webp": sized(ICONS, ("<I", 21, (16_383 << 14 | 16_383))),
    "tiff": tiff(Page(GREY, size=(40_000, 40_000))),
    "tiff of huge tiles": tiff(dataclasses.replace(Page(GREY, tile=(32, 32)), tile=(32, 32), size=(1 << 31, 1 << 31))),
    "jpeg 2000": sized(JP2, (">I", SIZ + 8, 50_000), (">I", SIZ + 12, 50_000)),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "bmp": sized(saved(COLOURS, "BMP"), ("<i", 18, 40_000), ("<i", 22, 40_000)),
    "bmp upside down": sized(saved(COLOURS, "BMP"), ("<i", 18, 40_000), ("<i", 22, -40_000)),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bomb_is_refused_before_it_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.imdecode", None)
    with pytest.raises(ImageError):
        decode(BOMBS[kind])


def test_line_names_picture_size_limit_and_what_to_do(tmp_path: Path) -> None:
    # All of it is there, so nothing but its size speaks against it.
    rows = zlib.compress(bytes((25_000 // 8 + 1) * 25_000), 9)
    header = struct.pack(">IIBBBBB", 25_000, 25_000, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    said = r"bomb\.png announces 25000 x 25000 \(height x width\), expected at most 100 megapixels.*STLM_MAX_MEGAPIXELS"
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=said):
        read_mask(tmp_path / "bomb.png", size=None)


def test_limit_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pixel_limit() == 100_000_000
    monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, str(H * W / 1e6))
    assert np.array_equal(decode(PNG), COLOURS)
    monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, str((H * W - 1) / 1e6))
    with pytest.raises(ImageError, match=f"announces {H} x {W}"):
        decode(PNG)
    for value in ("0", "-1", "nan", "inf", "many", ""):
        monkeypatch.setenv(PIXEL_LIMIT_VARIABLE, value)
        with pytest.raises(ConfigError, match=r"STLM_MAX_MEGAPIXELS is .*, expected a number of megapixels above 0"):
            pixel_limit()


@pytest.mark.skipif(CRASHES, reason="refused with this OpenCV")
def test_components_beyond_four_are_refused() -> None:
    with pytest.raises(ImageError, match="has 16000 components"):
        decode(sized(JP2, (">H", SIZ + 40, 16_000)))


def test_long_picture_is_read_and_written_smaller_where_a_jpeg_ends(tmp_path: Path) -> None:
    long = np.repeat(COLOURS[:1, :2], 66_000, axis=0)
    data = png(long.shape[:2], png_rows(rgb(long)))
    assert np.array_equal(decode(data), long)
    write_image(tmp_path / "long.jpg", long)
    assert read_image(tmp_path / "long.jpg").shape[0] == 65_500


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "away.png").symlink_to(tmp_path / "nowhere")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ImageError, match=rf"{path.name} (is no file|cannot be read)"):
            read_image(path)


@pytest.mark.heavy
def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a.png")
        with pytest.raises(ImageError, match=r"a\.png cannot be read"):
            read_image(Path("a.png"))


def test_pages_are_told_once_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(tiff(Page(GREY), Page(255 - GREY)))
        read_image(tmp_path / name)
    said = [record.getMessage() for record in caplog.records if "MORE PAGES" in record.getMessage()]
    assert len(said) == 1
    assert "a.tif has 2 pages and the first is read" in said[0]


def test_mutated_files_are_read_or_refused() -> None:
    """`examine` and `decode` raise nothing else, whatever is in a file."""
    originals = [
        PNG,
        saved(NOISE, "JPEG", **WAYS["thumbnail-progressive"]),
        ICONS,
        JP2,
        saved(COLOURS, "BMP"),
        b"P6 %d %d 255\n" % (W, H) + RGB.tobytes(),
        tiff(Page(GREY), Page(GREY)),
        tiff(Page(RGB, photometric=2, tile=(32, 32)), order=">", big=True),
        *(saved(COLOURS, "TIFF", compression=way) for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
    ]
    draw = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        data = bytearray(draw.choice(originals))
        for _ in range(draw.choice((1, 2, 8))):
            place = draw.choice((draw.randrange(len(data)), draw.randrange(min(200, len(data)))))
            match draw.randrange(4):
                case 0:
                    data[place] ^= 1 << draw.randrange(8)
                case 1:
                    data[place : place + 4] = draw.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
                case 2:
                    del data[place : place + draw.randrange(1, 50)]
                case 3:
                    data[place:place] = draw.randbytes(draw.randrange(1, 50))
        try:
            decode(bytes(data))
            outcomes["read"] += 1
        except ImageError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50
