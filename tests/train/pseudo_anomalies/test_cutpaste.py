"""CutPaste: what is pasted, how large, and that the mask is exactly that."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from train.pseudo_anomalies import cutpaste
from train.pseudo_anomalies.cutpaste import cutpaste_patch, cutpaste_scar, cutpaste_union, jitter

KINDS = (cutpaste_patch, cutpaste_scar, cutpaste_union)


@pytest.fixture(scope="module")
def picture():
    """Every pixel has another colour, so that it is known where it came from."""
    rows, columns = np.mgrid[0:200, 0:250]
    return np.stack((rows, columns, (rows + columns) // 2), axis=2).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_picture_changes_where_the_mask_is_and_nowhere_else(picture, kind):
    rng = np.random.default_rng(0)
    before = picture.copy()
    for _ in range(30):
        image, mask = kind(rng, picture)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1}
        changed = (image != picture).any(axis=2)
        assert not changed[mask == 0].any()
        assert changed[mask == 1].mean() > 0.9
    assert np.array_equal(picture, before)


def test_patches_have_the_sizes_of_the_publication(picture):
    rng = np.random.default_rng(1)
    areas, aspects = [], []
    for _ in range(200):
        _, mask = cutpaste_patch(rng, picture)
        _, _, width, height = cv2.boundingRect(mask)
        assert mask.sum() == width * height
        areas.append(mask.mean())
        aspects.append(width / height)
    assert 0.019 < min(areas) < 0.03
    assert 0.14 < max(areas) < 0.151
    assert 0.29 < min(aspects) < 0.4
    assert 2.6 < max(aspects) < 3.4
    assert 70 < np.count_nonzero(np.array(aspects) > 1) < 130


@pytest.mark.parametrize("side", [256, 512])
def test_scars_are_turned_rectangles_of_the_publications_sizes(side):
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (side, side, 3), np.uint8)
    scale = side / 256
    sizes = []
    for _ in range(200):
        _, mask = cutpaste_scar(rng, picture)
        assert cv2.connectedComponents(mask)[0] == 2
        (_, extent, _) = cv2.minAreaRect(np.argwhere(mask).astype(np.float32))
        sizes.append(sorted(extent))
        assert mask.sum() == pytest.approx((extent[0] + 1) * (extent[1] + 1), rel=0.35, abs=8)
    short, long = np.array(sizes).T + 1
    assert short.max() < 18 * scale
    assert 8 * scale < long.min()
    assert 20 * scale < long.max() < 28 * scale


def test_what_is_pasted_was_elsewhere_in_the_picture(picture, monkeypatch):
    monkeypatch.setattr(cutpaste, "jitter", lambda _, patch: patch)
    image, mask = cutpaste_patch(np.random.default_rng(3), picture)
    left, top, width, height = cv2.boundingRect(mask)
    pasted = image[top : top + height, left : left + width].astype(int)
    from_top, from_left = pasted[0, 0, 0], pasted[0, 0, 1]
    assert (from_top, from_left) != (top, left)
    source = picture[from_top : from_top + height, from_left : from_left + width]
    assert np.array_equal(pasted, source)


def test_colours_change_a_little_and_grey_stays_grey(picture):
    rng = np.random.default_rng(4)
    grey = np.repeat(picture[:, :, :1], 3, axis=2)
    for _ in range(20):
        changed = jitter(rng, grey).astype(int)
        assert np.ptp(changed, axis=2).max() == 0
        assert np.abs(changed - grey).max() <= 0.25 * 255
    red = np.full((8, 8, 3), (0, 0, 200), np.uint8)
    hues = [int(cv2.cvtColor(jitter(rng, red), cv2.COLOR_BGR2HSV)[0, 0, 0]) for _ in range(50)]
    assert all(hue <= 18 or hue >= 162 for hue in hues)  # 36 degrees, of OpenCV's 180
    assert len(set(hues)) > 10


@pytest.mark.parametrize("size", [(32, 32), (64, 33), (33, 1024)])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_any_size_will_do(size, kind):
    rng = np.random.default_rng(5)
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(50):
        image, mask = kind(rng, picture)
        assert image.shape == picture.shape
        assert mask.shape == size
        assert mask.any()


def test_union_is_either(picture):
    rng = np.random.default_rng(6)
    shares = [cutpaste_union(rng, picture)[1].mean() for _ in range(100)]
    assert 35 < sum(share > 0.015 for share in shares) < 65
