"""The rules of parts, on a clock of the test's own."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict

import numpy as np
import pytest

from runtime.anomaly import Anomaly, Latency
from runtime.inspection import Fault, FrameLatency, Inspection
from runtime.part import Part
from runtime.parts import FRAME_WITHIN_S, GRACE_S, Judging, PartRule, Parts
from runtime.sources import Frame
from runtime.voting import VotingRule
from stlm_edge.errors import ConfigError

THRESHOLD, UNCLEAR = 0.6, 0.3
IMAGE = np.zeros((8, 8, 3), np.uint8)
MAP = np.zeros((4, 4), np.float32)
NO_LATENCY = FrameLatency(**dict.fromkeys((field.name for field in dataclasses.fields(FrameLatency)), 0.0))


def judged(index: int, score: float | None, *, alarm: bool | None = None, fault: Fault | None = None) -> Inspection:
    anomaly = None
    if score is not None:
        latency = Latency(0, 0, 0, 0, 0)
        anomaly = Anomaly(score, score >= THRESHOLD, MAP, (8, 8), latency, THRESHOLD, unclear_from=UNCLEAR)
    return Inspection(
        frame=Frame(IMAGE, index, 0.0, "test"),
        anomaly=anomaly,
        fault=fault,
        alarm=bool(score is not None and score >= THRESHOLD) if alarm is None else alarm,
        part=0,
        threshold=THRESHOLD,
        latency=NO_LATENCY,
        picture=None,
    )


class Bench:
    """Parts, and how they are told of frames in one line each."""

    def __init__(self, rule: PartRule, votes: VotingRule | None = None) -> None:
        self.parts = Parts(Judging(rule, votes or VotingRule()))

    def frame(self, index: int, at_s: float) -> int | None:
        return self.parts.arrived(index, timestamp_s=at_s, now_s=at_s)

    def see(self, index: int, score: float | None, at_s: float, **of: object) -> bool:
        return self.parts.judged(judged(index, score, **of), now_s=at_s)

    def results(self) -> list[str]:
        return [part.verdict for part in self.parts.take_results()]


def test_each_triggered_frame_is_a_part() -> None:
    bench = Bench(PartRule("hardware"))
    assert [bench.frame(index, index / 10) for index in range(3)] == [0, 1, 2]
    for index, score in enumerate([0.1, 0.4, 0.7]):
        assert bench.see(index, score, 1.0)
    assert bench.results() == ["good", "unclear", "reject"]


def test_results_come_in_the_order_of_the_parts() -> None:
    bench = Bench(PartRule("hardware"))
    bench.frame(0, 0.0)
    bench.parts.spoiled(timestamp_s=0.1, now_s=0.1, is_fault=False)
    assert bench.results() == []  # the second is decided, the first is not
    bench.see(0, 0.1, 0.2)
    assert bench.results() == ["good", "missed"]


@pytest.mark.parametrize(
    ("scores", "spoiled", "fault", "expected"),
    [
        ([0.1, 0.1, 0.7], None, None, "reject"),
        ([0.1, 0.7], True, None, "reject"),
        ([0.1, 0.7], False, None, "reject"),
        ([0.7, 0.1, None], None, "black", "reject"),
        ([0.4, 0.1], True, None, "fault"),
        ([0.4, 0.1, None], None, "black", "fault"),
        ([0.4, 0.1], False, None, "missed"),
        ([0.1, 0.4, 0.1], None, None, "unclear"),
        ([0.1, 0.1, 0.29], None, None, "good"),
    ],
)
def test_what_weighs_most_is_the_verdict(
    scores: list[float | None], spoiled: bool | None, fault: Fault | None, expected: str
) -> None:
    bench = Bench(PartRule("hardware", frames=3))
    if spoiled is not None:
        bench.parts.spoiled(timestamp_s=0.0, now_s=0.0, is_fault=spoiled)
    for index in range(len(scores)):
        bench.frame(index, 0.1)
    for index, score in enumerate(scores):
        bench.see(index, score, 0.2, fault=None if score is not None else fault)
    assert bench.results() == [expected]


def test_unclear_needs_as_many_votes_as_a_rejection() -> None:
    for scores, expected in (([0.4, 0.1, 0.1], "good"), ([0.4, 0.1, 0.4], "unclear"), ([0.7, 0.4, 0.1], "unclear")):
        bench = Bench(PartRule(frames=3), VotingRule(2, 3))
        for index, score in enumerate(scores):
            bench.frame(index, 0.0)
            bench.see(index, score, 0.0, alarm=False)
        assert bench.results() == [expected]


def test_part_of_fewer_frames_than_could_reject_it_is_not_proven_good() -> None:
    bench = Bench(PartRule(gap_s=0.5), VotingRule(2, 3))
    for index, at_s in enumerate([0.0, 1.0, 1.1]):
        bench.frame(index, at_s)
        bench.see(index, 0.1, at_s)
    bench.parts.finish(now_s=1.2)
    assert bench.results() == ["missed", "good"]


def test_part_that_was_rejected_once_stays_so() -> None:
    bench = Bench(PartRule(frames=2))
    for index, alarm in enumerate([True, False]):
        bench.frame(index, 0.0)
        bench.see(index, 0.1, 0.0, alarm=alarm)
    assert bench.results() == ["reject"]


def test_deadline_counts_from_the_first_frame_or_the_trigger() -> None:
    bench = Bench(PartRule("hardware", deadline_s=0.5))
    bench.frame(0, 1.0)
    assert bench.parts.due_s() == 1.5
    bench.parts.begin("A", now_s=1.2)
    bench.parts.tick(1.5)
    assert bench.results() == ["missed"]
    assert bench.parts.due_s() == 1.7
    bench.frame(1, 1.6)
    bench.see(1, 0.1, 1.69)
    assert bench.results() == ["good"]


def test_verdict_at_the_deadline_is_late_though_nobody_looked_at_the_clock() -> None:
    bench = Bench(PartRule("hardware", deadline_s=0.5))
    bench.frame(0, 0.0)
    assert not bench.see(0, 0.9, 0.5)
    assert bench.results() == ["missed"]
    bench.parts.finish(now_s=9.0)
    assert bench.results() == []


def test_deadline_tells_what_is_known_by_then() -> None:
    bench = Bench(PartRule("hardware", frames=3, deadline_s=0.5))
    for index, score in enumerate([0.9, 0.1]):
        bench.frame(index, 0.0)
        bench.see(index, score, 0.1)
    bench.parts.tick(0.5)
    assert bench.results() == ["reject"]


def test_frames_after_the_deadline_and_within_the_gap_are_not_of_the_next_part() -> None:
    bench = Bench(PartRule("hardware", frames=2, gap_s=1.0, deadline_s=0.5))
    assert bench.frame(0, 0.0) == 0
    assert bench.frame(1, 0.6) == 0
    assert bench.results() == ["missed"]
    assert (bench.frame(2, 2.0), bench.frame(3, 2.1)) == (1, 1)
    assert not bench.see(0, 0.9, 2.2)
    assert not bench.see(1, 0.9, 2.2)
    assert bench.see(2, 0.1, 2.3) and bench.see(3, 0.1, 2.3)
    assert bench.results() == ["good"]


def test_frames_after_the_deadline_begin_the_next_part_where_there_is_no_gap() -> None:
    bench = Bench(PartRule("hardware", frames=2, deadline_s=0.5))
    bench.frame(0, 0.0)
    bench.parts.tick(0.5)
    assert bench.frame(1, 0.6) == 1


def test_verdict_that_is_lacking_at_the_end_of_the_run_is_a_missed_part() -> None:
    bench = Bench(PartRule("hardware", frames=2))
    for index in range(2):
        bench.frame(index, 0.0)
    bench.see(0, 0.1, 0.1)
    bench.parts.finish(now_s=0.2)
    assert bench.results() == ["missed"]


def test_gap_ends_a_part_by_the_clock_and_by_the_next_frame() -> None:
    bench = Bench(PartRule(gap_s=0.5))
    bench.frame(0, 0.0)
    bench.see(0, 0.1, 0.1)
    bench.parts.tick(9.0)
    assert bench.results() == []  # nobody knows whether a frame waits
    assert bench.parts.due_s(quiet_since_s=0.1) == 0.5 + GRACE_S
    bench.parts.tick(0.5 + GRACE_S, quiet_since_s=0.1)
    assert bench.results() == ["good"]
    assert bench.frame(1, 9.0) == 1
    assert bench.frame(2, 9.5) == 1
    assert bench.frame(3, 10.1) == 2


def test_gap_before_a_part_has_its_frames_is_a_missed_part() -> None:
    bench = Bench(PartRule(gap_s=0.5, frames=2))
    bench.frame(0, 0.0)
    bench.see(0, 0.1, 0.1)
    bench.frame(1, 1.0)
    assert bench.results() == ["missed"]


def test_deadline_alone_cuts_a_stream_and_leaves_out_no_frame() -> None:
    bench = Bench(PartRule(deadline_s=1.0))
    bench.frame(0, 0.0)
    bench.see(0, 0.1, 0.1)
    bench.frame(1, 0.9)  # has no verdict by the end
    bench.parts.tick(1.0)
    assert bench.results() == ["good"]
    assert bench.parts.part_of(1, now_s=1.0) == 1
    assert bench.see(1, 0.9, 1.1)
    bench.parts.tick(2.0)
    assert bench.results() == ["reject"]


def test_window_in_which_nothing_was_judged_is_missed() -> None:
    bench = Bench(PartRule(deadline_s=1.0))
    bench.frame(0, 0.0)
    for end_s in (1.0, 2.0, 3.0):
        bench.parts.tick(end_s)
    assert bench.results() == ["missed"] * 3
    bench.see(0, 0.1, 3.5)
    bench.parts.tick(4.0)
    assert bench.results() == ["good"]


def test_trigger_from_outside_names_the_frame_that_comes_next() -> None:
    bench = Bench(PartRule("fifo"))
    assert bench.parts.begin("A", now_s=0.0) == (0, True)
    assert bench.frame(0, 0.1) == 0
    assert bench.frame(1, 0.2) == 1  # nobody named this one
    for index in range(2):
        bench.see(index, 0.1, 0.3)
    assert [(part.part_id, part.verdict) for part in bench.parts.take_results()] == [("A", "good"), (None, "good")]


def test_frame_that_may_be_of_either_part_proves_neither_good() -> None:
    bench = Bench(PartRule("hardware"))
    for name in "AB":
        bench.parts.begin(name, now_s=0.0)
    bench.frame(0, 0.1)
    bench.see(0, 0.1, 0.2)
    bench.parts.begin("C", now_s=0.3)
    bench.frame(1, 0.4)
    bench.see(1, 0.1, 0.5)
    assert bench.results() == ["missed", "missed", "good"]


def test_trigger_from_outside_ends_a_part_of_any_number_of_frames() -> None:
    bench = Bench(PartRule("fifo", gap_s=5.0))
    bench.parts.begin("A", now_s=0.0)
    bench.frame(0, 0.1)
    bench.see(0, 0.1, 0.2)
    bench.parts.begin("B", now_s=0.3)
    assert bench.results() == ["good"]
    assert bench.frame(1, 0.4) == 1


def test_camera_is_triggered_once_for_each_frame_after_the_one_before() -> None:
    bench = Bench(PartRule("software", frames=2))
    assert not bench.parts.wants_frame
    bench.parts.begin(None, now_s=0.0)
    for index in range(2):
        assert bench.parts.wants_frame
        bench.parts.asked(now_s=index / 10)
        assert not bench.parts.wants_frame
        bench.frame(index, index / 10 + 0.05)
    assert not bench.parts.wants_frame


def test_burst_of_a_trigger_ends_with_the_gap() -> None:
    bench = Bench(PartRule("software", gap_s=2 * FRAME_WITHIN_S))
    bench.parts.begin(None, now_s=0.0)
    bench.parts.asked(now_s=0.0)
    for index, at_s in enumerate([0.1, 0.2, 0.2 + 1.5 * FRAME_WITHIN_S]):
        assert bench.frame(index, at_s) == 0
        assert not bench.parts.wants_frame
        bench.see(index, 0.1, at_s)
    bench.parts.interrupted(now_s=2.0)  # nobody knows whether another frame was to come
    bench.parts.tick(9.0, quiet_since_s=2.0)
    assert bench.results() == ["good"]


@pytest.mark.parametrize("gap_s", [None, 1.0])
def test_part_whose_camera_was_not_triggered_by_the_deadline_waits_for_no_frame(gap_s: float | None) -> None:
    bench = Bench(PartRule("software", gap_s=gap_s, deadline_s=0.2))
    bench.parts.begin(None, now_s=0.0)
    bench.parts.tick(0.2)
    assert not bench.parts.wants_frame
    assert bench.parts.begin(None, now_s=0.3) == (1, True)


def test_rest_of_a_burst_is_not_taken_for_the_next_part() -> None:
    bench = Bench(PartRule("software", gap_s=1.0, deadline_s=0.2))
    bench.parts.begin(None, now_s=0.0)
    bench.parts.asked(now_s=0.0)
    for index, at_s in enumerate([0.1, 0.15, 0.3]):
        assert bench.frame(index, at_s) == 0
    assert bench.parts.begin(None, now_s=0.4) == (1, False)
    assert bench.results() == ["missed", "missed"]


def test_part_that_has_its_result_asks_for_no_frame_and_waits_for_none() -> None:
    bench = Bench(PartRule("software", frames=2, deadline_s=0.2))
    bench.parts.begin(None, now_s=0.0)
    bench.parts.asked(now_s=0.0)
    bench.frame(0, 0.1)
    bench.parts.tick(0.2)
    assert not bench.parts.wants_frame
    assert bench.parts.begin(None, now_s=0.3) == (1, True)


def test_frame_is_waited_for_until_a_deadline_that_is_later() -> None:
    bench = Bench(PartRule("software", deadline_s=3 * FRAME_WITHIN_S))
    bench.parts.begin(None, now_s=0.0)
    bench.parts.asked(now_s=0.0)
    assert bench.frame(0, 2 * FRAME_WITHIN_S) == 0
    bench.see(0, 0.1, 2 * FRAME_WITHIN_S)
    assert bench.results() == ["good"]


def test_frame_of_a_missed_trigger_is_not_taken_for_the_next_one() -> None:
    bench = Bench(PartRule("software", deadline_s=0.2))
    bench.parts.begin("A", now_s=0.0)
    bench.parts.asked(now_s=0.0)
    bench.parts.tick(0.2)
    assert bench.results() == ["missed"]
    assert bench.parts.begin("B", now_s=0.3) == (1, False)  # the camera still owes one
    assert bench.frame(0, 0.4) == 0
    assert not bench.see(0, 0.1, 0.5)
    assert bench.parts.begin("C", now_s=0.6) == (2, True)
    bench.parts.asked(now_s=0.6)
    bench.parts.tick(0.6 + FRAME_WITHIN_S)  # it is not waited for without end
    assert bench.frame(1, 1.7) is None
    assert bench.parts.begin("D", now_s=1.8) == (3, True)
    assert bench.results() == ["missed", "missed"]


def test_camera_that_never_answers_a_trigger_gives_a_missed_part_without_a_deadline() -> None:
    bench = Bench(PartRule("software"))
    bench.parts.begin(None, now_s=0.0)
    assert bench.parts.due_s() == FRAME_WITHIN_S
    bench.parts.tick(FRAME_WITHIN_S)
    assert bench.results() == ["missed"]


def test_lost_camera_is_a_fault_of_the_part_that_waits_for_frames() -> None:
    bench = Bench(PartRule("hardware", frames=2))
    bench.parts.interrupted(now_s=0.0)
    bench.frame(0, 0.1)
    bench.see(0, 0.1, 0.2)
    bench.parts.interrupted(now_s=0.3)
    assert bench.results() == ["fault"]


def test_worst_frame_goes_with_the_result() -> None:
    bench = Bench(PartRule("hardware", frames=3))
    for index, score in enumerate([0.2, 0.5, 0.1]):
        bench.frame(index, 1.0)
        bench.see(index, score, 1.25)
    (part,) = bench.parts.take_results()
    assert (part.worst.frame.index, part.score, part.frames) == (1, 0.5, 3)
    assert (part.begun_s, part.decided_s, part.latency_ms) == (1.0, 1.25, 250)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda: PartRule(frames=0), "a part has 0 frames"),
        (lambda: PartRule(gap_s=0.0), "gap between two parts is 0 s"),
        (lambda: PartRule(gap_s=float("inf")), "expected a time above 0"),
        (lambda: PartRule(deadline_s=-1.0), "deadline of a part is -1 s"),
        (lambda: PartRule("hardware").require_votes(VotingRule(2, 3)), "a part has 1 frame, so 2 of 3 can never vote"),
    ],
)
def test_rule_that_cannot_work_is_refused(rule: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule()


RULES = (
    PartRule("hardware"),
    PartRule("hardware", deadline_s=0.05),
    PartRule("hardware", frames=3, gap_s=0.2, deadline_s=0.4),
    PartRule("hardware", frames=2, deadline_s=0.1),
    PartRule("fifo", gap_s=0.1, deadline_s=0.5),
    PartRule("software"),
    PartRule("software", deadline_s=0.05),
    PartRule("software", frames=3, deadline_s=0.3),
    PartRule(frames=4),
    PartRule(gap_s=0.1),
    PartRule(frames=2, gap_s=0.1, deadline_s=0.15),
    PartRule(deadline_s=0.1),
)


class Chaos(Bench):
    """Random frames, triggers, losses, hangs and clocks, and a book of its own of what happened to which part."""

    def __init__(self, rule: PartRule, *, seed: int) -> None:
        super().__init__(rule)
        self.rule = rule
        self.now_s = 0.0
        self.done: list[Part] = []
        self.seen: dict[int, list[float | None]] = defaultdict(list)
        self.spoiled: set[int | None] = set()
        self._chance = random.Random(seed)
        self._in_hand: list[int] = []
        self._part_of: dict[int, int] = {}
        self._index = 0

    def run(self, parts: int) -> None:
        steps = {self._come: 40, self._spoil: 3, self._trigger: 10, self._interrupt: 1, self._see: 45, self._ask: 30}
        while len(self.done) < parts:
            self.now_s += self._chance.choice([0.0, 0.001, 0.01, 0.03, 0.3 if self._chance.random() < 0.1 else 0.005])
            self._chance.choices(list(steps), list(steps.values()))[0]()
            due_s = self.parts.due_s(quiet_since_s=-1.0)
            if due_s < self.now_s + 0.005:  # else the clock's thread is late, as on a busy machine
                self.now_s = max(self.now_s, due_s)
                self.parts.tick(self.now_s, quiet_since_s=-1.0)
            self.done += self.parts.take_results()
        self.parts.finish(now_s=self.now_s)
        self.done += self.parts.take_results()

    def _come(self) -> None:
        part = self.frame(self._index, self.now_s)
        if part is not None:
            self._in_hand.append(self._index)
            self._part_of[self._index] = part
        self._index += 1

    def _spoil(self) -> None:
        is_fault = self._chance.random() < 0.5
        self.spoiled.add(self.parts.spoiled(timestamp_s=self.now_s, now_s=self.now_s, is_fault=is_fault))

    def _trigger(self) -> None:
        if self.rule.trigger is not None:
            has_room = self._chance.random() < 0.95
            self.parts.begin(self._chance.choice([None, "A"]), now_s=self.now_s, has_room=has_room)

    def _interrupt(self) -> None:
        self.parts.interrupted(now_s=self.now_s)

    def _see(self) -> None:
        if self._in_hand:
            index = self._in_hand.pop(0)
            part = self.parts.part_of(index, now_s=self.now_s)
            assert part == self._part_of[index] or self.rule.is_window
            score = self._chance.choice([None, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.8])
            if self.see(index, score, self.now_s, fault="black" if score is None else None):
                self.seen[part].append(score)

    def _ask(self) -> None:
        if self.parts.wants_frame:
            self.parts.asked(now_s=self.now_s)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_whatever_happens_each_part_has_one_result_in_its_order_and_on_time(rule: PartRule, seed: int) -> None:
    chaos = Chaos(rule, seed=seed)
    chaos.run(300)
    assert [part.number for part in chaos.done] == list(range(len(chaos.done)))
    assert {part.verdict for part in chaos.done} >= {"good", "reject"}
    for part in chaos.done:
        seen = chaos.seen[part.number]
        assert part.frames == len(seen) - seen.count(None)
        assert part.score == max((score for score in seen if score is not None), default=None)
        assert (part.verdict == "reject") == (0.8 in seen)
        if part.verdict in ("good", "unclear"):
            assert None not in seen and part.number not in chaos.spoiled
            assert (0.4 in seen) == (part.verdict == "unclear")
            assert len(seen) >= 1 and rule.wanted in (None, len(seen))
            assert part.number not in {chaos._part_of[index] for index in chaos._in_hand} or rule.is_window
            if rule.deadline_s is not None and not rule.is_window:
                assert part.latency_ms < 1e3 * rule.deadline_s
