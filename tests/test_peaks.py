"""Whether a map is highest where the defect is, at any size of map, mask and input."""

from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.peaks import REACH, peak_in_mask

INPUT = (64, 96)


def with_peak(row: int, column: int, *, size: tuple[int, int] = INPUT) -> np.ndarray:
    anomaly_map = np.zeros(size, np.float32)
    anomaly_map[row, column] = 1
    return anomaly_map


def with_mark(row: int, column: int, *, size: tuple[int, int] = INPUT) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[row, column] = 1
    return mask


@pytest.mark.parametrize(("beside", "is_marked"), [(0, True), (REACH - 1, True), (REACH + 1, False)])
@pytest.mark.parametrize("way", [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)])
def test_peak_may_lie_half_a_cell_beside_the_mask(beside: int, is_marked: bool, way: tuple[int, int]) -> None:
    mask = with_mark(32 + way[0] * beside, 48 + way[1] * beside)
    assert peak_in_mask(with_peak(32, 48), mask, input_size=INPUT) == is_marked


def test_peak_of_a_coarse_map_counts_where_its_cell_touches_the_mask() -> None:
    coarse = with_peak(1, 2, size=(4, 6))  # the cell of rows 16 to 31 and columns 32 to 47
    for row, column, is_marked in ((16, 32, True), (31, 47, True), (15, 40, False), (32, 40, False), (20, 48, False)):
        assert peak_in_mask(coarse, with_mark(row, column), input_size=INPUT) == is_marked


def test_reach_is_that_of_the_input_and_not_of_the_picture() -> None:
    large = (640, 960)
    assert peak_in_mask(with_peak(32, 48), with_mark(325 + 70, 485, size=large), input_size=INPUT)
    assert not peak_in_mask(with_peak(32, 48), with_mark(325 + 90, 485, size=large), input_size=INPUT)
    assert peak_in_mask(with_peak(3, 5, size=(4, 6)), with_mark(0, 0, size=(1, 1)), input_size=INPUT)


def test_of_equally_high_pixels_any_will_do() -> None:
    anomaly_map = with_peak(2, 2) + with_peak(60, 90)
    assert peak_in_mask(anomaly_map, with_mark(60, 90), input_size=INPUT)
    assert not peak_in_mask(anomaly_map, with_mark(32, 48), input_size=INPUT)


def test_nothing_is_said_where_nothing_is_marked() -> None:
    for mask in (None, np.zeros(INPUT, np.uint8)):
        assert peak_in_mask(with_peak(2, 2), mask, input_size=INPUT) is None
