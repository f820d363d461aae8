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


def write_deep(path: Path, pixels: np.ndarray) -> Path:
    """Write pixels of any depth."""
    done, data = cv2.imencode(path.suffix, pixels)
    assert done
    path.write_bytes(data.tobytes())
    return path


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
