from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.anomaly import Anomaly, Latency
from runtime.backends.base import Backend
from runtime.detector import Detector
from runtime.options import open_detector
from stlm_edge.errors import ConfigError, EngineError, ImageError, SpecError

from .conftest import SPEC, THRESHOLD, picture


def test_bright_spot_is_an_anomaly_in_frame_pixels(engine: Path) -> None:
    with Detector.open(engine) as detector:
        anomaly = detector.inspect(picture(60, spot=250))
    assert anomaly.is_anomalous
    assert anomaly.score == pytest.approx(250 / 255, abs=1e-5)
    assert anomaly.anomaly_map.shape == (96, 192)
    assert anomaly.anomaly_map.dtype == np.float32
    row, column = np.unravel_index(anomaly.anomaly_map.argmax(), anomaly.anomaly_map.shape)
    assert 24 <= row < 48
    assert 48 <= column < 72


def test_even_picture_is_good(engine: Path) -> None:
    with Detector.open(engine) as detector:
        anomaly = detector.inspect(picture(60))
    assert not anomaly.is_anomalous
    assert anomaly.score == pytest.approx(60 / 255, abs=1e-5)


def test_score_at_the_threshold_is_an_anomaly(engine: Path) -> None:
    with Detector.open(engine) as detector:
        score = detector.inspect(picture(60)).score
    with Detector.open(engine, threshold=score) as detector:
        assert detector.inspect(picture(60)).is_anomalous


def test_detector_knows_its_specification_and_threshold(engine: Path) -> None:
    with Detector.open(engine) as detector:
        assert detector.spec == SPEC
        assert detector.threshold.value == THRESHOLD


def test_threshold_by_hand_is_logged_with_that_of_the_sidecar(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Detector.open(engine, threshold=0.25) as detector:
        assert detector.threshold.value == 0.25
        assert detector.threshold.method == "manual"
    assert "threshold 0.25 given by hand instead of 0.5, which the sidecar has" in caplog.text


def test_threshold_that_is_not_a_number_is_refused(engine: Path) -> None:
    with pytest.raises(SpecError, match="expected a finite number"):
        Detector.open(engine, threshold=float("nan"))


@pytest.mark.parametrize("threshold", [45.0, -1.0, 1e308])
def test_threshold_that_no_score_or_every_score_reaches_is_refused(engine: Path, threshold: float) -> None:
    with pytest.raises(SpecError, match=r"scores lie between 0 and 4, so (nothing|everything) would"):
        Detector.open(engine, threshold=threshold)


def test_latencies_are_positive_and_add_up(engine: Path) -> None:
    with Detector.open(engine) as detector:
        latency = detector.inspect(picture(60)).latency
    stages = (latency.prepare_ms, latency.infer_ms, latency.decide_ms)
    assert min(stages) > 0
    assert latency.total_ms == pytest.approx(sum(stages))


@pytest.mark.parametrize("tile", [None, (48, 96)])
def test_grey_frame_and_one_of_16_bits_are_inspected_as_the_same_in_colour(
    engine: Path, tile: tuple[int, int] | None
) -> None:
    colour = picture(60, spot=250)
    grey = colour[:, :, 0]
    with Detector.open(engine, tile=tile) as detector:
        expected, *found = (
            detector.inspect(frame)
            for frame in (colour, grey, grey.astype(np.uint16) << 8, colour.astype(np.uint16) << 8)
        )
    assert expected.is_anomalous
    for anomaly in found:
        assert anomaly.score == expected.score
        np.testing.assert_array_equal(anomaly.anomaly_map, expected.anomaly_map)
        assert anomaly.regions == expected.regions


def test_frame_that_is_no_picture_is_refused(engine: Path) -> None:
    with Detector.open(engine) as detector, pytest.raises(ImageError, match="expected"):
        detector.inspect(np.zeros((64, 64), np.float32))  # type: ignore[arg-type]


def test_closed_detector_does_not_inspect(engine: Path) -> None:
    with Detector.open(engine) as detector:
        pass
    with pytest.raises(EngineError, match="has been closed"):
        detector.inspect(picture(60))


def test_two_frames_in_hand_are_answered_in_their_order(engine: Path) -> None:
    with Detector.open(engine) as detector:
        first, second = detector.submit([picture(40)]), detector.submit([picture(80)])
        scores = [first.result()[0].score, second.result()[0].score]
    assert scores == pytest.approx([40 / 255, 80 / 255], abs=1e-5)


def test_anomaly_outlives_its_detector_and_goes_to_another_thread(engine: Path) -> None:
    with Detector.open(engine) as detector:
        anomaly = detector.inspect(picture(60, spot=250))
    with ThreadPoolExecutor(1) as other:
        (region,) = other.submit(lambda: anomaly.regions).result()
        highest = other.submit(anomaly.anomaly_map.max).result()
    assert region.peak == pytest.approx(float(highest))
    assert (region.left, region.top) == (pytest.approx(48, abs=2), pytest.approx(24, abs=2))


def test_regions_are_those_of_the_threshold_that_is_in_force(engine: Path) -> None:
    with Detector.open(engine) as detector, Detector.open(engine, threshold=0.99) as strict:
        assert len(detector.inspect(picture(60, spot=250)).regions) == 1
        assert strict.inspect(picture(60, spot=250)).regions == ()


@pytest.mark.parametrize("tile", [None, (64, 128)])
def test_many_threads_may_inspect_at_a_time(engine: Path, tile: tuple[int, int] | None) -> None:
    with Detector.open(engine, tile=tile) as detector, ThreadPoolExecutor(8) as others:
        found = list(others.map(lambda value: detector.inspect(picture(value)).is_anomalous, (60, 250) * 40))
    assert found == [False, True] * 40


def test_setting_that_cannot_work_leaves_no_backend_open(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, close = [], Backend.close

    def noted(backend: Backend) -> None:
        closed.append(backend.name)
        close(backend)

    monkeypatch.setattr(Backend, "close", noted)
    with pytest.raises(ConfigError):
        Detector.open(engine, tile=(1, 1))
    assert closed == ["openvino"]


def test_anomaly_shows_itself_in_a_line_and_in_a_notebook(engine: Path) -> None:
    with Detector.open(engine) as detector:
        bad, good = detector.inspect(picture(60, spot=250)), detector.inspect(picture(60))
    assert repr(bad) == "<Anomaly anomalous: score 0.980, threshold 0.500, frame 96 x 192>"
    assert repr(good) == "<Anomaly good: score 0.235, threshold 0.500, frame 96 x 192>"
    shown = [cv2.imdecode(np.frombuffer(each._repr_png_(), np.uint8), cv2.IMREAD_COLOR) for each in (bad, good)]
    for image in shown:
        assert image.shape[1] == 192
        assert image.shape[0] > 96, "the verdict stands above the map"
    ground = np.abs(shown[0][-96:].astype(int) - 96).max(axis=2)
    assert ground[24:48, 48:72].mean() > 50
    assert ground[60:, 120:].max() == 0
    assert (shown[1][-96:] == 96).all()


def test_picture_of_a_large_frame_is_small_in_a_notebook() -> None:
    latency = Latency(0, 0, 0, 0, 0)
    anomaly = Anomaly(0.4, False, np.zeros((32, 64), np.float32), (3000, 6000), latency, 0.5)
    assert cv2.imdecode(np.frombuffer(anomaly._repr_png_(), np.uint8), cv2.IMREAD_COLOR).shape[1] == 512


@pytest.mark.parametrize(("device", "asked_for"), [("CPU", [1]), ("NVIDIA GeForce RTX 3090", [])])
def test_opencv_leaves_the_processor_to_a_network_that_runs_there(
    engine: Path, device: str, asked_for: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(cv2, "setNumThreads", asked.append)
    monkeypatch.setattr(Backend, "device", device)
    nothing_else: dict[str, Any] = dict.fromkeys(("threshold", "unclear", "roi", "ignore", "tile"))
    with open_detector(engine, backend="auto", **nothing_else):
        assert asked == asked_for
