"""The training benchmark compares two ways that compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.authors_training import perlin
from benchmarks.record import read
from benchmarks.training import WAYS, main
from tests.settings import TWO_STREAMS
from train.pseudo_anomalies.perlin import perlin_gradients, perlin_noise

SMALL = ["--preset", TWO_STREAMS, "--image-size", "64", "--batch-size", "2", "--device", "cpu"]


@pytest.mark.slow
def test_both_ways_are_measured_and_have_the_same_losses(plate: Path, tmp_path: Path, capsys) -> None:
    steps = ["--turns", "2", "--steps", "1", "--part", "step", "--json", str(tmp_path / "found.json")]
    assert main(["--data", str(plate), "--category", "plate", *SMALL, *steps]) == 0
    assert "ratio" in capsys.readouterr().out
    record = read(tmp_path / "found.json")
    found = record.details
    assert set(found["ways"]) == set(WAYS)
    straightforward, ours = (found["ways"][way] for way in WAYS)
    assert ours["loss"] == pytest.approx(straightforward["loss"], rel=1e-3)
    for way in (straightforward, ours):
        assert way["phases_s"]["teacher"] > 0
        assert way["memory_gb"] > 0
    assert len(found["ratios"]) == 2
    for way in WAYS:
        steps_s = record.measures[f"{way} step"].values
        assert len(steps_s) == 2
        assert found["ways"][way]["phases_s"]["teacher"] < max(steps_s)


@pytest.mark.slow
def test_every_loader_has_its_turns(plate: Path, tmp_path: Path, capsys) -> None:
    arguments = [
        "--data",
        str(plate),
        "--category",
        "plate",
        *SMALL,
        "--part",
        "loader",
        "--turns",
        "2",
        "--steps",
        "1",
    ]
    record, textures = tmp_path / "loader.json", ["--textures", str(plate / "plate" / "train")]
    perlin_only = [*textures, "--workers", "1", "--pseudo-anomalies", "perlin"]
    assert main([*arguments, *perlin_only, "--json", str(record)]) == 0
    rates = read(record).measures
    assert list(rates) == ["loader, 0 workers", "loader, 1 worker", "straightforward loader"]
    for measure in rates.values():
        assert len(measure.values) == 2
        assert min(measure.values) > 0
    assert "1 worker" in capsys.readouterr().out
    assert main([*arguments, "--pseudo-anomalies", "nsa+cutpaste-union"]) == 0
    assert "straightforward" not in capsys.readouterr().out


def test_noise_of_the_obvious_way_is_the_same_noise() -> None:
    expected = perlin_noise(perlin_gradients(np.random.default_rng(0), (4, 8)), (64, 96))
    assert np.abs(perlin(np.random.default_rng(0), (64, 96), (4, 8)) - expected).max() < 2e-6


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", "dust"],
        ["--pseudo-anomalies", "dust"],
        ["--preset", TWO_STREAMS, "--teacher", "none"],
        ["--preset", "cpu"],
    ],
)
def test_bad_input_is_one_line(arguments: list[str], tmp_path: Path, capsys) -> None:
    assert main(["--data", str(tmp_path), *arguments]) == 1
    assert capsys.readouterr().err.startswith("error: ")
