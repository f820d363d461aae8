"""Frames that show nothing, and pictures that look like them and are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from runtime.faults import FaultDetector
from runtime.sources import Frame, open_source
from stlm_edge.imaging import Image

SIZE = (270, 480)


def noisy(mean: float, sigma: float, *, size: tuple[int, int] = SIZE, seed: int = 0) -> Image:
    values = np.random.default_rng(seed).normal(mean, sigma, (*size, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def fault(image: Image) -> str | None:
    return FaultDetector().check(Frame(image, 0, 0.0, "camera 0"))


def faults(images: list[Image], *, fps: float) -> list[str | None]:
    detector = FaultDetector()
    return [detector.check(Frame(image, index, index / fps, "camera 0")) for index, image in enumerate(images)]


@pytest.mark.parametrize("size", [SIZE, (40, 30)])
@pytest.mark.parametrize(("mean", "sigma"), [(2, 1), (3, 3), (5, 5)])
def test_no_light_is_black_whatever_noise_there_is(mean: float, sigma: float, size: tuple[int, int]) -> None:
    assert fault(noisy(mean, sigma, size=size)) == "black"
    assert fault(255 - noisy(mean, sigma, size=size)) == "over-exposed"


@pytest.mark.parametrize("size", [(1080, 1920), (3, 3), (1, 1000)])
def test_nothing_but_black_or_white(size: tuple[int, int]) -> None:
    assert fault(np.zeros((*size, 3), np.uint8)) == "black"
    assert fault(np.full((*size, 3), 255, np.uint8)) == "over-exposed"


@pytest.mark.parametrize(
    "image",
    [noisy(3, 3), 255 - noisy(3, 3), noisy(60, 20), np.zeros((3, 3, 3), np.uint8)],
    ids=["dark", "bright", "well", "small"],
)
def test_grey_frame_has_the_faults_of_the_same_in_colour(image: Image) -> None:
    grey = image[:, :, 0]
    assert fault(np.ascontiguousarray(grey)) == fault(np.repeat(grey[:, :, None], 3, axis=2))


def test_hot_pixels_do_not_make_a_black_picture_bright() -> None:
    image = noisy(2, 1)
    image[10::50, 15::50] = 255
    assert fault(image) == "black"
    image[10::50, 15::50] = (0, 0, 255)
    assert fault(image) == "black"


def spot(image: Image, value: int, *, side: int = 10) -> Image:
    image = image.copy()
    image[101 : 101 + side, 201 : 201 + side] = value
    return image


def outline(image: Image, value: int) -> Image:
    image = image.copy()
    image[60:200, 100:300] = np.clip(image[60:200, 100:300].astype(int) + value, 0, 255)
    return image


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: spot(noisy(2, 1), 200), id="a scratch that shines in a dark field"),
        pytest.param(lambda: outline(noisy(2, 1), 7), id="a part that is only just seen"),
        pytest.param(lambda: noisy(20, 4), id="a dark and even material"),
        pytest.param(lambda: noisy(120, 0), id="an even grey"),
    ],
)
def test_dark_picture_that_shows_something_is_none(make: Callable[[], Image]) -> None:
    assert fault(make()) is None
    # The same seen from white: a hole in a back-lit part, a faint part before a back light, white paper.
    assert fault(255 - make()) is None


def test_coloured_light_is_light() -> None:
    image = noisy(2, 1)
    image[..., 2] = 40
    assert fault(image) is None


def test_same_pixels_for_ten_seconds_are_frozen_until_they_change() -> None:
    still, other = noisy(120, 3), noisy(120, 3, seed=1)
    seen = faults([still] * 40 + [other, still], fps=2)
    assert seen == [None] * 20 + ["frozen"] * 20 + [None, None]


def test_duplicates_after_a_hiccup_are_not_frozen() -> None:
    frames = [noisy(120, 3, seed=index) for index in range(5)]
    repeated = [frame for frame in frames for _ in range(240)]  # 8 s each, as of a stream that stutters
    assert faults(repeated, fps=30) == [None] * len(repeated)


def test_few_frames_are_not_frozen_however_long_they_take() -> None:
    assert faults([noisy(120, 3)] * 12, fps=0.1) == [None] * 9 + ["frozen"] * 3


def test_pixels_that_change_between_those_that_are_looked_at_are_seen() -> None:
    pictures = []
    for index in range(60):
        image = outline(np.zeros((*SIZE, 3), np.uint8), 200)
        image[137, 211] = 100 + index
        pictures.append(image)
    assert faults(pictures, fps=2) == [None] * 60


def test_sensor_noise_is_never_frozen() -> None:
    assert faults([noisy(120, 1, seed=index) for index in range(60)], fps=2) == [None] * 60


def test_camera_that_changes_its_size_is_not_frozen() -> None:
    sizes = itertools.cycle([(48, 64), (96, 128)])
    assert faults([np.full((*next(sizes), 3), 90, np.uint8) for _ in range(60)], fps=2) == [None] * 60


def test_black_comes_before_frozen() -> None:
    assert faults([np.zeros((*SIZE, 3), np.uint8)] * 60, fps=2) == ["black"] * 60


@pytest.mark.parametrize("darker", [1, 4, 8])
def test_part_has_no_fault_at_a_fraction_of_its_light(darker: int) -> None:
    with open_source("test://?frames=10&size=256x256") as source:
        while (frame := source.read()) is not None:
            assert fault(frame.image // darker) is None
            assert fault(255 - frame.image // darker) is None
