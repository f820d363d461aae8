"""What can be counted must not grow unnoticed; the figures that are held stand in `results/plan-counts.json`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks.plan_counts import count_plan, count_simplified, trace_network
from benchmarks.record import Recorder, read

HELD = Path(__file__).parents[2] / "benchmarks" / "results" / "plan-counts.json"
RENEW = "if that is meant, renew it: python -m benchmarks.plan_counts --json benchmarks/results/plan-counts.json"


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
    """No GPU is needed: they stand in the log of the build. What got better fails too, or the gain could be lost."""
    pytest.importorskip("tensorrt_rtx")
    recorder = Recorder("plan_counts", "", None)
    graph = trace_network(recorder)
    count_plan(recorder, graph)
    simplified = importlib.util.find_spec("onnxsim") is not None
    if simplified:
        count_simplified(recorder, graph)
    found = {name: measure.median for name, measure in recorder.measures.items()}
    held = {
        name: measure.median
        for name, measure in read(HELD).measures.items()
        if simplified or not name.startswith("simplified")
    }
    assert found == pytest.approx(held, rel=1e-3), RENEW  # sums of the same floats
    assert found["plan unplaced products"] == 0
    if simplified:  # once it helps, it may be worth being the default
        assert found["simplified plan kernels"] > found["plan kernels"]
        assert found["simplified plan moved"] > found["plan moved"]
    assert found["plan floor rtx3090"] < 20 / 5, "the paper's 20 ms leave room for a factor of five"
