"""`gpio://` against a chip that only notes what is asked of it: nobody has tried a real one."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("gpiod", reason="needs the extra gpio")

import gpiod
from gpiod.line import Direction, Value

from runtime.part import PartVerdict
from runtime.sinks import SinkContext, open_outputs, open_sink
from stlm_edge.errors import OutputError

from .conftest import ENGINE, inspection
from .fake_line import part

CONTEXT = SinkContext(engine_sha256=ENGINE, has_parts=True)


@dataclass
class Request:
    """Of one line; its levels as the wire has them, with the time of each."""

    chip: str
    line: int | str
    settings: Any
    levels: list[tuple[bool, float]] = field(default_factory=list)
    is_released: bool = False
    fails: bool = False

    def __post_init__(self) -> None:
        self._put(self.settings.output_value)

    def __bool__(self) -> bool:
        return not self.is_released

    def set_value(self, line: int | str, value: Value) -> None:
        assert line == self.line
        if self.is_released:
            raise gpiod.RequestReleasedError
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._put(value)

    def release(self) -> None:
        self.is_released = True

    @property
    def seen(self) -> list[bool]:
        """The levels without repetitions; high is True."""
        levels = [level for level, _ in self.levels]
        return [level for index, level in enumerate(levels) if index == 0 or level != levels[index - 1]]

    def until(self, *levels: bool) -> None:
        end_s = time.monotonic() + 10
        while self.seen != list(levels):
            assert time.monotonic() < end_s, self.seen
            time.sleep(0.002)

    def _put(self, value: Value) -> None:
        self.levels.append(((value == Value.ACTIVE) != self.settings.active_low, time.monotonic()))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    made: list[Request] = []

    def request_lines(path: str, *, consumer: str, config: dict[int | str, Any]) -> Request:
        ((line, settings),) = config.items()
        assert (consumer, settings.direction) == ("stlm-edge", Direction.OUTPUT)
        made.append(Request(path, line, settings))
        return made[-1]

    monkeypatch.setattr(gpiod, "request_lines", request_lines)
    return made


@pytest.mark.parametrize(
    ("options", "verdict", "levels"),
    [
        # Active says reject, and so does the wire unless a part is good for a moment.
        ("on=reject&default=reject", "good", [True, False, True]),
        ("on=reject&default=reject", "reject", [True]),
        # A valve that is fired.
        ("on=reject&default=good", "reject", [False, True, False]),
        ("on=reject&default=good", "unclear", [False, True, False]),
        ("on=reject&default=good", "missed", [False, True, False]),
        ("on=reject&default=good", "fault", [False, True, False]),
        ("on=reject&default=good", "good", [False]),
        # A gate that is opened.
        ("on=good&default=reject", "good", [False, True, False]),
        ("on=good&default=reject", "unclear", [False]),
        ("on=good&default=reject&active=low", "good", [True, False, True]),
    ],
)
def test_part_is_told_for_a_pulse(requests, options, verdict: PartVerdict, levels):
    with open_sink(f"gpio://gpiochip0/17?pulse-ms=20&{options}", context=CONTEXT) as sink:
        (request,) = requests
        sink.write(inspection())
        sink.write_part(part(verdict=verdict))
        request.until(*levels)
        assert (request.chip, request.line) == ("/dev/gpiochip0", 17)
        if len(levels) > 1:
            (begun_s,) = [time_s for level, time_s in request.levels if level == levels[1]]
            assert request.levels[-1][1] - begun_s >= 0.02
    assert request.is_released
    assert request.seen == levels


def test_by_default_only_a_good_part_takes_reject_away(requests):
    with open_sink("gpio://gpiochip0/PQ.05", context=CONTEXT) as sink:
        (request,) = requests
        assert (request.line, request.seen, sink.state) == ("PQ.05", [True], "says reject")
        sink.write_part(part(verdict="reject"))
        sink.write_part(part())
        assert sink.state == "says good"
        request.until(True, False, True)


def test_result_within_a_pulse_takes_the_place_of_the_one_before(requests):
    with open_sink("gpio://gpiochip0/17?pulse-ms=60000", context=CONTEXT) as sink:
        (request,) = requests
        sink.write_part(part())
        sink.write_part(part(verdict="reject"))
        assert request.seen == [True, False, True]


def test_pulse_of_the_second_of_two_good_parts_is_as_long_as_any(requests):
    with open_sink("gpio://gpiochip0/17?pulse-ms=60", context=CONTEXT) as sink:
        (request,) = requests
        sink.write_part(part())
        time.sleep(0.03)
        sink.write_part(part())
        request.until(True, False, True)
    low_s = [time_s for level, time_s in request.levels if not level]
    assert request.levels[-1][0] and len(low_s) == 2
    back_s = next(time_s for level, time_s in request.levels[1:] if level)
    assert back_s - low_s[-1] >= 0.06


def test_end_within_a_pulse_says_the_default_at_once(requests):
    with open_sink("gpio://gpiochip0/17?pulse-ms=60000", context=CONTEXT) as sink:
        sink.write_part(part())
        sink.close()
        assert (requests[0].seen, requests[0].is_released) == ([True, False, True], True)


def test_error_that_ends_the_run_says_the_default(requests):
    uris = ["gpio://gpiochip0/17?pulse-ms=60000"]
    with (
        pytest.raises(RuntimeError, match="of something else"),
        open_outputs(uris, context=CONTEXT, drops=True, on_publish=lambda _: None) as outputs,
    ):
        outputs._workers[uris[0]].sink.write_part(part())
        raise RuntimeError("of something else")
    assert (requests[0].seen, requests[0].is_released) == ([True, False, True], True)


def test_line_that_cannot_be_set_is_told_and_still_given_back(requests):
    sink = open_sink("gpio://gpiochip0/17", context=CONTEXT)
    requests[0].fails = True
    with pytest.raises(OutputError, match=r"gpio://gpiochip0/17 cannot be set \(.*\) and keeps saying reject"):
        sink.write_part(part())
    with pytest.raises(OutputError, match="cannot be set"):
        sink.close()
    assert requests[0].is_released


def test_pulse_that_cannot_be_ended_is_told(requests, caplog):
    with open_sink("gpio://gpiochip0/17?pulse-ms=20", context=CONTEXT) as sink:
        sink.write_part(part())
        requests[0].fails = True
        end_s = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < end_s:
            time.sleep(0.002)
        requests[0].fails = False
    assert "keeps saying good; check the chip, and see that no part passes" in caplog.messages[0]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gpio://nochip/17", r"gpio://nochip/17 cannot be used \(No such file or directory\); gpioinfo lists chips"),
        ("gpio://null/17", "gpio://null/17 cannot be used"),
        ("gpio://gpiochip0", "is no line of a chip; expected gpio://CHIP/LINE"),
        ("gpio://../17", "cannot be used|is no line of a chip"),
        ("gpio://gpiochip0/17?on=bad", "on is 'bad', expected reject or good"),
        ("gpio://gpiochip0/17?pulse-ms=0", "pulse-ms is '0', expected a number from 1 to 60000"),
        ("gpio://gpiochip0/17?pulse-ms=nan", "pulse-ms is 'nan', expected a number"),
    ],
)
def test_line_that_is_not_there_is_one_clear_line(uri, message):
    with pytest.raises(OutputError, match=message) as error:
        open_sink(uri, context=CONTEXT)
    assert "\n" not in str(error.value)
