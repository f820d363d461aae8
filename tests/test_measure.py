"""Subjects take turns, each in a process of its own, and what they measure comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stlm_edge.errors import EngineError
from stlm_edge.measure import Measured, Ratio, Schedule, Subject, measure, peak_mb, resident_mb

pytestmark = pytest.mark.heavy

QUICK = Schedule(turns=3, runs=4, settle=2, turn_s=60)


class Counting:
    def __init__(self, *, slow_s: float = 0.0) -> None:
        self.facts: dict[str, Any] = {"process": os.getpid()}
        self.slow_s = slow_s

    def run(self, index: int) -> Mapping[str, float]:
        time.sleep(self.slow_s)
        return {"total": float(index), "infer": 1.0}


@contextmanager
def opened(slow_s: float = 0.0) -> Iterator[Counting]:
    yield Counting(slow_s=slow_s)


@contextmanager
def logged(log: Path) -> Iterator[Counting]:
    with log.open("a") as file:
        file.write("opened\n")
    yield Counting()


@contextmanager
def broken() -> Iterator[Counting]:
    raise ValueError("no such kernel")
    yield


@contextmanager
def killed() -> Iterator[Counting]:
    os._exit(9)
    yield


def test_each_subject_has_its_process_and_as_many_counted_pictures_as_wanted() -> None:
    first, second = measure([Subject("a", opened), Subject("b", opened)], QUICK)
    assert (first.name, second.name) == ("a", "b")
    assert len({first.facts["process"], second.facts["process"], os.getpid()}) == 3
    assert [len(turn) for turn in first.turns] == [4, 4, 4]
    # Two pictures of each turn settle and do not count; pictures go on from turn to turn.
    assert first.pooled() == [2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17]
    assert first.quantiles(0.5) == [3.5, 9.5, 15.5]
    assert first.running_mb > 10
    assert first.peak_mb >= first.running_mb
    assert first.load_s >= 0


@pytest.mark.parametrize(("apart", "opened_times"), [(True, 2), (False, 1)])
def test_library_is_started_first_where_loading_is_timed(tmp_path: Path, apart: bool, opened_times: int) -> None:
    log = tmp_path / "opened"
    measure([Subject("a", partial(logged, log))], replace(QUICK, turns=1, loads_apart=apart))
    assert log.read_text() == "opened\n" * opened_times


def test_slow_subject_ends_its_turn_in_time_with_one_picture_at_least() -> None:
    (slow,) = measure([Subject("slow", partial(opened, 0.05))], Schedule(turns=2, runs=50, settle=5, turn_s=0.01))
    assert [len(turn) for turn in slow.turns] == [1, 1]


def test_what_there_is_is_told_after_each_round() -> None:
    seen: list[int] = []
    measure([Subject("a", opened)], QUICK, after_turn=lambda measured: seen.append(len(measured[0].turns)))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("how", "said"), [(broken, "no such kernel"), (killed, "without a word")])
def test_subject_that_fails_is_named(how: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said) as failure:
        measure([Subject("good", opened), Subject("bad", how)], QUICK)
    assert "bad" in str(failure.value)


def measured(*medians_ms: float) -> Measured:
    turns = [[{"total": ms / 2}, {"total": ms}, {"total": 9 * ms}] for ms in medians_ms]
    return Measured("a", {}, 0.0, 0.0, 0.0, 0.0, None, turns=turns)


def test_ratio_is_taken_turn_by_turn() -> None:
    assert measured(10, 30, 20).ratios(measured(20, 20, 10)) == [0.5, 1.5, 2.0]
    assert measured(10, 30, 20).ratio(measured(20, 20, 10)) == Ratio(median=1.5, low=0.5, high=2.0)


TELL = "from stlm_edge.measure import peak_mb; print(peak_mb())"


def test_peak_is_not_that_of_the_process_that_started_it() -> None:
    np.ones(40_000_000)  # 320 MB, gone at once
    told = float(subprocess.run([sys.executable, "-c", TELL], check=True, capture_output=True, text=True).stdout)
    assert peak_mb() > 320
    assert 5 < told < 160


def test_peak_stays_when_memory_is_freed() -> None:
    block = np.ones(20_000_000)
    held = resident_mb()
    del block
    assert peak_mb() > held - 1  # Linux counts by processor and sums now and then


@pytest.mark.heavy
def test_program_is_ours_whatever_lies_in_the_current_folder(tmp_path):
    (tmp_path / "runtime.py").write_text("raise SystemExit('mine')")
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", f"import sys; sys.path[0] = {root!r}\nfrom stlm_edge.measure import program\n"
               "import subprocess; sys.exit(subprocess.call([*program('runtime.camera'), '--version']))"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:9]) == (0, "stlm-edge")
