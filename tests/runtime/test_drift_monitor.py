"""A line that has changed is noticed, and one that has not is left alone."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from runtime.drift_monitor import DriftMonitor, _reference, _worth, open_drift_monitor
from runtime.event import Event
from stlm_edge.errors import ConfigError, SpecError
from stlm_edge.spec import ModelSpec, Threshold
from stlm_edge.thresholds import with_normal_scores

from .conftest import SPEC as BARE

Draw = Callable[[int], np.ndarray]
RNG = np.random.default_rng
ERRORS = (0.2, 0.05, 0.01)
"""Probabilities of a false alarm that are asked for."""


def spec_of(held_out: Iterable[float], *, threshold: float = 1.0) -> ModelSpec:
    scores = [float(score) for score in held_out]
    calibrated = Threshold(value=threshold, method="quantile", images=len(scores), false_alarm_rate=0.05)
    return with_normal_scores(dataclasses.replace(BARE, threshold=calibrated), scores)


def with_a_range_only(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, normal_score_deciles=None, normal_score_images=None)


def opened(spec: ModelSpec, *, threshold: float = 1.0, frames: int = 200) -> DriftMonitor:
    monitor = open_drift_monitor(spec, threshold=threshold, frames=frames)
    assert monitor is not None
    return monitor


def events(monitor: DriftMonitor, scores: Iterable[float]) -> list[Event]:
    return [event for score in scores if (event := monitor.add(score)) is not None]


@pytest.mark.parametrize(
    ("kind", "held_out", "frames"),
    [("deciles", 40, 200), ("deciles", 200, 200), ("deciles", 400, 50), ("range", 40, 200)],
)
def test_line_that_has_not_changed_raises_no_alarm(kind: str, held_out: int, frames: int) -> None:
    """300 models and 20 windows of each: at 1e-5 a window, 0.06 alarms are to be expected."""
    rng = RNG(0)
    alarms = 0
    for _ in range(300):
        spec = spec_of(rng.beta(2, 9, held_out))
        monitor = opened(spec if kind == "deciles" else with_a_range_only(spec), frames=frames)
        alarms += len(events(monitor, rng.beta(2, 9, 20 * frames)))
    assert alarms == 0


@pytest.mark.parametrize("share_passed", [1.0, 0.97, 0.73, 0.5])
@pytest.mark.parametrize(("held_out", "frames"), [(60, 1000), (100, 100), (1000, 200)])
def test_probability_of_a_false_alarm_is_kept(share_passed: float, held_out: int, frames: int) -> None:
    """Where it is large enough to be counted, also where the threshold cuts off much of what is good."""
    rng = RNG(1)
    threshold = share_passed + 1e-9
    alarms, windows = dict.fromkeys(ERRORS, 0), 600
    for _ in range(windows):
        reference = _reference(spec_of(rng.random(held_out)), threshold=threshold, frames=100_000)
        passed = np.sort(rng.random(frames) * share_passed)
        for error in ERRORS:
            alarms[error] += reference.has_moved(passed, worth=frames, error=error)
    assert all(found / windows <= error + 2 * np.sqrt(error / windows) for error, found in alarms.items()), alarms


def test_probability_of_a_false_alarm_is_kept_with_a_range_only() -> None:
    rng = RNG(2)
    alarms, windows = dict.fromkeys(ERRORS, 0), 600
    for _ in range(windows):
        reference = _reference(with_a_range_only(spec_of(rng.random(50))), threshold=1.0, frames=300)
        passed = np.sort(rng.random(300))
        for error in ERRORS:
            alarms[error] += reference.has_moved(passed, worth=300, error=error)
    for error, found in alarms.items():
        assert error / 3 < found / windows <= error + 2 * np.sqrt(error / windows)


def parts(rng: np.random.Generator, count: int, *, length: int, waver: float) -> np.ndarray:
    """Scores of parts that stay in view for `length` frames."""
    scores = np.repeat(rng.normal(size=-(-count // length)), length)[:count] + waver * rng.normal(size=count)
    return 1 / (1 + np.exp(-scores))  # as the network makes scores


@pytest.mark.parametrize("waver", [0.0, 0.5])
@pytest.mark.parametrize("length", [1, 10, 50])
def test_many_frames_of_one_part_count_as_few(length: int, waver: float) -> None:
    rng = RNG(3)
    spec = spec_of(parts(rng, 400, length=1, waver=waver), threshold=1)
    reference = _reference(spec, threshold=1, frames=1000)
    alarms = 0
    for _ in range(400):
        scores = parts(rng, 1000, length=length, waver=waver)
        alarms += reference.has_moved(np.sort(scores), worth=_worth(scores), error=0.05)
    assert alarms / 400 <= 0.05 + 2 * np.sqrt(0.05 / 400)


@pytest.mark.parametrize("threshold", [45.0, -1.0, 1e308])
def test_threshold_that_no_score_reaches_is_refused(threshold: float) -> None:
    spec = spec_of(RNG(0).beta(2, 9, 100))
    with pytest.raises(SpecError, match="scores lie between 0 and"):
        open_drift_monitor(spec, threshold=threshold)


def test_independent_scores_are_worth_themselves_and_equal_ones_nothing() -> None:
    rng = RNG(4)
    assert np.median([_worth(rng.random(500)) for _ in range(50)]) == pytest.approx(500, rel=0.1)
    assert _worth(np.full(500, 0.25)) < 5


@pytest.mark.parametrize("kind", ["deciles", "range"])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda rng, n: 0.4 + 0.5 * rng.beta(2, 9, n), id="higher"),
        pytest.param(lambda rng, n: 0.1 * rng.beta(2, 9, n), id="lower"),
    ],
)
def test_changed_line_is_noticed_once_and_its_return_too(
    kind: str, changed: Callable[[np.random.Generator, int], np.ndarray]
) -> None:
    rng = RNG(5)
    spec = spec_of(rng.beta(2, 9, 100))
    monitor = opened(spec if kind == "deciles" else with_a_range_only(spec))
    assert events(monitor, rng.beta(2, 9, 1000)) == []
    assert [event.kind for event in events(monitor, changed(rng, 1000))] == ["drift"]
    assert [event.kind for event in events(monitor, rng.beta(2, 9, 1000))] == ["drift-over"]
    assert events(monitor, rng.beta(2, 9, 1000)) == []


def test_notice_says_what_was_what_is_and_what_to_do() -> None:
    rng = RNG(6)
    monitor = opened(spec_of(rng.normal(0.2, 0.001, 99)))
    drift, over = events(monitor, [*rng.normal(0.3, 0.001, 200), *rng.normal(0.2, 0.001, 200)])
    assert drift.text.startswith(
        "the scores of passed frames have moved: median 0.3 over the last 200, median 0.2 on 99 held-out good "
        "pictures; check light, focus, dirt"
    )
    assert drift.text.endswith("stlm threshold ENGINE --data DIR")
    assert over.text.startswith("the scores of passed frames are back: median 0.2 over the last 200, median 0.2 on 99")
    assert "\n" not in drift.text + over.text
    assert 0 < drift.timestamp_s <= over.timestamp_s


def test_same_line_cut_off_at_a_lower_threshold_is_no_drift() -> None:
    rng = RNG(7)
    spec = spec_of(rng.random(400))
    monitor = opened(spec, threshold=0.5, frames=1000)
    assert events(monitor, 0.5 * rng.random(10_000)) == []
    assert [n.kind for n in events(monitor, 0.25 + 0.25 * rng.random(1000))] == ["drift"]


def test_scores_that_are_equal_by_rounding_are_no_drift() -> None:
    rng = RNG(8)
    coarse: Draw = lambda count: np.round(rng.beta(2, 9, count), 1)  # noqa: E731
    monitor = opened(spec_of(coarse(100)))
    assert events(monitor, coarse(4000)) == []


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        ({}, {"whole_pictures": False}, "with an area of interest or tiles"),
        ({}, {"threshold": 0.05}, "all held-out pictures score above the threshold 0.05"),
        (
            {"normal_score_deciles": None, "normal_score_range": None},
            {},
            "the engine does not say how good pictures score; choose it again from good pictures",
        ),
        (
            {"normal_score_deciles": None, "threshold": Threshold(0.9, "f1", 200)},
            {},
            "the engine does not say how good pictures score",
        ),
        ({"normal_score_deciles": None}, {"threshold": 0.5}, "lower than the chosen 1"),
        ({"normal_score_images": 4}, {}, "4 held-out pictures are too few"),
        (
            {"normal_score_deciles": None, "threshold": Threshold(1.0, "quantile", 2)},
            {"frames": 50},
            "2 held-out pictures are too few",
        ),
    ],
)
def test_where_drift_cannot_be_told_that_is_logged(
    caplog: pytest.LogCaptureFixture, change: dict[str, object], arguments: dict[str, object], reason: str
) -> None:
    spec = dataclasses.replace(spec_of(np.linspace(0.1, 0.9, 81)), **change)
    with caplog.at_level(logging.INFO):
        assert open_drift_monitor(spec, **{"threshold": 1.0, **arguments}) is None
    (line,) = caplog.messages
    assert line.startswith("drift is not watched: ")
    assert reason in line


def test_what_it_is_watched_against_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        opened(spec_of(np.linspace(0.1, 0.9, 81)), frames=100)
        opened(with_a_range_only(spec_of(np.linspace(0.1, 0.9, 81))), frames=100)
    assert caplog.messages == [
        "drift is watched: every 100 passed frames, median 0.5 on 81 held-out good pictures",
        "drift is watched: every 100 passed frames, between 0.1 and 0.9 on 81 held-out good pictures",
    ]


def test_window_of_one_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match="a window for drift has 1 frames, expected at least 2"):
        open_drift_monitor(spec_of([0.1, 0.2]), threshold=1.0, frames=1)
