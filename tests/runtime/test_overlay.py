from __future__ import annotations

import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.overlay import draw_overlay

from .conftest import picture

GREEN, RED = 1, 2


def inspected(score: float, *, size: tuple[int, int] = (96, 192)) -> Anomaly:
    anomaly_map = np.full(size, 0.1, np.float32)
    anomaly_map[24:48, 48:72] = score
    return Anomaly(score, anomaly_map, score >= 0.5, Latency(1, 2, 3))


def bar_colour(drawn: np.ndarray) -> int:
    """The strongest channel at the bar's left edge, where no text stands."""
    return int(drawn[:4, 0].reshape(-1, 3).mean(axis=0).argmax())


def test_verdict_colours_the_bar() -> None:
    good = draw_overlay(picture(60), inspected(0.2), threshold=0.5, fps=10)
    bad = draw_overlay(picture(60), inspected(0.9), threshold=0.5, fps=10)
    assert bar_colour(good) == GREEN
    assert bar_colour(bad) == RED


@pytest.mark.parametrize("size", [(120, 285), (285, 120), (64, 64), (1080, 1920)])
def test_bar_stands_above_the_picture_and_has_one_height_for_all_verdicts(size: tuple[int, int]) -> None:
    image = picture(60, size=size)
    good = draw_overlay(image, inspected(0.2, size=size), threshold=0.5, fps=9.5)
    bad = draw_overlay(image, inspected(0.9, size=size), threshold=0.5, fps=120)
    assert good.shape == bad.shape
    assert good.shape[1] == size[1]
    np.testing.assert_array_equal(good[-size[0] :], image)


def test_defect_is_outlined_and_the_rest_is_left_alone() -> None:
    image = picture(60)
    drawn = draw_overlay(image, inspected(0.9), threshold=0.5, fps=10)[-96:]
    assert (drawn[24, 48:72] != image[24, 48:72]).any(axis=-1).all()
    np.testing.assert_array_equal(drawn[60:], image[60:])
    np.testing.assert_array_equal(image, picture(60))
