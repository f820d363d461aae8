"""A slowdown is told from noise, and noise from a slowdown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.record import Better, Measure
from benchmarks.significance import Change, changes
from stlm_edge.errors import DataError


def turns(level: float, *, spread: float = 0.02, count: int = 10, seed: int = 0) -> tuple[float, ...]:
    """Turns around a level, as a run gives them."""
    return tuple(level * np.exp(spread * np.random.default_rng(seed).standard_normal(count)))


def compared(
    old: tuple[float, ...],
    new: tuple[float, ...],
    *,
    unit: str = "ms",
    better: Better = "lower",
    is_exact: bool = False,
) -> Change:
    """One measure of two runs."""
    (change,) = changes([{"a": Measure(unit, better, old, is_exact)}], [{"a": Measure(unit, better, new, is_exact)}])
    return change


def test_ratio_of_medians_lies_within_its_interval() -> None:
    change = compared(turns(10), turns(15, seed=1))
    assert change.ratio == pytest.approx(1.5, rel=0.03)
    assert change.low is not None
    assert change.high is not None
    assert change.low < change.ratio < change.high
    assert change.high - change.low < 0.1
    assert (change.old, change.new) == (pytest.approx(10, rel=0.02), pytest.approx(15, rel=0.02))


@pytest.mark.parametrize(
    ("unit", "better", "factor", "verdict"),
    [
        ("ms", "lower", 1.2, "slower"),
        ("ms", "lower", 0.8, "faster"),
        ("frames/s", "higher", 1.2, "faster"),
        ("frames/s", "higher", 0.8, "slower"),
        ("MB", "lower", 1.2, "worse"),
        ("%", "higher", 0.8, "worse"),
        ("%", "higher", 1.2, "better"),
    ],
)
def test_change_beyond_noise_has_the_word_of_its_unit(unit: str, better: Better, factor: float, verdict: str) -> None:
    change = compared(turns(10), turns(10 * factor, seed=1), unit=unit, better=better)
    assert change.verdict == verdict
    assert change.is_bad == (verdict in ("slower", "worse"))
    assert (change.loss > 0) == change.is_bad


def test_unchanged_runs_are_the_same() -> None:
    verdicts = [compared(turns(10, seed=2 * seed), turns(10, seed=2 * seed + 1)).verdict for seed in range(30)]
    assert verdicts == ["same"] * 30


def test_steady_change_below_the_floor_is_no_slowdown() -> None:
    assert compared(turns(10, spread=1e-4), turns(10.15, spread=1e-4, seed=1)).verdict == "same"
    assert compared(turns(10, spread=1e-4), turns(10.35, spread=1e-4, seed=1)).verdict == "slower"


def test_turns_that_overlap_are_no_slowdown_however_narrow_the_interval() -> None:
    change = compared(turns(10, spread=0.1, count=200), turns(12, spread=0.1, count=200, seed=1))
    assert change.low is not None
    assert change.low > 1.1
    assert change.verdict == "same"


def test_few_turns_have_the_interval_of_all_pairs() -> None:
    change = compared((10.0, 11.0), (12.0, 22.0))
    assert (change.low, change.high) == (pytest.approx(12 / 11), pytest.approx(2.2))


def test_single_turns_have_no_interval_and_are_judged_by_the_floor() -> None:
    change = compared((10.0,), (10.5,))
    assert (change.low, change.high, change.verdict) == (None, None, "slower")
    assert compared((10.0,), (10.1,)).verdict == "same"


@pytest.mark.parametrize(
    ("old", "new", "verdict"), [(286, 286, "same"), (286, 287, "worse"), (286, 285, "better"), (0, 1, "worse")]
)
def test_any_change_of_an_exact_measure_counts(old: float, new: float, verdict: str) -> None:
    change = compared((old,), (new,), unit="kernels", is_exact=True)
    assert (change.verdict, change.low) == (verdict, None)


def test_values_that_are_not_above_zero_have_no_ratio() -> None:
    change = compared((0.5, -0.5), (3.0, 4.0), unit="MB")
    assert (change.verdict, change.ratio, change.is_bad) == ("no ratio", None, False)
    assert compared((0.0,), (0.0,)).verdict == "same"


def test_several_runs_show_what_the_turns_of_one_do_not() -> None:
    """Turns of a run agree within 2 %, but the machine was slow in every second run."""
    levels = (10, 14, 10, 14)
    old = [{"a": Measure("ms", "lower", turns(level, seed=seed))} for seed, level in enumerate(levels)]
    new = [{"a": Measure("ms", "lower", turns(level, seed=seed + 9))} for seed, level in enumerate(reversed(levels))]
    assert changes(old[:1], new[:1])[0].verdict == "slower"
    (change,) = changes(old, new)
    assert change.verdict == "same"
    assert change.low is not None
    assert change.high is not None
    assert change.low < 0.8
    assert change.high > 1.25
    assert change.turns == (40, 40)


def test_worst_comes_first_and_what_is_missing_is_told() -> None:
    fast, slow = Measure("ms", "lower", turns(10)), Measure("ms", "lower", turns(20))
    found = changes(
        [{"a": fast, "b": fast, "c": slow, "gone": fast}], [{"a": fast, "b": slow, "c": fast, "more": fast}]
    )
    assert [(change.name, change.verdict) for change in found] == [
        ("gone", "vanished"),
        ("b", "slower"),
        ("a", "same"),
        ("c", "faster"),
        ("more", "new"),
    ]
    assert found[0].new is None
    assert math.isinf(found[0].loss)


def test_interval_is_the_same_every_time() -> None:
    assert compared(turns(10), turns(11)) == compared(turns(10), turns(11))


def test_nothing_in_common_and_other_units_are_refused() -> None:
    some = Measure("ms", "lower", (1.0,))
    with pytest.raises(DataError, match="expected some in both"):
        changes([{"a": some}], [{"b": some}])
    with pytest.raises(DataError, match="expected one unit"):
        changes([{"a": some}], [{"a": Measure("s", "lower", (1.0,))}])
