"""Turning pictures, which category gets which rotation, and other light."""

from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.errors import ConfigError
from train.augment import AS_THEY_ARE, FILL, MVTEC, Variation, expose, rotate, rotation_for
from train.data import Batches
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.pseudo_anomalies.textures import ProceduralTextures

CARDINAL = {"none": 5, "slight": 3, "full": 7}


def quadrants(height: int, width: int) -> np.ndarray:
    """Four flat quadrants; levels 0, 60, 180, 240 tell which way it lies."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, width // 2 :] = 60
    image[height // 2 :, : width // 2] = 180
    image[height // 2 :, width // 2 :] = 240
    return image


def lies(image: np.ndarray) -> tuple[int, ...]:
    rows, columns = image.shape[:2]
    return tuple(int(image[r * rows // 4, c * columns // 4, 0]) for r in (1, 3) for c in (1, 3))


def test_every_category_of_mvtec_has_one_rotation():
    assert len(MVTEC) == 15
    assert {name: list(MVTEC.values()).count(name) for name in CARDINAL} == CARDINAL
    assert rotation_for("mvtec", "wood") == "slight"
    assert rotation_for("mvtec", "screw") == "full"
    assert rotation_for("full", "anything") == "full"


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"'plate'.*choose none, slight, full yourself"):
        rotation_for("mvtec", "plate")
    with pytest.raises(ConfigError, match="'upside-down'"):
        rotation_for("upside-down", "bottle")


def test_slight_rotation_keeps_how_a_picture_lies_and_fills_corners_with_grey():
    rng = np.random.default_rng(0)
    image = quadrants(128, 128)
    for _ in range(20):
        turned = rotate(rng, image, "slight")
        assert turned.shape == image.shape
        assert lies(turned) == lies(image)
    white = np.full((128, 128, 3), 255, np.uint8)
    corners = {int(rotate(rng, white, "slight")[r, c, 0]) for _ in range(20) for r in (0, -1) for c in (0, -1)}
    assert min(corners) == FILL


@pytest.mark.parametrize(("size", "ways"), [((128, 128), 4), ((96, 128), 2)])
def test_full_rotation_lies_every_way_that_fits(size, ways):
    rng = np.random.default_rng(1)
    image = quadrants(*size)
    before = image.copy()
    turned = [rotate(rng, image, "full") for _ in range(60)]
    assert all(picture.shape == image.shape for picture in turned)
    assert len({lies(picture) for picture in turned}) == ways
    assert np.array_equal(image, before)


def test_no_rotation_gives_the_picture_itself():
    image = quadrants(32, 32)
    assert rotate(np.random.default_rng(2), image, "none") is image


@pytest.fixture
def ramp() -> np.ndarray:
    """Darker to the upper left; no two of its mirror images are alike."""
    grey = np.add.outer(np.arange(32) * 4, np.arange(40)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def test_without_variation_a_picture_stays_as_it_is(ramp):
    rng = np.random.default_rng(0)
    assert all(np.array_equal(AS_THEY_ARE.draw(rng, ramp), ramp) for _ in range(10))


@pytest.mark.parametrize(("horizontal", "vertical", "count"), [(True, False, 2), (False, True, 2), (True, True, 4)])
def test_flips_give_each_mirror_image_that_is_allowed(ramp, horizontal, vertical, count):
    rng = np.random.default_rng(0)
    variation = Variation(brightness=0, flip_horizontal=horizontal, flip_vertical=vertical)
    drawn = {variation.draw(rng, ramp).tobytes() for _ in range(60)}
    wanted = {
        ramp[:: -1 if v else 1, :: -1 if h else 1].tobytes() for h in (False, horizontal) for v in (False, vertical)
    }
    assert drawn == wanted
    assert len(drawn) == count


def test_exposure_varies_brightness_both_ways_within_its_limits(ramp):
    rng = np.random.default_rng(0)
    full = [Variation(1, False, False).draw(rng, ramp).mean() / ramp.mean() for _ in range(200)]
    slight = [Variation(0.2, False, False).draw(rng, ramp).mean() / ramp.mean() for _ in range(200)]
    assert min(full) < 0.6
    assert max(full) > 1.7
    assert 0.75 < min(slight) < 0.9
    assert 1.1 < max(slight) < 1.3


def test_gain_and_gamma_do_what_they_say():
    image = np.array([0, 64, 128, 255], np.uint8).reshape(1, 4, 1).repeat(3, axis=2)
    assert expose(image, gain=1, gamma=1)[0, :, 0].tolist() == [0, 64, 128, 255]
    assert expose(image, gain=2, gamma=1)[0, :, 0].tolist() == [0, 128, 255, 255]
    assert expose(image, gain=1, gamma=2)[0, :, 0].tolist() == [0, 16, 64, 255]


def test_training_sees_varied_pictures_and_the_originals_stay(ramp):
    images = [ramp.copy() for _ in range(4)]
    pseudo = PseudoAnomalies(["perlin"], images=images, textures=ProceduralTextures(), probability=0, largest_beta=0.5)
    batches = Batches(images, pseudo_anomalies=pseudo, batch_size=4, seed=0, variation=Variation(1, True, True))
    (batch,) = batches.epoch(1)
    assert len({picture.numpy().tobytes() for picture in batch.clean}) == 4
    assert np.array_equal(batch.clean.numpy(), batch.pseudo.numpy())
    assert all(np.array_equal(image, ramp) for image in images)
