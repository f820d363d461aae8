"""A second threshold: what lies between sure good and sure bad is called unclear, and is no anomaly."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.camera import main as camera
from runtime.detector import Detector
from runtime.inspect import main as inspect
from stlm_edge.imaging import write_image
from stlm_edge.spec import Threshold

from .conftest import SPEC, picture, write_engine

MARKS = {"good": 60, "unclear": 110, "anomalous": 200}
"""Brightness of pictures by what they are to be called, with a threshold at 0.5 of white and another at 0.4."""


@pytest.fixture
def two_thresholds(tmp_path: Path) -> Path:
    both = Threshold(value=0.5, method="quantile", images=20, false_alarm_rate=0.05, unclear=0.4, unclear_rate=0.2)
    (tmp_path / "engine").mkdir()
    return write_engine(tmp_path / "engine" / "plate.onnx", spec=dataclasses.replace(SPEC, threshold=both))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, value in MARKS.items():
        write_image(folder / f"{name}.png", picture(value))
    return folder


def test_detector_says_what_is_unclear(two_thresholds: Path) -> None:
    with Detector.open(two_thresholds) as detector:
        found = {name: detector.inspect(picture(value)) for name, value in MARKS.items()}
        assert {name: (each.is_anomalous, each.is_unclear) for name, each in found.items()} == {
            "good": (False, False),
            "unclear": (False, True),
            "anomalous": (True, False),
        }
        assert [str(each).split()[1].rstrip(":") for each in found.values()] == list(found)


def test_tiles_are_unclear_too(two_thresholds: Path) -> None:
    with Detector.open(two_thresholds, tile=(64, 128)) as detector:
        assert detector.inspect(picture(110, size=(128, 256))).is_unclear


def test_threshold_by_hand_leaves_nothing_unclear(two_thresholds: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Detector.open(two_thresholds, threshold=0.9) as detector:
        assert not detector.inspect(picture(200)).is_unclear
    assert "its 0.4 for unclear pictures is not used" in caplog.text


def test_engine_without_a_second_threshold_calls_nothing_unclear(engine: Path) -> None:
    with Detector.open(engine) as detector:
        assert not detector.inspect(picture(127)).is_unclear


def test_inspection_of_pictures_counts_and_draws_the_unclear_ones(
    two_thresholds: Path, engine: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert inspect([str(two_thresholds), str(pictures), "-o", str(results)]) == 0
    assert "unclear             1" in capsys.readouterr().out.splitlines()
    drawn = sorted(path.name.partition(".")[0] for path in (results / "overlays").iterdir())
    assert drawn == ["anomalous", "unclear"]
    assert json.loads((results / "run.json").read_text())["unclear"] == 0.4
    assert inspect([str(engine), str(pictures), "-o", str(tmp_path / "plain")]) == 0
    assert "unclear" not in capsys.readouterr().out
    assert [path.name.partition(".")[0] for path in (tmp_path / "plain" / "overlays").iterdir()] == ["anomalous"]


@pytest.mark.parametrize("both", [True, False])
def test_line_tells_of_unclear_frames_and_its_table_keeps_its_columns(
    both: bool, two_thresholds: Path, engine: Path, pictures: Path, tmp_path: Path, run_line: Callable[..., str]
) -> None:
    said = run_line(two_thresholds if both else engine, pictures)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    verdicts = [event for event in events if "score" in event]
    if both:
        assert [event["unclear"] for event in verdicts] == [False, False, True]  # anomalous, good, unclear by name
        assert "unclear            1" in said
    else:
        assert not any("unclear" in event for event in verdicts) and "unclear" not in said.replace("unclear.png", "")
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert "unclear" not in next(csv.reader(file))
    names = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert len(names) == (2 if both else 1)


@pytest.fixture
def run_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(engine: Path, pictures: Path) -> str:
        outputs = [f"{tmp_path}/events.jsonl", f"{tmp_path}/scores.csv", f"{tmp_path}/found/?only=anomalies"]
        arguments = [argument for output in outputs for argument in ("--output", output)]
        assert camera(["--engine", str(engine), "--source", str(pictures), *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("program", [camera, inspect], ids=["camera", "inspect"])
def test_both_thresholds_by_hand(
    program: Callable[[list[str]], int], engine: Path, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = [str(engine), str(pictures), "-o", str(tmp_path / "results")]
    if program is camera:
        places = ["--engine", str(engine), "--source", str(pictures)]
    assert program([*places, "--unclear", "0.3:0.7"]) == 0
    said = capfd.readouterr()
    assert "unclear             1" in said.out or "unclear            1" in said.out
    assert "threshold 0.7, and 0.3 for unclear pictures, given by hand instead of 0.5" in said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unclear", "0.6:0.3"], "found '0.6:0.3' for --unclear, expected two rising scores; for example 0.3:0.6"),
        (["--unclear", "0.6"], "expected two rising scores"),
        (["--unclear", "0.3:nan"], "expected two rising scores"),
        (["--unclear", "0.3:0.6", "--threshold", "0.5"], "which gives both thresholds; leave one of them out"),
        (["--unclear", "0.3:45"], "the threshold is 45 where scores lie between 0 and"),
        (["--unclear", "0.3:0.6", "--release", "0.7"], "expected a score below the threshold 0.6"),
    ],
)
def test_thresholds_that_cannot_be_are_one_line(
    options: list[str], message: str, engine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert camera(["--engine", str(engine), "--source", "test://?frames=1&size=64x64", *options]) == 1
    assert message in capfd.readouterr().err.splitlines()[-1]
