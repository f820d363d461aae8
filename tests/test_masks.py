"""Masks of every kind that people bring: read as they were meant, or refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from stlm_edge.errors import ImageError
from stlm_edge.imaging import write_image
from stlm_edge.masks import read_mask
from tests.picture_files import write_deep


def test_mask_is_cut_at_half_of_its_range(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[0, 1, 127, 128, 255]], np.uint8))
    mask = read_mask(tmp_path / "a.png", size=(1, 5))
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_mask_of_16_bits_is_cut_at_half_of_its_range(tmp_path: Path, suffix: str) -> None:
    path = write_deep(tmp_path / f"a{suffix}", np.array([[0, 255, 32767, 32768, 65535]], np.uint16))
    assert read_mask(path, size=(1, 5)).tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_class_number_is_a_defect(tmp_path: Path, dtype: type) -> None:
    path = write_deep(tmp_path / "a.png", np.array([[0, 1, 2, 9, 255]], dtype))
    assert read_mask(path, size=(1, 5), of_classes=True).tolist() == [[0, 1, 1, 1, 1]]


def test_class_numbers_with_a_palette_are_defects(tmp_path: Path) -> None:
    mask = PIL.Image.new("P", (4, 1))
    mask.putpalette([0, 0, 0, 0, 0, 1, 0, 128, 0, 128, 0, 0])
    mask.putdata([0, 1, 2, 3])
    mask.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", size=(1, 4), of_classes=True).tolist() == [[0, 1, 1, 1]]


def test_mask_painted_in_a_colour_counts_by_its_brightest_channel(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[[0, 0, 255], [0, 255, 0], [100, 100, 100]]], np.uint8))
    assert read_mask(tmp_path / "a.png", size=(1, 3)).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(("dtype", "value", "whole"), [(np.uint8, 1, 255), (np.uint16, 255, 65535)])
def test_mask_that_would_show_no_defect_for_its_scale_is_refused(
    tmp_path: Path, dtype: type, value: int, whole: int
) -> None:
    path = write_deep(tmp_path / "a.png", np.array([[0, value]], dtype))
    with pytest.raises(ImageError, match=rf"values up to {value} and none above half of {whole}.*scale it"):
        read_mask(path, size=(1, 2))


def test_black_mask_shows_no_defect(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((1, 2), np.uint8))
    assert not read_mask(tmp_path / "a.png", size=(1, 2)).any()


def test_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((10, 20), np.uint8))
    with pytest.raises(ImageError, match=r"10 x 20 \(height x width\).*30 x 40 \(height x width\)"):
        read_mask(tmp_path / "a.png", size=(30, 40))


SIZE = (64, 80)


def spot(value: int = 255, *, dtype: type = np.uint8) -> np.ndarray:
    mask = np.zeros(SIZE, dtype)
    mask[20:40, 30:60] = value
    return mask


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".TIFF", ".bmp", ".jpg", ".JPEG"])
def test_mask_of_any_format_shows_the_same(tmp_path: Path, suffix: str) -> None:
    assert np.array_equal(read_mask(write_deep(tmp_path / f"a{suffix}", spot()), size=SIZE), spot(1))


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 255)])
def test_noise_of_jpeg_beside_an_edge_is_neither_a_defect_nor_an_error(
    tmp_path: Path, quality: int, colour: tuple[int, int, int]
) -> None:
    mask = np.zeros((*SIZE, 3), np.uint8)
    cv2.line(mask, (5, 9), (70, 50), colour, 3)
    cv2.circle(mask, (60, 20), 9, colour, -1)
    done, data = cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    assert cv2.imdecode(data, cv2.IMREAD_COLOR)[mask.max(axis=2) == 0].any()  # there is noise
    (tmp_path / "a.jpg").write_bytes(data.tobytes())
    wanted = np.count_nonzero(mask.max(axis=2))
    assert np.count_nonzero(read_mask(tmp_path / "a.jpg", size=SIZE)) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7, 2, 3, 4])
@pytest.mark.parametrize("method", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_soft_edges_are_cut_at_half(tmp_path: Path, factor: float, method: int) -> None:
    mask = spot()
    cv2.circle(mask, (20, 30), 9, 255, -1)
    soft = cv2.resize(mask, None, fx=factor, fy=factor, interpolation=method)
    assert len(np.unique(soft)) > 2
    write_image(tmp_path / "a.png", soft)
    assert np.array_equal(read_mask(tmp_path / "a.png", size=None), soft > 127)


def test_lines_drawn_smoothly_are_defects_where_they_are_bright(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    cv2.line(mask, (5, 9), (70, 50), 255, 2, cv2.LINE_AA)
    write_image(tmp_path / "a.png", mask)
    assert np.array_equal(read_mask(tmp_path / "a.png", size=SIZE), mask > 127)


@pytest.mark.parametrize(("levels", "doubtful"), [((64, 128, 255), "64"), ((1, 255), "1"), ((85, 170, 255), "85")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_several_levels_of_grey_are_refused_with_them(
    tmp_path: Path, levels: tuple[int, ...], doubtful: str, dtype: type, suffix: str
) -> None:
    mask = np.zeros(SIZE, dtype)
    for index, level in enumerate(levels):
        mask[10:50, 5 + 24 * index : 25 + 24 * index] = level if dtype is np.uint8 else level * 257
    named = doubtful if dtype is np.uint8 else str(int(doubtful) * 257)
    path = write_deep(tmp_path / f"a{suffix}", mask)
    with pytest.raises(ImageError, match=rf"a{suffix} has 800 pixels of grey \({named} of .*save it as PNG"):
        read_mask(path, size=SIZE)


@pytest.mark.parametrize("quality", [50, 95])
@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("grey", [20, 85, 170])
def test_grey_area_beside_a_white_one_is_refused_in_formats_with_losses_too(
    tmp_path: Path, grey: int, suffix: str, quality: int
) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[30:55, 30:60], mask[30:55, 60:74] = 255, grey
    flag = cv2.IMWRITE_JPEG_QUALITY if suffix == ".jpg" else cv2.IMWRITE_WEBP_QUALITY
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), mask, [flag, quality])
    with pytest.raises(ImageError, match=r"pixels of grey .* beside bright ones, which may be defects or not"):
        read_mask(tmp_path / f"a{suffix}", size=mask.shape)


def test_background_that_is_not_black_is_refused(tmp_path: Path) -> None:
    for background in ((90, 1, 60), (100, 100, 100), (1, 1, 1)):
        image = np.full((*SIZE, 3), background, np.uint8)
        image[20:40, 30:60] = 255
        write_image(tmp_path / "a.png", image)
        with pytest.raises(ImageError, match="pixels of grey"):
            read_mask(tmp_path / "a.png", size=SIZE)


def with_transparency(path: Path, *, colour: np.ndarray, alpha: np.ndarray) -> Path:
    return write_deep(path, np.dstack([colour, colour, colour, alpha]))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("value", [0, 255])
def test_mask_that_is_in_its_transparency_alone_is_refused(tmp_path: Path, suffix: str, value: int) -> None:
    """Its colours alone would show no defect, or nothing else."""
    path = with_transparency(tmp_path / f"a{suffix}", colour=np.full(SIZE, value, np.uint8), alpha=spot())
    with pytest.raises(ImageError, match=r"transparency \(600 opaque pixels\) than in its colours \((0|5120) bright"):
        read_mask(path, size=SIZE)


@pytest.mark.parametrize("alpha", [spot(), spot(128), np.full(SIZE, 255, np.uint8), np.zeros(SIZE, np.uint8)])
def test_transparency_that_agrees_or_says_nothing_is_passed_over(tmp_path: Path, alpha: np.ndarray) -> None:
    path = with_transparency(tmp_path / "a.png", colour=spot(), alpha=alpha)
    assert np.array_equal(read_mask(path, size=SIZE), spot(1))


def test_class_numbers_in_a_format_with_losses_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", spot(3))
    with pytest.raises(ImageError, match=r"a\.jpg holds numbers of classes in a format that changes them"):
        read_mask(tmp_path / "a.jpg", size=SIZE, of_classes=True)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")  # whatever it is called
    with pytest.raises(ImageError, match=r"a\.png holds numbers of classes in a format that changes them"):
        read_mask(tmp_path / "a.png", size=SIZE, of_classes=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_mask_of_any_mode_shows_the_same(tmp_path: Path, mode: str) -> None:
    image = PIL.Image.fromarray(spot())
    image = PIL.Image.fromarray(spot(65535, dtype=np.uint16)) if mode == "I;16" else image.convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png", size=SIZE), spot(1))
