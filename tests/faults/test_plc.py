"""A line with a machine at its other side: how it begins where it cannot, and what the machine sees when it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..runtime.sinks.cable import free_port
from .line_process import QUICK, Running, running

pytestmark = pytest.mark.heavy

GPIOD = """
from enum import Enum
class Value(Enum):
    INACTIVE, ACTIVE = 0, 1
class Direction(Enum):
    OUTPUT = 1
class RequestReleasedError(Exception):
    pass
class LineSettings:
    def __init__(self, *, direction, active_low, output_value):
        self.output_value = output_value
class Request:
    def __init__(self, path, settings):
        self.path = path
        self.set_value(0, settings.output_value)
    def note(self, text):
        with open(NOTES, "a") as file:
            file.write(text + "\\n")
    def set_value(self, line, value):
        self.note(value.name)
    def release(self):
        self.note("released")
        self.path = None
    def __bool__(self):
        return self.path is not None
def request_lines(path, *, consumer, config):
    (settings,) = config.values()
    return Request(path, settings)
"""


def with_modules(folder: Path, **modules: str) -> dict[str, Any]:
    """An environment in which these modules come before those that are installed."""
    place = folder / "modules"
    for name, code in modules.items():
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text(code)
    return {"env": {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}}


@contextmanager
def parts_line(folder: Path, engine: Path, output: str, *more: str | Path, **options: Any) -> Iterator[Running]:
    """A line on which every frame is a part."""
    arguments = ["--engine", engine, "--source", QUICK, "--part-frames", "1", "--output", output, *more]
    with running(folder, "runtime.camera", *arguments, **options) as line:
        yield line


def the_error(line: Running) -> str:
    """The one line that says why it ended, the last of the log."""
    message, *before = reversed(line.said.read_text().splitlines())
    assert not [each for each in before if each.startswith("error:")]
    return message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_line_that_is_ended_leaves_its_wire_at_the_default(engine: Path, tmp_path: Path, number: int) -> None:
    notes = tmp_path / "notes"
    options = with_modules(tmp_path, gpiod=GPIOD.replace("NOTES", repr(str(notes))))
    (tmp_path / "modules" / "gpiod" / "line.py").write_text("from gpiod import Direction, Value\n")
    with parts_line(tmp_path, engine, "gpio://gpiochip0/17?pulse-ms=60000", **options) as line:
        line.until(notes.exists)
        assert line.end(number) == 0
    assert notes.read_text().split()[-2:] == ["ACTIVE", "released"]


def test_taken_port_ends_the_program_with_one_line(engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("pymodbus", reason="needs the extra modbus")
    uri = f"modbus://:{free_port()}"
    (tmp_path / "second").mkdir()
    with parts_line(tmp_path, engine, uri, "--output", tmp_path / "events.jsonl") as line:
        line.until((tmp_path / "events.jsonl").exists)
        with parts_line(tmp_path / "second", engine, uri) as second:
            assert second.wait() == 1
            message = the_error(second)
        assert line.end() == 0
    assert message.startswith(f"error: {uri} cannot listen on 127.0.0.1 port ")
    assert message.endswith("; end the program that has the port, or give another address or port")


def test_plc_triggers_a_line_and_gets_what_the_line_wrote_down(engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("pymodbus", reason="needs the extra modbus")
    from ..runtime.sinks.test_modbus import Plc

    port, events = free_port(), tmp_path / "events.jsonl"
    source = "test://?size=64x128&defect-rate=0.4&seed=1"
    more = ("--source", source, "--threshold", "0.9", "--trigger", "software", "--output", events)
    with parts_line(tmp_path, engine, f"modbus://:{port}", *more) as line, closing(Plc(port)) as plc:
        line.until(events.exists)
        results = [plc.judge(100 + number) for number in range(20)]
        assert line.end() == 0
    written = [event for event in map(json.loads, events.read_text().splitlines()) if "part_result" in event]
    assert [event["part_id"] for event in written] == [str(result.part_id) for result in results]
    assert [event["part_result"] == "good" for event in written] == [bool(result.result) for result in results]
    assert [round(event["worst"]["score"], 5) for event in written] == [round(result.score, 5) for result in results]
    assert {result.result for result in results} == {0, 1}
    assert results[-1].missed == 0


@pytest.mark.parametrize(
    ("uri", "module", "extra"),
    [("modbus://", "pymodbus", "modbus"), ("opcua://", "asyncua", "opcua"), ("gpio://gpiochip0/17", "gpiod", "gpio")],
)
def test_missing_library_is_named_with_its_extra(
    engine: Path, tmp_path: Path, uri: str, module: str, extra: str
) -> None:
    gone = f"raise ModuleNotFoundError({f'No module named {module}'!r}, name={module!r})"
    with parts_line(tmp_path, engine, uri, **with_modules(tmp_path, **{module: gone})) as line:
        assert line.wait() == 1
    expected = f"error: found no {module}, expected it for this command; pip install 'stlm-edge[{extra}]'"
    assert the_error(line) == expected
