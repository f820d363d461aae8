"""What can be counted must not grow unnoticed; the figures that are held stand in `benchmarks/results/counts.json`."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.counts import BASELINE, departures, import_measures, network, plan_measures
from benchmarks.import_cost import import_cost
from benchmarks.record import Measure, read

RENEW = "if that is meant, renew the baseline: python -m benchmarks.counts --json benchmarks/results/counts.json"


def held(*, imports: bool) -> dict[str, Measure]:
    """The baseline's measures of imports, or all others."""
    measures = read(BASELINE).measures
    return {name: measure for name, measure in measures.items() if name.startswith("import ") == imports}


def changed(measures: dict[str, Measure], name: str, factor: float) -> dict[str, Measure]:
    """The same, but one of them times a factor."""
    old = measures[name]
    return measures | {name: dataclasses.replace(old, values=(factor * old.median,))}


def test_baseline_is_whole_and_of_the_papers_network() -> None:
    record = read(BASELINE)
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
    found, _ = plan_measures(network(None))
    assert departures(held(imports=False), found) == [], RENEW
    assert found["plan unplaced products"].median == 0
    assert found["plan floor rtx3090"].median < 20 / 5, "the paper's 20 ms leave room for a factor of five"


def test_imports_cost_what_is_held() -> None:
    assert departures(held(imports=True), import_measures()) == [], RENEW


def test_import_cost_is_the_same_every_time_and_names_what_is_loaded() -> None:
    cost = import_cost("stlm_edge.imaging")
    assert cost == import_cost("stlm_edge.imaging")
    assert {"cv2", "numpy"} <= set(cost.packages)
    assert cost.all_modules > cost.own_modules > 1
    assert cost.own_instructions > 100


def test_what_got_worse_or_better_is_told_with_its_figures() -> None:
    old = held(imports=False)
    assert departures(old, old) == []
    (worse,) = departures(old, changed(old, "plan kernels", 287 / 286))
    assert "found 287.0, the baseline has 286.0 kernels (worse)" in worse
    (better,) = departures(old, changed(old, "plan moved", 0.9))
    assert "(better)" in better


def test_what_vanished_or_is_new_is_told() -> None:
    old = held(imports=False)
    less = {name: measure for name, measure in old.items() if name != "plan kernels"}
    assert "(vanished)" in departures(old, less)[0]
    assert "(new)" in departures(less, old)[0]


def test_imports_may_drift_a_little_and_other_pythons_are_left_out() -> None:
    old = held(imports=True) | {"import stlm_edge: own instructions, Python 2.7": Measure("i", "lower", (1.0,), True)}
    name = "import runtime.camera: own modules"
    old[name] = Measure("modules", "lower", (100.0,), is_exact=True)
    assert departures(old, held(imports=True) | {name: Measure("modules", "lower", (104.0,), is_exact=True)}) == []
    (line,) = departures(old, held(imports=True) | {name: Measure("modules", "lower", (106.0,), is_exact=True)})
    assert "found 106.0" in line
