"""The training benchmark compares two ways that compute the same."""

from __future__ import annotations

import pytest

from benchmarks.record import read
from benchmarks.training import PHASES, WAYS, main
from stlm_edge.plate.part import write_dataset


@pytest.mark.slow
def test_both_ways_are_measured_and_have_the_same_losses(tmp_path, capsys):
    write_dataset(tmp_path, train=4, test_good=0, test_defective_per_kind=0, size=(64, 64), seed=0, category="plate")
    small = ["--preset", "cpu", "--image-size", "64", "--batch-size", "2", "--device", "cpu"]
    steps = ["--batches", "2", "--turns", "2", "--steps", "1", "--json", str(tmp_path / "found.json")]
    assert main(["--data", str(tmp_path), "--category", "plate", *small, *steps]) == 0
    assert "ratio" in capsys.readouterr().out
    record = read(tmp_path / "found.json")
    found = record.details
    assert set(found["ways"]) == set(WAYS)
    straightforward, ours = (found["ways"][way] for way in WAYS)
    assert ours["loss"] == pytest.approx(straightforward["loss"], rel=1e-3)
    for way in (straightforward, ours):
        assert set(way["phases_s"]) == set(PHASES)
        assert all(seconds > 0 for seconds in way["phases_s"].values())
        assert [len(turn) for turn in way["turns"]] == [1, 1]
        assert way["memory_gb"] > 0
    assert len(found["ratios"]) == 2
    for way in WAYS:
        assert len(record.measures[f"{way} step"].values) == 2
