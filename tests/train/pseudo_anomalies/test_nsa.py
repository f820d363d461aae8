"""Natural synthetic anomalies as their authors define them."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import train.pseudo_anomalies.nsa
from stlm_edge.plate.part import render_part
from tests.conftest import GOLDEN
from train.paper.data_sets import MVTEC
from train.pseudo_anomalies.nsa import OF_CATEGORIES, Nsa, half_side, natural_patches, resized

SIDES = ("height", "width")


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    return [render_part(rng, size=(256, 256), defect=None).image for _ in range(2)]


def on_white(shift: int) -> np.ndarray:
    """A structured dark disc on a white background."""
    rng = np.random.default_rng(shift)
    picture = np.full((256, 256, 3), 230, np.uint8)
    rough = cv2.GaussianBlur(rng.normal(0, 1, (256, 256)), (0, 0), 4)
    level = np.clip(80 + 25 * rough / rough.std(), 20, 120).astype(np.uint8)[:, :, None]
    disc = cv2.circle(np.zeros((256, 256), np.uint8), (128 + shift, 128), 70, (1,), cv2.FILLED)
    return np.where(disc[:, :, None] == 1, level, picture)


def test_every_category_of_mvtec_has_its_own_settings():
    assert set(OF_CATEGORIES) == set(MVTEC)


def test_sides_follow_a_gamma_distribution_within_bounds():
    rng = np.random.default_rng(1)
    sides = np.array([half_side(rng, 1000, (0.03, 0.4)) for _ in range(4000)])
    assert (sides.min(), sides.max()) >= (30, 200)
    assert sides.max() <= 400
    assert abs(sides.mean() - 130) < 5  # offset, and shape times scale
    assert set(np.unique([half_side(rng, 1000, (0.03, 0.12)) for _ in range(200)])[[0, -1]]) <= set(range(30, 121))


def test_patches_are_resized_and_keep_their_aspect():
    rng = np.random.default_rng(2)
    sizes = np.array([resized(rng, (200, 100), (1000, 1000), OF_CATEGORIES["tile"]) for _ in range(500)])
    assert (sizes[:, 0].min(), sizes[:, 0].max()) == (100, 400)
    assert np.abs(sizes[:, 0] / sizes[:, 1] - 2).max() < 0.1
    assert max(resized(rng, (800, 800), (1000, 1000), Nsa())) <= 400


@pytest.mark.parametrize("nsa", [Nsa(), OF_CATEGORIES["wood"]])
def test_label_is_where_the_picture_changed_by_more_than_a_grey_level(parts, nsa):
    rng = np.random.default_rng(3)
    for _ in range(10):
        before = parts[0].copy()
        image, mask = natural_patches(rng, parts[0], parts[1], nsa)
        assert np.array_equal(parts[0], before)
        change = cv2.absdiff(image, parts[0]).mean(axis=2)
        assert mask.any()
        assert np.mean(change[mask == 1] > 1) > 0.95  # the median fills and rounds
        assert np.mean(change[mask == 0] > 1) < 0.05


def test_object_masks_keep_anomalies_at_objects():
    rng = np.random.default_rng(4)
    normal, other = on_white(0), on_white(6)
    part = (normal.mean(axis=2) < 140).astype(np.uint8)
    labels = [natural_patches(rng, normal, other, OF_CATEGORIES["bottle"])[1] for _ in range(20)]
    assert sum(label.any() for label in labels) >= 15
    assert all((label & part).any() for label in labels if label.any())
    shares = [np.mean(part[label == 1]) for label in labels if label.any()]
    assert np.mean(shares) > 0.6  # of which at least a quarter of a patch's object is sure
    blank = np.full_like(normal, 200)
    assert not natural_patches(rng, blank, other, OF_CATEGORIES["bottle"])[1].any()


def test_nothing_changes_where_like_comes_upon_like():
    flat = np.full((64, 64, 3), 128, np.uint8)
    image, mask = natural_patches(np.random.default_rng(5), flat, flat, Nsa())
    assert np.array_equal(image, flat)
    assert not mask.any()


@pytest.mark.parametrize("size", [(32, 32), (64, 33), (33, 1024)])
def test_patches_fit_into_pictures_of_any_size(size):
    rng = np.random.default_rng(6)
    picture = rng.integers(0, 256, (*size, 3), np.uint8)
    for nsa in OF_CATEGORIES.values():
        for _ in range(5):
            image, mask = natural_patches(rng, picture, picture[::-1].copy(), nsa)
            assert (image.shape, mask.shape) == (picture.shape, size)


@pytest.mark.heavy
@pytest.mark.parametrize("category", ["transistor", "wood", "bottle"])
def test_patches_and_labels_are_distributed_as_the_authors(category, parts, monkeypatch):
    golden = json.loads((GOLDEN / "nsa.json").read_text())
    wanted, nsa = golden[category], OF_CATEGORIES[category]
    pictures = [on_white(0), on_white(20)] if category == "bottle" else parts
    places = []

    def placed(*arguments):
        found = paste(*arguments)
        places.extend([] if found is None else [found[1]])
        return found

    paste = train.pseudo_anomalies.nsa._paste
    monkeypatch.setattr(train.pseudo_anomalies.nsa, "_paste", placed)
    rng, counts, labels = np.random.default_rng(5), [], []
    for _ in range(400):
        before = len(places)
        labels.append(natural_patches(rng, *pictures, nsa)[1].mean())
        counts.append(len(places) - before)
    sides = {name: [place[axis].stop - place[axis].start for place in places] for axis, name in enumerate(SIDES)}
    for name in SIDES:
        assert np.quantile(sides[name], golden["quantiles"]) == pytest.approx(wanted[name], rel=0.12), name
    assert np.quantile(labels, golden["quantiles"]) == pytest.approx(wanted["label"], rel=0.2)
    assert np.mean(labels) == pytest.approx(wanted["label_mean"], rel=0.12)
    shares = np.array(wanted["patches"]) / sum(wanted["patches"])
    assert np.bincount(counts, minlength=len(shares)) / 400 == pytest.approx(shares, abs=0.08)
