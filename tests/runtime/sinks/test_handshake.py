"""Four phases for a trigger, four for a result; whatever the PLC does, no result is taken for another."""

from __future__ import annotations

import time

import pytest

from runtime.event import Event
from runtime.sinks.handshake import (
    NO_ERROR,
    RECIPE_REFUSED,
    TRIGGER_REFUSED,
    Handshake,
    Losses,
    line_state,
)

from .fake_line import FakeLine, part


@pytest.fixture
def line():
    line = FakeLine(judges=False)
    yield line
    line.end()


@pytest.fixture
def losses():
    return Losses("modbus://", None)


@pytest.fixture
def handshake(line, losses):
    return Handshake(line, losses)


def numbers(handshake):
    """What is shown to somebody who reads twice, as number or None."""
    seen = []
    for _ in range(2):
        seen.append(None if handshake.shown is None else handshake.shown.number)
        handshake.was_read()
    return seen


def test_trigger_begins_one_part_however_often_it_is_written(handshake, line):
    assert handshake.is_idle
    for _ in range(3):
        handshake.set_trigger(True, part_id="7")
    assert line.triggered == ["7"]
    assert handshake.ack and not handshake.is_idle
    handshake.set_trigger(False, part_id="7")
    assert not handshake.ack and handshake.is_idle
    handshake.set_trigger(True, part_id=None)
    assert line.triggered == ["7", None]
    assert handshake.ack_part == 1


def test_refused_trigger_is_told_until_it_is_lowered_and_counted(handshake, line, losses):
    line.ready = False
    handshake.set_trigger(True, part_id=None)
    assert (handshake.ack, handshake.error, losses.count) == (False, TRIGGER_REFUSED, 1)
    line.ready = True
    handshake.set_trigger(True, part_id=None)  # no new edge
    assert line.triggered == []
    handshake.set_trigger(False, part_id=None)
    assert handshake.error == NO_ERROR


def test_line_that_is_not_controlled_refuses_triggers_and_recipes(losses):
    handshake = Handshake(None, losses)
    handshake.set_trigger(True, part_id=None)
    assert handshake.error == TRIGGER_REFUSED
    handshake.set_trigger(False, part_id=None)
    handshake.set_recipe(3)
    assert handshake.error == RECIPE_REFUSED


def test_result_stays_until_it_is_acknowledged(handshake, losses):
    handshake.add(part(0))
    assert numbers(handshake) == [0, 0]
    handshake.set_results_ack(True)
    assert numbers(handshake) == [None, None]
    handshake.add(part(1))
    assert numbers(handshake) == [None, None]  # the acknowledgement of the one before is still up
    handshake.set_results_ack(False)
    assert numbers(handshake) == [1, 1]
    assert losses.count == 0


def test_result_that_nobody_acknowledges_gives_way_and_is_counted(handshake, losses):
    handshake.add(part(0))
    assert numbers(handshake) == [0, 0]
    handshake.add(part(1))
    assert losses.count == 1
    assert numbers(handshake) == [None, 1]  # the change is seen as a gap, so 1 is not taken for 0


def test_acknowledgement_that_comes_too_late_is_not_taken_for_the_next_result(handshake, losses):
    handshake.add(part(0))
    assert numbers(handshake) == [0, 0]
    handshake.add(part(1))
    handshake.set_results_ack(True)  # meant for 0, which was shown when the PLC last read
    assert numbers(handshake) == [None, None]
    handshake.set_results_ack(False)
    assert numbers(handshake) == [1, 1]
    handshake.set_results_ack(True)
    assert losses.count == 1


def test_of_results_that_wait_the_newest_is_shown_and_the_others_are_counted(handshake, losses):
    for number in range(5):
        handshake.add(part(number))
    assert losses.count == 4
    assert numbers(handshake) == [None, 4]


def test_acknowledgement_that_is_never_lowered_shows_nothing(handshake, losses):
    handshake.set_results_ack(True)
    handshake.add(part(0))
    handshake.add(part(1))
    assert numbers(handshake) == [None, None]
    assert losses.count == 1


def test_end_counts_what_nobody_acknowledged(handshake, losses):
    handshake.add(part(0))
    handshake.end()
    handshake.end()
    assert (handshake.shown, losses.count) == (None, 1)


def test_recipe_is_asked_for_once_and_a_refused_one_is_told(handshake, line):
    for number in (0, 3, 3, 99):
        handshake.set_recipe(number)
    assert line.recipes == ["3"]
    assert handshake.error == RECIPE_REFUSED
    handshake.set_recipe(4)
    assert line.recipes == ["3", "4"]
    assert handshake.error == NO_ERROR


def test_recipe_that_could_not_be_opened_is_an_error_until_another_is_asked_for_or_used(handshake, line):
    def refused(recipe: str) -> Event:
        return Event("recipe-refused", f"recipe {recipe} cannot be used", 0.0, {"recipe": recipe})

    handshake.set_recipe(3)
    handshake.hear(refused("disc"))  # somebody else's
    handshake.hear(Event("recipe-refused", "recipe of the file cannot be used", 0.0))
    assert handshake.error == NO_ERROR
    handshake.hear(refused("3"))
    assert handshake.error == RECIPE_REFUSED
    handshake.set_trigger(True, part_id=None)
    assert (handshake.ack, handshake.error) == (True, RECIPE_REFUSED)  # the part is judged by the one before
    line.ready = False
    handshake.set_trigger(False, part_id=None)
    handshake.set_trigger(True, part_id=None)
    assert handshake.error == TRIGGER_REFUSED
    handshake.set_trigger(False, part_id=None)
    assert handshake.error == RECIPE_REFUSED
    handshake.hear(Event("recipe-changed", "recipe disc (3) judges from the next part on", 0.0))
    assert handshake.error == NO_ERROR
    handshake.hear(refused("3"))
    handshake.set_recipe(0)
    assert handshake.error == NO_ERROR


def test_losses_are_told_once_a_minute_and_all_counted(monkeypatch):
    told: list[Event] = []
    losses = Losses("modbus://", told.append)
    now_s = time.monotonic()
    for second in (0, 1, 59, 61):
        monkeypatch.setattr(time, "monotonic", lambda second=second: now_s + second)
        losses.add("a trigger was refused")
    assert losses.count == 4
    assert [event.kind for event in told] == ["part-lost"] * 2
    assert told[0].text == "modbus://: a trigger was refused; 1 part missed there since the start"
    assert told[1].text.endswith("; 4 parts missed there since the start")


def test_heartbeat_of_a_line_that_hangs_stands_still_and_it_is_not_ready(line, monkeypatch):
    now_s = time.monotonic()
    line.progress_s = now_s
    states = []
    for second in (0, 1, 60, 61):
        monkeypatch.setattr(time, "monotonic", lambda second=second: now_s + second)
        states.append(line_state(line))
    assert [state.ready for state in states] == [True, True, False, False]
    assert [state.hangs for state in states] == [False, False, True, True]
    assert states[1].heartbeat == (states[0].heartbeat + 2) & 0xFFFF
    assert states[2].heartbeat == states[3].heartbeat
