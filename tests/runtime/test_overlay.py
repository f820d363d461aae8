from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from runtime.detector import Anomaly, Latency
from runtime.overlay import ALARM, ANOMALY, FAULT, GOOD, UNCLEAR, draw_overlay, drawn_once
from stlm_edge.imaging import Image

from .conftest import picture


def inspected(score: float, *, size: tuple[int, int] = (96, 192), unclear_from: float | None = None) -> Anomaly:
    """A quarter of the map's rows and an eighth of its columns have the score."""
    network_map = np.full((32, 64), 0.1, np.float32)
    network_map[8:16, 16:24] = score
    latency = Latency(3, 0, 5, 0, 1)
    return Anomaly(score, score >= 0.5, network_map, size, latency, 0.5, unclear_from=unclear_from)


def bar_colour(drawn: Image) -> tuple[int, ...]:
    """At the bar's left edge, where no text stands."""
    return tuple(drawn[2, 0].tolist())


def test_grey_frame_is_drawn_as_the_same_in_colour() -> None:
    image = picture(60, spot=200)
    drawn = [draw_overlay(each, inspected(0.9), threshold=0.5, fps=10) for each in (image, image[:, :, 0])]
    np.testing.assert_array_equal(*drawn)


def test_verdict_colours_the_bar() -> None:
    image = picture(60)
    colours = [
        bar_colour(draw_overlay(image, inspected(0.2), threshold=0.5, fps=10)),
        bar_colour(draw_overlay(image, inspected(0.3, unclear_from=0.4), threshold=0.5, fps=10)),
        bar_colour(draw_overlay(image, inspected(0.4, unclear_from=0.4), threshold=0.5, fps=10)),
        bar_colour(draw_overlay(image, inspected(0.9, unclear_from=0.4), threshold=0.5, fps=10)),
        bar_colour(draw_overlay(image, inspected(0.9), threshold=0.5, fps=10, alarm=True)),
        bar_colour(draw_overlay(image, None, threshold=0.5, fps=10, fault="frozen")),
    ]
    assert colours == [GOOD, GOOD, UNCLEAR, ANOMALY, ALARM, FAULT]
    assert len(set(colours)) == 5


def test_alarm_lasts_over_a_frame_that_is_good_by_itself() -> None:
    drawn = draw_overlay(picture(60), inspected(0.2), threshold=0.5, fps=10, alarm=True)
    assert bar_colour(drawn) == ALARM


def test_each_fault_is_named() -> None:
    drawn = [
        draw_overlay(picture(60), None, threshold=0.5, fps=10, fault=fault)
        for fault in ("black", "over-exposed", "frozen")
    ]
    assert len({image.tobytes() for image in drawn}) == 3


@pytest.mark.parametrize("size", [(120, 285), (285, 120), (64, 64), (1080, 1920)])
def test_bar_stands_above_the_picture_and_has_one_height_for_all_verdicts(size: tuple[int, int]) -> None:
    image = picture(60, size=size)
    good = draw_overlay(image, inspected(0.2, size=size), threshold=0.5, fps=9.5)
    bad = draw_overlay(image, inspected(0.9, size=size), threshold=0.5, fps=120, alarm=True)
    fault = draw_overlay(image, None, threshold=0.5, fps=120, fault="over-exposed")
    assert good.shape == bad.shape == fault.shape
    assert good.shape[1] == size[1]
    np.testing.assert_array_equal(good[-size[0] :], image)
    np.testing.assert_array_equal(fault[-size[0] :], image)


def test_defect_is_outlined_and_the_rest_is_left_alone() -> None:
    image = picture(60)
    drawn = draw_overlay(image, inspected(0.9), threshold=0.5, fps=10)[-96:]
    assert (drawn[24, 48:72] != image[24, 48:72]).any(axis=-1).all()
    np.testing.assert_array_equal(drawn[60:], image[60:])
    np.testing.assert_array_equal(image, picture(60))


def test_drawing_leaves_no_map_of_the_frame_s_size_with_the_anomaly() -> None:
    anomaly = inspected(0.9)
    draw_overlay(picture(60), anomaly, threshold=0.5, fps=10)
    assert "anomaly_map" not in vars(anomaly)


def test_picture_is_drawn_once_for_all_outputs() -> None:
    drawings: list[str] = []
    told: list[float] = []
    start = threading.Barrier(4)

    def draw() -> Image:
        drawings.append(threading.current_thread().name)
        time.sleep(0.05)
        return picture(60)

    shared = drawn_once(draw, on_drawn=told.append)

    def ask(_: int) -> Image:
        start.wait()
        return shared()

    with ThreadPoolExecutor(4) as threads:
        pictures = list(threads.map(ask, range(4)))
    assert len(drawings) == 1
    assert all(other is pictures[0] for other in pictures)
    assert len(told) == 1
    assert told[0] >= 50


def test_picture_that_nobody_asks_for_is_not_drawn() -> None:
    def draw() -> Image:
        raise AssertionError("nobody asked")

    drawn_once(draw, on_drawn=lambda _: None)
