from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.drawing import contact_sheet, draw_regions, draw_text, heat_map, mark_peak, own_scale, text_width

GREY = np.full((80, 120, 3), 90, np.uint8)


def map_with_spot(value: float, *, elsewhere: float = 0.0) -> np.ndarray:
    anomaly_map = np.full(GREY.shape[:2], elsewhere, np.float32)
    anomaly_map[20:40, 30:60] = value
    return anomaly_map


def test_heat_map_leaves_calm_areas_and_its_arguments_alone() -> None:
    image, anomaly_map = GREY.copy(), map_with_spot(0.9, elsewhere=0.2)
    drawn = heat_map(image, anomaly_map, threshold=0.5)
    assert (drawn[20:40, 30:60] != GREY[20:40, 30:60]).any(axis=-1).all()
    np.testing.assert_array_equal(drawn[50:], GREY[50:])
    np.testing.assert_array_equal(image, GREY)


def test_heat_map_of_a_good_part_is_the_picture() -> None:
    np.testing.assert_array_equal(heat_map(GREY, map_with_spot(0.1), threshold=0.5), GREY)


def test_heat_map_is_redder_the_more_anomalous() -> None:
    redness = [
        int(drawn[30, 45, 2]) - int(drawn[30, 45, 0])
        for drawn in (heat_map(GREY, map_with_spot(value), threshold=0.5) for value in (0.4, 0.6, 0.8))
    ]
    assert redness == sorted(redness)
    assert redness[-1] > 100


def test_heat_map_depends_on_the_value_and_not_on_the_rest_of_the_picture() -> None:
    alone = heat_map(GREY, map_with_spot(0.6), threshold=0.5)
    beside = map_with_spot(0.6)
    beside[60:70, 60:70] = 1.0
    np.testing.assert_array_equal(heat_map(GREY, beside, threshold=0.5)[:50], alone[:50])


@pytest.mark.parametrize("threshold", [-0.1, 0.0, 0.001, 0.999, 1.0, 2.0])
def test_heat_map_takes_any_threshold(threshold: float) -> None:
    assert heat_map(GREY, map_with_spot(0.9), threshold=threshold).shape == GREY.shape


def test_regions_are_outlined_from_the_threshold_on() -> None:
    np.testing.assert_array_equal(draw_regions(GREY, map_with_spot(0.4), threshold=0.5), GREY)
    drawn = draw_regions(GREY, map_with_spot(0.5), threshold=0.5, colour=(0, 0, 255))
    np.testing.assert_allclose(drawn[20, 45], [0, 0, 255], atol=32)  # anti-aliased
    assert drawn[30, 45].tolist() == [90, 90, 90]


def test_text_takes_the_width_that_was_measured() -> None:
    image = np.zeros((60, 600, 3), np.uint8)
    draw_text(image, "score 0.912", left=10, baseline=40, height=20, colour=(255, 255, 255))
    columns = np.flatnonzero(image.any(axis=(0, 2)))
    rows = np.flatnonzero(image.any(axis=(1, 2)))
    assert columns[-1] - 10 <= text_width("score 0.912", height=20) + 4
    assert 15 <= rows[-1] - rows[0] <= 28


def test_contact_sheet_fits_pictures_of_any_size_into_its_cells() -> None:
    wide = np.full((100, 400, 3), (255, 0, 0), np.uint8)
    tall = np.full((400, 100, 3), (0, 255, 0), np.uint8)
    sheet = contact_sheet(
        [[wide, tall], [tall, wide]], titles=["a", "b"], captions=["good", "scratch\n0.91"], cell=(80, 80)
    )
    blue, green = ((sheet == colour).all(axis=-1) for colour in ((255, 0, 0), (0, 255, 0)))
    assert blue.sum() == 2 * 80 * 20
    assert green.sum() == 2 * 20 * 80


def test_contact_sheet_without_rows_has_its_titles() -> None:
    sheet = contact_sheet([], titles=["picture"], captions=[])
    assert (sheet < 100).any()


@pytest.mark.parametrize(
    ("titles", "captions"),
    [(["a"], ["x"]), (["a", "b"], ["x", "y"])],
)
def test_contact_sheet_with_a_wrong_number_of_titles_or_captions(titles: list[str], captions: list[str]) -> None:
    with pytest.raises(ValueError, match="zip"):
        contact_sheet([[GREY, GREY]], titles=titles, captions=captions)


def test_own_scale_shows_where_a_calm_map_is_highest() -> None:
    calm, loud = map_with_spot(0.02, elsewhere=0.01), map_with_spot(0.9, elsewhere=0.1)
    np.testing.assert_array_equal(own_scale(calm), own_scale(loud))
    spot, rest = own_scale(calm)[30, 45].astype(int), own_scale(calm)[60, 10].astype(int)
    assert spot[2] - spot[0] > 100 > rest[2] - rest[0]  # yellow and dark blue
    assert len(np.unique(own_scale(map_with_spot(0.5, elsewhere=0.5)).reshape(-1, 3), axis=0)) == 1


def test_cross_stands_where_the_map_is_highest() -> None:
    anomaly_map = map_with_spot(0.4)
    anomaly_map[60, 100] = 0.5
    drawn = mark_peak(GREY, anomaly_map)
    changed = np.argwhere((drawn != GREY).any(axis=-1))
    assert changed.mean(axis=0) == pytest.approx([60, 100], abs=1)
    assert np.ptp(changed, axis=0).max() < 20
