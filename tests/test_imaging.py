"""Reading, writing and resizing pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from stlm_edge.errors import ImageError, OutputError
from stlm_edge.imaging import read_image, resize, resize_map, to_input, write_image
from stlm_edge.plate.part import render_part
from stlm_edge.spec import ModelSpec
from tests.picture_files import write_deep

SPEC = ModelSpec(
    category="plate", architecture="stlm-tiny", input_size=(64, 128), map_size=(16, 32), weights_sha256="0" * 64
)


def picture(size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def pil_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """PIL's anti-aliased bilinear filter, which the authors use."""
    return np.asarray(PIL.Image.fromarray(image).resize(size[::-1], PIL.Image.Resampling.BILINEAR))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(np.float64) - second).mean())


@pytest.mark.parametrize("source", [(200, 200), (130, 65), (63, 500), (31, 31), (64, 64), (1, 1), (4097, 3)])
def test_constant_picture_stays_constant(source: tuple[int, int]) -> None:
    for value in (0, 93, 255):
        resized = resize(np.full((*source, 3), value, np.uint8), (64, 64))
        assert resized.shape == (64, 64, 3)
        assert np.all(resized == value)


def test_halving_takes_the_mean_of_four_pixels() -> None:
    image = picture((64, 96))
    mean = image.reshape(32, 2, 48, 2, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(resize(image, (32, 48)) - mean).max() <= 0.5


def test_quartering_halves_twice() -> None:
    image = picture((128, 64))
    assert np.array_equal(resize(image, (32, 16)), resize(resize(image, (64, 32)), (32, 16)))


def test_one_side_may_shrink_while_the_other_grows() -> None:
    rows = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[:, None, None], 20, axis=1).repeat(3, axis=2)
    resized = resize(rows, (30, 50))
    assert resized.shape == (30, 50, 3)
    assert np.all(resized == resized[:, :1])
    assert np.all(np.abs(resized[:, 0, 0] - (np.arange(30) * 8.0 + 3)) <= 1)


def test_picture_of_the_wanted_size_is_left_alone() -> None:
    image = picture((48, 32))
    assert np.array_equal(resize(image, (48, 32)), image)


def test_grey_picture_stays_grey() -> None:
    assert resize(picture((100, 60))[..., 0], (32, 32)).shape == (32, 32)


@pytest.mark.parametrize(("source", "limit"), [(768, 2.5), (512, 2.5), (400, 3.0), (192, 1.0)])
def test_resizing_stays_near_the_authors_filter(source: int, limit: float) -> None:
    image = render_part(np.random.default_rng(0), size=(source, source), defect=None).image
    assert distance(resize(image, (256, 256)), pil_resize(image, (256, 256))) < limit


def test_shrinking_three_times_is_nearer_to_the_authors_filter_than_plain_bilinear() -> None:
    image = render_part(np.random.default_rng(0), size=(768, 768), defect=None).image
    reference = pil_resize(image, (256, 256))
    plain = cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR)
    assert distance(resize(image, (256, 256)), reference) < 0.6 * distance(plain, reference)


def test_anomaly_map_is_interpolated_between_pixel_centres() -> None:
    resized = resize_map(np.array([[0.0, 1.0]], np.float32), (1, 4))
    assert resized.dtype == np.float32
    assert np.allclose(resized, [[0, 0.25, 0.75, 1]])


def test_input_has_the_size_of_the_specification() -> None:
    batch = to_input(picture((480, 640)), spec=SPEC)
    assert batch.shape == (1, 64, 128, 3)
    assert batch.dtype == np.uint8
    assert batch.flags.c_contiguous


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.int16),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
    ids=["one channel", "four channels", "float", "signed", "empty", "batch"],
)
def test_frame_of_wrong_shape_or_type_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"expected \(H, W, 3\), BGR, or \(H, W\), grey, as uint8 or uint16"):
        to_input(frame, spec=SPEC)


@pytest.mark.parametrize("size", [(480, 640), (64, 128), (97, 301), (40, 50)])
def test_grey_frame_is_the_input_that_training_has_of_a_grey_picture(size: tuple[int, int], tmp_path: Path) -> None:
    """Of 8 and of 16 bits, whether it is shrunk or enlarged."""
    deep = np.random.default_rng(0).integers(0, 1 << 16, size, np.uint16)
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), deep)
    trained = to_input(read_image(path), spec=SPEC)
    np.testing.assert_array_equal(to_input(deep, spec=SPEC), trained)
    np.testing.assert_array_equal(to_input((deep >> 8).astype(np.uint8), spec=SPEC), trained)
    colour = np.repeat(deep[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(to_input(colour, spec=SPEC), trained)


def test_picture_comes_back_as_written(tmp_path: Path) -> None:
    image = picture((20, 30))
    write_image(tmp_path / "new" / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), image)


def test_grey_is_repeated_in_three_channels(tmp_path: Path) -> None:
    grey = picture((20, 30))[..., 0]
    write_image(tmp_path / "a.png", grey)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4], ids=["grey", "colour", "transparent"])
def test_16_bits_are_scaled_by_the_range_of_the_format(tmp_path: Path, suffix: str, channels: int) -> None:
    row = np.array([0, 255, 256, 25600, 32768, 65535], np.uint16)
    deep = np.stack([row, row[::-1], row // 2, row], axis=1)[None, :, :channels]
    path = write_deep(tmp_path / f"a{suffix}", deep)
    expected = np.repeat(deep, 3, axis=2) if channels == 1 else deep[..., :3]
    assert np.array_equal(read_image(path), expected // 256)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bits_in_the_lower_bits_are_almost_black_and_one_warning_says_so(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are not stretched: a scale taken from the picture would make a part's pixels depend on what is beside it."""
    deep = np.array([[0, 2048, 4095]], np.uint16)
    paths = [write_deep(tmp_path / f"{index}{suffix}", deep) for index in range(3)]
    assert [read_image(path)[0, :, 0].tolist() for path in paths] == [[0, 8, 15]] * 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "ALMOST BLACK" in said[0]
    assert "4095 of 65535" in said[0]


def test_16_bits_that_are_used_give_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_image(write_deep(tmp_path / "a.png", np.array([[0, 4096]], np.uint16)))
    write_image(tmp_path / "dark.png", np.full((2, 2, 3), 5, np.uint8))
    read_image(tmp_path / "dark.png")
    assert caplog.text == ""


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    palette = PIL.Image.new("P", (3, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0, 10, 20, 30])
    palette.putdata([2, 1, 0])
    palette.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[30, 20, 10], [0, 0, 255], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("mode", "pixels", "expected"),
    [("1", [0, 255], [0, 255]), ("L", [7, 200], [7, 200]), ("LA", [(7, 0), (200, 255)], [7, 200])],
)
def test_grey_of_every_kind_is_read_as_it_is(tmp_path: Path, mode: str, pixels: list, expected: list[int]) -> None:
    image = PIL.Image.new(mode, (2, 1))
    image.putdata(pixels)
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[value] * 3 for value in expected]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_are_refused_with_their_name(tmp_path: Path, dtype: type) -> None:
    path = write_deep(tmp_path / "a.tif", np.ones((4, 4), dtype))
    with pytest.raises(ImageError, match=rf"holds {np.dtype(dtype)} pixels, expected 8 or 16 bits; convert it"):
        read_image(path)


def test_transparency_is_dropped(tmp_path: Path) -> None:
    image = np.dstack([picture((5, 6)), np.zeros((5, 6), np.uint8)])
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image[..., :3])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_picture_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, picture((64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match="empty, truncated, damaged or not a picture"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png is empty, truncated, damaged or not a picture"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"GIF89a\1\0\1\0", "a GIF"), (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF or AVIF")]
)
@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_picture_of_a_kind_that_is_not_read_is_to_be_converted(
    tmp_path: Path, content: bytes, kind: str, suffix: str
) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\{suffix} is {kind}, which is not read here; convert it to PNG"):
        read_image(tmp_path / f"a{suffix}")


def test_missing_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png cannot be read"):
        read_image(tmp_path / "nowhere.png")


def test_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        write_image(tmp_path / "file" / "a.png", picture((4, 4)))


def test_suffix_that_no_picture_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="suffix"):
        write_image(tmp_path / "a.xyz", picture((4, 4)))
