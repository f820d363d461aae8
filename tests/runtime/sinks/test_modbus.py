"""A simulated PLC, by a Modbus client of its own, walks the handshake of `modbus://`."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

pytest.importorskip("pymodbus", reason="needs the extra modbus")

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from runtime.event import Event
from runtime.part import PartVerdict
from runtime.sinks import FrameSink, SinkContext, open_outputs, open_sink
from stlm_edge.errors import OutputError

from .cable import Cable, free_port
from .conftest import ENGINE
from .fake_line import FakeLine, part

pytestmark = pytest.mark.heavy

# As docs/line.md has them, and not as the server computes them.
TRIGGER, RESULTS_ACK, PART_ID, RECIPE_ID, STATUS = 0, 1, 2, 4, 16


@dataclass(frozen=True)
class Registers:
    """What a PLC reads from address 16 on in one request."""

    ready: int
    ack: int
    results_valid: int
    result: int
    verdict: int
    error: int
    recipe_id: int
    heartbeat: int
    part_id: int
    part_number: int
    score: float
    missed: int
    ack_part: int


class Plc:
    """Asks again after a cut, as a PLC does: it only writes levels, so that twice is as good as once."""

    def __init__(self, port: int) -> None:
        self._client = ModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0)
        self.cuts = 0

    def close(self) -> None:
        self._client.close()

    def read(self, *, function: str = "read_holding_registers") -> Registers:
        words = self._ask(lambda: getattr(self._client, function)(STATUS, count=18)).registers
        return Registers(*struct.unpack(">HHHHHHHHIIfII", struct.pack(">18H", *words)))

    def write(self, address: int, *values: int) -> None:
        self._ask(lambda: self._client.write_registers(address, list(values)))

    def until(self, condition: Callable[[Registers], object], *, within_s: float = 10) -> Registers:
        end_s = time.monotonic() + within_s
        while not condition(registers := self.read()):
            assert time.monotonic() < end_s, registers
        return registers

    def judge(self, part_id: int) -> Registers:
        """The whole handshake for one part; what was read of its result."""
        self.until(lambda seen: seen.ready)
        self.write(TRIGGER, 1, 0, *divmod(part_id, 1 << 16))
        self.until(lambda seen: seen.ack)
        self.write(TRIGGER, 0)
        self.until(lambda seen: not seen.ack)
        result = self.until(lambda seen: seen.results_valid)
        self.write(RESULTS_ACK, 1)
        self.until(lambda seen: not seen.results_valid)
        self.write(RESULTS_ACK, 0)
        return result

    def _ask(self, request):
        while True:
            try:
                if self._client.connected or self._client.connect():
                    answer = request()
                    assert not answer.isError(), answer
                    return answer
            except (ModbusException, OSError):
                pass
            self.cuts += 1
            self._client.close()


@pytest.fixture
def line() -> Iterator[FakeLine]:
    line = FakeLine()
    yield line
    line.end()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def sink(line: FakeLine, told: list[Event], port: int) -> Iterator[FrameSink]:
    context = SinkContext(engine_sha256=ENGINE, has_parts=True, control=line, tell=told.append)
    with open_sink(f"modbus://127.0.0.1:{port}", context=context) as sink:
        line.sink = sink
        yield sink


@pytest.fixture
def plc(sink: FrameSink, port: int) -> Iterator[Plc]:
    with closing(Plc(port)) as plc:
        yield plc


@pytest.mark.parametrize("parts", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_plc_gets_each_result_once_and_in_order_over_a_network_that_is_cut(line, sink, port, parts):
    with ExitStack() as stack:
        cable = stack.enter_context(closing(Cable(port, cuts=0.02)))
        plc = stack.enter_context(closing(Plc(cable.port)))
        results = [plc.judge(1 << 16 | number) for number in range(parts)]
    assert line.triggered == [str(1 << 16 | number) for number in range(parts)]
    assert [result.part_id for result in results] == [1 << 16 | number for number in range(parts)]
    assert [result.part_number for result in results] == list(range(parts))
    assert [result.result for result in results] == [int(number % 3 != 2) for number in range(parts)]
    assert {result.missed for result in results} == {0}
    assert cable.cut > parts // 20


def test_block_that_is_read_in_one_request_is_of_one_part(sink, port):
    """Every part has values of its own, and the results change as fast as they can while two PLCs read."""
    ends = threading.Event()

    def change() -> None:
        number = 0
        while not ends.is_set():
            sink.write_part(part(number, part_id=str(number), score=float(number % 1000)))
            number += 1
            time.sleep(0.0002)

    changing = threading.Thread(target=change)
    seen: list[Registers] = []

    def read() -> None:
        with closing(Plc(port)) as plc:
            seen.extend(plc.read() for _ in range(1000))

    readers = [threading.Thread(target=read) for _ in range(2)]
    changing.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    ends.set()
    changing.join()
    valid = [each for each in seen if each.results_valid]
    assert len({each.part_number for each in valid}) > 100
    assert all(each.part_id == each.part_number and each.score == each.part_number % 1000 for each in valid)
    assert all(each.result == each.verdict == 1 for each in valid)
    gaps = [each for each in seen if not each.results_valid]
    assert gaps and all((each.result, each.verdict, each.part_id, each.score) == (0, 0, 0, -1.0) for each in gaps)


@pytest.mark.parametrize(("verdict", "code"), [("good", 1), ("unclear", 2), ("reject", 3), ("missed", 4), ("fault", 5)])
def test_only_a_part_proven_good_reads_as_good(sink, plc, verdict: PartVerdict, code: int):
    assert plc.read().result == 0
    score = None if verdict == "missed" else 0.25
    sink.write_part(part(5, part_id="4294967295", verdict=verdict, score=score))
    seen = plc.until(lambda seen: seen.results_valid)
    assert (seen.result, seen.verdict) == (int(verdict == "good"), code)
    assert (seen.part_id, seen.part_number, seen.score) == (2**32 - 1, 5, -1.0 if score is None else 0.25)


@pytest.mark.parametrize("part_id", [None, "door left", "4294967296", "9" * 5000, "²"])
def test_name_that_is_no_number_of_a_plc_reads_as_0(sink, plc, part_id):
    sink.write_part(part(1, part_id=part_id))
    assert plc.until(lambda seen: seen.results_valid).part_id == 0


def test_plc_that_never_acknowledges_sees_the_newest_result_and_what_it_missed(sink, plc, told):
    for number in range(3):
        sink.write_part(part(number))
        assert plc.until(lambda seen: seen.results_valid).part_number == number
    assert plc.read().missed == 2
    assert [event.kind for event in told] == ["part-lost"]
    assert "the result of part 0 was not acknowledged before the next one came; 1 part missed" in told[0].text
    assert sink.state.endswith("1 client, 2 missed")


def test_results_that_were_lost_are_told_to_all_outputs(tmp_path, port):
    events = tmp_path / "events.jsonl"
    context = SinkContext(engine_sha256=ENGINE, has_parts=True)
    uris = [f"modbus://:{port}", str(events)]
    with open_outputs(uris, context=context, drops=True, on_publish=lambda _: None) as outputs:
        sink = outputs._workers[uris[0]].sink
        for number in range(2):
            sink.write_part(part(number))
        end_s = time.monotonic() + 10
        while not events.read_text() and time.monotonic() < end_s:
            time.sleep(0.005)
    assert '"event": "part-lost"' in events.read_text()


def test_recipe_is_changed_and_one_that_there_is_not_is_told(line, sink, plc):
    plc.write(RECIPE_ID, 7)
    assert plc.until(lambda seen: seen.recipe_id).recipe_id == 7
    plc.write(RECIPE_ID, 99)
    seen = plc.read()
    assert (seen.error, seen.recipe_id) == (2, 7)
    plc.write(RECIPE_ID, 8)
    sink.write_event(Event("recipe-refused", "recipe 8 cannot be used and 7 stays", 0.0, {"recipe": "8"}))
    assert plc.until(lambda seen: seen.error).error == 2


def test_refused_trigger_is_told_and_counted(line, sink, plc):
    line.ready = False
    assert plc.read().ready == 0
    plc.write(TRIGGER, 1)
    seen = plc.read()
    assert (seen.ack, seen.error, seen.missed) == (0, 1, 1)
    plc.write(TRIGGER, 0)
    assert plc.read().error == 0


def test_heartbeat_counts_twice_a_second(sink, plc):
    first = plc.read().heartbeat
    start_s = time.monotonic()
    plc.until(lambda seen: (seen.heartbeat - first) & 0xFFFF >= 2)
    assert time.monotonic() - start_s < 5


def test_registers_outside_and_those_of_the_line_are_not_written(sink, port):
    with closing(ModbusTcpClient("127.0.0.1", port=port, timeout=1)) as client:
        assert client.connect()
        answers = [
            client.write_register(STATUS, 1),
            client.write_registers(RECIPE_ID, [1, 1]),
            client.read_holding_registers(0, count=35),
            client.write_register(TRIGGER, 2),
            client.write_coil(0, True),
            client.read_coils(0),
        ]
        assert [answer.exception_code for answer in answers] == [2, 2, 2, 3, 1, 1]
        # Reading and writing in one request, and the whole table at once.
        both = client.readwrite_registers(read_address=0, read_count=34, write_address=RESULTS_ACK, values=[1])
        assert both.registers[:5] == [0, 1, 0, 0, 0]
        assert client.read_input_registers(0, count=34).registers[:5] == [0, 1, 0, 0, 0]


def test_result_is_there_for_the_next_request(sink, plc):
    """No wait of the server's own lies between a result and the registers."""
    waits_ms = []
    for number in range(100):
        sink.write_part(part(number))
        start_s = time.monotonic()
        plc.until(lambda seen: seen.results_valid)
        waits_ms.append(1e3 * (time.monotonic() - start_s))
        plc.write(RESULTS_ACK, 1)
        plc.write(RESULTS_ACK, 0)
    assert sorted(waits_ms)[50] < 20


def test_taken_port_is_one_clear_line(sink, port):
    with pytest.raises(OutputError, match=rf"cannot listen on 127\.0\.0\.1 port {port} \(Address already in use\)"):
        open_sink(f"modbus://:{port}", context=SinkContext(engine_sha256=ENGINE, has_parts=True))


def test_port_that_needs_other_rights_is_told_apart(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(OutputError, match=r"port 502 \(Permission denied\); give a port above 1023"):
        open_sink("modbus://127.0.0.1:502", context=SinkContext(engine_sha256=ENGINE, has_parts=True))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("modbus://127.0.0.1:0x10", "is no address to listen on"),
        ("modbus://127.0.0.1:1502/plc", "is no address to listen on; expected modbus://ADDRESS:PORT"),
        ("modbus://user:word@127.0.0.1", "is no address to listen on"),
        ("modbus://?unit=1", "there is no option 'unit'; known options are none"),
        ("modbus://192.0.2.1", "cannot listen on 192.0.2.1 port 1502"),
    ],
)
def test_uri_that_does_not_fit_says_what_does(uri, message):
    with pytest.raises(OutputError, match=message):
        open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True))


def test_without_an_address_only_this_machine_is_served(port):
    with open_sink(f"modbus://:{port}", context=SinkContext(engine_sha256=ENGINE, has_parts=True)) as sink:
        assert sink.state == f"listens on 127.0.0.1:{port}, 0 clients, 0 missed"


def test_end_is_harmless_twice_and_frees_the_port(line, port):
    for _ in range(2):
        with (
            open_sink(f"modbus://:{port}", context=SinkContext(engine_sha256=ENGINE, has_parts=True)) as sink,
            closing(Plc(port)) as plc,
        ):
            plc.read()
            sink.close()


def test_other_outputs_do_without_the_library():
    code = "import sys, runtime.sinks; assert not {'pymodbus', 'asyncua', 'gpiod', 'asyncio'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
