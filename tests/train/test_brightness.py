from __future__ import annotations

import numpy as np
import pytest

from train.augment import AS_THEY_ARE, Variation, expose
from train.data import Batches
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.pseudo_anomalies.textures import ProceduralTextures


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
