"""Turning pictures, and which category gets which rotation."""

from __future__ import annotations

import numpy as np
import pytest

from stlm_edge.errors import ConfigError
from train.augment import FILL, MVTEC, rotate, rotation_for

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
