"""What can be counted must not grow unnoticed; the figures that are held stand in `results/plan-counts.json`."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.plan_counts import HELD, count_plan, departures
from benchmarks.record import Measure, read

RENEW = "if that is meant, renew it: python -m benchmarks.plan_counts --json benchmarks/results/plan-counts.json"


def held() -> dict[str, Measure]:
    return read(HELD).measures


def changed(measures: dict[str, Measure], name: str, factor: float) -> dict[str, Measure]:
    """The same, but one of them times a factor."""
    old = measures[name]
    return measures | {name: dataclasses.replace(old, values=(factor * old.median,))}


def test_held_figures_are_whole_and_of_the_papers_network() -> None:
    record = read(HELD)
    assert record.is_complete
    assert (record.details["architecture"], record.details["input_size"]) == ("stlm", [1024, 1024])
    assert sum(stage["kernels"] for stage in record.details["stages"]) == record.measures["plan kernels"].median
    assert sum(stage["floor_ms"]["h100"] for stage in record.details["stages"]) == pytest.approx(
        record.measures["plan floor h100"].median
    )


@pytest.mark.slow
def test_plan_of_the_papers_network_has_the_counts_that_are_held() -> None:
    """No GPU is needed: they stand in the log of the build. Weights do not matter."""
    pytest.importorskip("tensorrt_rtx")
    found, _ = count_plan()
    assert departures(held(), found) == [], RENEW
    assert found["plan unplaced products"].median == 0
    assert found["plan floor rtx3090"].median < 20 / 5, "the paper's 20 ms leave room for a factor of five"


def test_what_got_worse_or_better_is_told_with_its_figures() -> None:
    old = held()
    assert departures(old, old) == []
    (worse,) = departures(old, changed(old, "plan kernels", 287 / 286))
    assert worse == "plan kernels: found 287, held is 286 kernels (worse)"
    (better,) = departures(old, changed(old, "plan moved", 0.9))
    assert better.endswith("MB (better)")
    (fewer,) = departures(old, changed(old, "plan fused attentions", 24 / 25))
    assert fewer == "plan fused attentions: found 24, held is 25 kernels (worse)"
    assert departures(old, changed(old, "plan floor h100", 1 + 1e-6)) == []


def test_what_vanished_or_is_new_is_told() -> None:
    old = held()
    less = {name: measure for name, measure in old.items() if name != "plan kernels"}
    assert departures(old, less) == ["plan kernels: found None, held is 286.0"]
    assert departures(less, old) == ["plan kernels: found 286.0, held is None"]
