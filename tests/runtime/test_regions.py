"""Boxes around what reaches the threshold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.regions import MOST_REGIONS, Region, find_regions
from stlm_edge.imaging import Map, resize_map
from stlm_edge.spec import Size


def blank(size: Size = (40, 60)) -> Map:
    return np.zeros(size, np.float32)


def anomaly(network_map: Map, *, frame_size: Size, threshold: float = 0.5) -> Anomaly:
    return Anomaly(0.0, False, network_map, frame_size, Latency(0, 0, 0, 0, 0), threshold)


def test_regions_have_box_area_and_peak_and_the_highest_comes_first() -> None:
    found = blank()
    found[3:6, 10:14] = 0.6
    found[20, 50] = 0.9
    found[30:32, 0] = (0.5, 0.7)
    found[39, 59] = 0.499
    assert find_regions(found, frame_size=(40, 60), threshold=0.5) == (
        Region(left=50, top=20, width=1, height=1, area=1, peak=pytest.approx(0.9)),
        Region(left=0, top=30, width=1, height=2, area=2, peak=pytest.approx(0.7)),
        Region(left=10, top=3, width=4, height=3, area=12, peak=pytest.approx(0.6)),
    )


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    found = blank()
    found[4, 4], found[5, 5], found[7, 7] = 0.8, 0.6, 0.7
    regions = find_regions(found, frame_size=(40, 60), threshold=0.5)
    assert [(region.left, region.width, region.area) for region in regions] == [(4, 2, 2), (7, 1, 1)]


def test_where_nothing_reaches_the_threshold_there_is_no_region() -> None:
    assert find_regions(blank(), frame_size=(1080, 1920), threshold=0.5) == ()


def test_coarse_map_reaches_the_threshold_in_the_frame_just_where_the_enlarged_one_does() -> None:
    """Of sizes that no factor joins, also smaller than the map, and with regions at all borders."""
    rng = np.random.default_rng(0)
    for frame_size in [(480, 640), (33, 47), (64, 64), (10, 7), (101, 16), (1, 1), (64, 300)]:
        for _ in range(8):
            coarse = rng.random((16, 24), dtype=np.float32) ** 6
            enlarged = resize_map(coarse, frame_size)
            regions = find_regions(coarse, frame_size=frame_size, threshold=0.4)
            assert sum(region.area for region in regions) == np.count_nonzero(enlarged >= 0.4)
            for region in regions:
                rows = slice(region.top, region.top + region.height)
                columns = slice(region.left, region.left + region.width)
                reached = enlarged[rows, columns] >= 0.4
                assert reached.any(axis=1).all()
                assert reached.any(axis=0).all()
                assert np.isclose(enlarged[rows, columns], region.peak, atol=1e-6, rtol=0).any()
            if regions:
                assert regions[0].peak == pytest.approx(float(enlarged.max()), abs=1e-6)


def test_small_regions_far_from_each_other_are_those_of_the_enlarged_map() -> None:
    """So few that only parts of the frame are made, some of them in each other's boxes."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        coarse = np.zeros((64, 64), np.float32)
        for row, column in rng.integers(0, 64, (4, 2)):
            coarse[row, column] = rng.uniform(0.6, 1)
            coarse[row, max(0, column - 3)] = rng.uniform(0.5, 1)
        diagonal = int(rng.integers(0, 56))
        coarse[range(diagonal, diagonal + 8), range(4, 12)] = 0.9  # its box holds more than itself
        coarse[diagonal, 11] = 0.8
        wanted = find_regions(resize_map(coarse, (700, 900)), frame_size=(700, 900), threshold=0.4)
        found = find_regions(coarse, frame_size=(700, 900), threshold=0.4)
        by_place = [sorted(regions, key=lambda r: (r.top, r.left, r.width)) for regions in (found, wanted)]
        for one, other in zip(*by_place, strict=True):
            assert dataclasses.replace(one, peak=0) == dataclasses.replace(other, peak=0)
            assert one.peak == pytest.approx(other.peak, abs=1e-6)


def test_regions_are_cut_where_nothing_is_inspected() -> None:
    found = blank()
    found[10:20, 10:20] = 0.8
    found[12, 30] = 0.9
    inspected = np.zeros((40, 60), np.uint8)
    inspected[:15, :25] = 1
    assert find_regions(found, frame_size=(40, 60), threshold=0.5, inspected=inspected) == (
        Region(left=10, top=10, width=10, height=5, area=50, peak=pytest.approx(0.8)),
    )


def test_so_many_regions_are_kept_at_most_and_they_are_the_highest() -> None:
    found = blank((60, 60))
    found[::2, ::2] = np.linspace(0.5, 1, 900, dtype=np.float32).reshape(30, 30)
    regions = find_regions(found, frame_size=(60, 60), threshold=0.5)
    assert len(regions) == MOST_REGIONS
    peaks = [region.peak for region in regions]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] == 1
    assert peaks[-1] == pytest.approx(np.linspace(0.5, 1, 900)[-MOST_REGIONS])


def test_anomaly_finds_its_regions_once() -> None:
    coarse = blank((4, 6))
    coarse[2, 3] = 1
    found = anomaly(coarse, frame_size=(40, 60))
    (region,) = found.regions
    assert found.regions is found.regions
    assert (region.left + region.width / 2, region.top + region.height / 2) == (35, 25)
    assert region.peak == found.anomaly_map.max()
    assert region.area == np.count_nonzero(found.anomaly_map >= 0.5)


def test_frame_below_the_threshold_has_no_region_and_is_not_enlarged() -> None:
    found = anomaly(blank((4, 6)), frame_size=(1 << 40, 1 << 40))  # no machine could
    assert found.regions == ()


def test_higher_threshold_gives_smaller_regions() -> None:
    coarse = blank((4, 6))
    coarse[2, 3] = 1
    low, high = (anomaly(coarse, frame_size=(40, 60), threshold=t).regions[0].area for t in (0.3, 0.9))
    assert high < low
    assert dataclasses.replace(anomaly(coarse, frame_size=(40, 60)), threshold=1.1).regions == ()
