"""Contenders take turns, each in a process of its own, and what they measure comes back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from benchmarks.turns import Contender, Schedule, take_turns
from stlm_edge.errors import EngineError

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
def broken() -> Iterator[Counting]:
    raise ValueError("no such kernel")
    yield


@contextmanager
def killed() -> Iterator[Counting]:
    os._exit(9)
    yield


def test_each_contender_has_its_process_and_as_many_counted_pictures_as_wanted() -> None:
    first, second = take_turns([Contender("a", opened), Contender("b", opened)], QUICK)
    assert (first.name, second.name) == ("a", "b")
    assert len({first.facts["process"], second.facts["process"], os.getpid()}) == 3
    assert [len(turn) for turn in first.turns] == [4, 4, 4]
    # Two pictures of each turn settle and do not count; pictures go on from turn to turn.
    assert first.pooled() == [2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17]
    assert first.quantiles(0.5) == [3.5, 9.5, 15.5]
    assert first.running_mb > 10
    assert first.peak_mb >= first.running_mb
    assert first.load_s >= 0


def test_slow_contender_ends_its_turn_in_time_with_one_picture_at_least() -> None:
    (slow,) = take_turns([Contender("slow", partial(opened, 0.05))], Schedule(turns=2, runs=50, settle=5, turn_s=0.01))
    assert [len(turn) for turn in slow.turns] == [1, 1]


def test_what_there_is_is_told_after_each_round() -> None:
    seen: list[int] = []
    take_turns([Contender("a", opened)], QUICK, after_turn=lambda timed: seen.append(len(timed[0].turns)))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("how", "said"), [(broken, "no such kernel"), (killed, "without a word")])
def test_contender_that_fails_is_named(how: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said) as failure:
        take_turns([Contender("good", opened), Contender("bad", how)], QUICK)
    assert "bad" in str(failure.value)
