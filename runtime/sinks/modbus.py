"""`modbus://[ADDRESS][:PORT]`: registers that a PLC reads and writes by Modbus TCP. docs/line.md has the table."""

from __future__ import annotations

import logging
import struct
from urllib.parse import urlsplit

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from runtime.control import LineControl
from runtime.event import Event, Tell
from runtime.inspection import Inspection
from runtime.part import Part, PartVerdict
from runtime.sinks.base import FrameSink, SinkContext, output_options
from runtime.sinks.handshake import Handshake, Losses, line_state
from runtime.sinks.loop_thread import LoopThread, address_of, notice_lost_clients, require_free
from stlm_edge.errors import OutputError, counted, shortly

PORT = 1502

COMMANDS, STATUS, SIZE = 0, 16, 34
"""Addresses: what the PLC writes begins at 0, what it only reads at 16; so many registers in all."""
_WRITTEN = struct.Struct(">HHIH")
"""Trigger, ResultsAck, PartId, RecipeId."""
_READ = struct.Struct(">HHHHHHHHIIfII")
"""Ready, Ack, ResultsValid, Result, Verdict, Error, RecipeId, Heartbeat, PartId, PartNumber, Score, Missed, AckPart."""
_RESULTS_VALID = STATUS + 2

VERDICTS: dict[PartVerdict, int] = {"good": 1, "unclear": 2, "reject": 3, "missed": 4, "fault": 5}
"""The register Verdict; 0 where there is no result."""
NO_SCORE = -1.0

_READING, _WRITING = (3, 4, 23), (6, 16, 23)
"""Function codes."""
_STARTS_WITHIN_S = 10.0
_WORD, _DOUBLE_WORD = 0xFFFF, 0xFFFFFFFF


class ModbusServer(FrameSink):
    """Holds the registers; a request is answered on the server's own thread, from one state.

    Results are there for the next request as soon as `write_part` has been called.
    """

    takes_pictures = False
    takes_frames = False

    def __init__(self, name: str, *, address: tuple[str, int], control: LineControl | None, tell: Tell | None) -> None:
        """
        Args:
            name: of the output, in messages.
            address: host and port.
            control: of the line; without one, triggers and recipes are refused.
            tell: takes the event that a result was lost.
        Raises:
            OutputError: if the port is taken or the address is another machine's.
        """
        require_free(name, *address)
        self._control = control
        self._losses = Losses(name, tell)
        self._handshake = Handshake(control, self._losses)
        self._written = bytes(_WRITTEN.size)
        self._place = f"{address[0]}:{address[1]}"
        # It logs, with traces, what any client on the network does wrong.
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        self._loop = LoopThread(name)
        self._is_closed = False
        try:
            self._server = self._loop.run(self._serve(address), within_s=_STARTS_WITHIN_S)
        except Exception as error:
            self._loop.close()
            raise OutputError(f"{name} cannot be opened ({shortly(error)})") from error

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, {})
        require_free(uri, *address_of(uri, urlsplit(uri), default_port=PORT))

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> ModbusServer:
        """Raises `OutputError` on any option too."""
        context.require_parts(uri)
        address = address_of(uri, urlsplit(uri), default_port=PORT)
        return cls(uri, address=address, control=context.control, tell=context.tell, **output_options(uri, {}))

    @property
    def state(self) -> str:
        clients = counted(len(self._server.active_connections), "client")
        return f"listens on {self._place}, {clients}, {self._losses.count} missed"

    def write(self, inspection: Inspection) -> None:
        """Nothing: a PLC gets one result a part."""

    def write_part(self, part: Part) -> None:
        self._loop.soon(self._handshake.add, part)

    def write_event(self, event: Event) -> None:
        self._loop.soon(self._handshake.hear, event)

    def close(self) -> None:
        """Stop listening; what was not acknowledged is counted as missed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.soon(self._handshake.end)
        try:
            self._loop.run(self._server.shutdown(), within_s=self.closes_within_s / 2)
        finally:
            self._loop.close()

    async def _serve(self, address: tuple[str, int]) -> ModbusTcpServer:
        registers = SimData(0, values=[0] * SIZE, datatype=DataType.REGISTERS)
        server = ModbusTcpServer(SimDevice(0, simdata=[registers], action=self._answer), address=address)
        await server.serve_forever(background=True)
        notice_lost_clients(server.transport.sockets)  # type: ignore[attr-defined, unused-ignore]
        return server

    async def _answer(
        self,
        function: int,
        start: int,  # noqa: ARG002 - always 0
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by pymodbus for each request, before it reads from `registers` or writes `values` into them.

        It never waits, so that nothing happens between this and the answer.
        """
        if values is None:
            if function not in (*_READING, *_WRITING):
                return ExcCodes.ILLEGAL_FUNCTION
            written = _words(self._written)
            registers[: len(written)] = written
            registers[STATUS:SIZE] = _words(self._status())
            if address <= _RESULTS_VALID < address + count and function in _READING:
                self._handshake.was_read()
            return None
        if function not in _WRITING:
            return ExcCodes.ILLEGAL_FUNCTION
        if address + count > COMMANDS + _WRITTEN.size // 2:
            return ExcCodes.ILLEGAL_ADDRESS
        written = _words(self._written)
        written[address : address + count] = values
        trigger, results_ack, part_id, recipe = _WRITTEN.unpack(struct.pack(f">{len(written)}H", *written))
        if trigger > 1 or results_ack > 1:
            return ExcCodes.ILLEGAL_VALUE
        self._handshake.set_recipe(recipe)
        self._handshake.set_results_ack(bool(results_ack))
        self._handshake.set_trigger(bool(trigger), part_id=str(part_id) if part_id else None)
        self._written = _WRITTEN.pack(trigger, results_ack, part_id, recipe)
        return None

    def _status(self) -> bytes:
        line, handshake = line_state(self._control), self._handshake
        part = handshake.shown
        return _READ.pack(
            line.ready and handshake.is_idle,
            handshake.ack,
            part is not None,
            part is not None and part.verdict == "good",
            0 if part is None else VERDICTS[part.verdict],
            handshake.error,
            line.recipe_number & _WORD,
            line.heartbeat,
            0 if part is None else _number(part.part_id),
            0 if part is None else part.number & _DOUBLE_WORD,
            NO_SCORE if part is None or part.score is None else part.score,
            self._losses.count & _DOUBLE_WORD,
            handshake.ack_part & _DOUBLE_WORD,
        )


def _words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))


def _number(part_id: str | None) -> int:
    """A part's name as a PLC gave it; 0 for one that somebody else gave and that is no such number."""
    if part_id is None or not (part_id.isascii() and part_id.isdecimal()):
        return 0
    number = int(part_id) if len(part_id) <= 10 else 0
    return number if number <= _DOUBLE_WORD else 0
