"""`gpio://CHIP/LINE`: one wire that says for a moment whether a part may pass. Untried on hardware."""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path
from typing import Literal

import gpiod
from gpiod.line import Direction, Value

from runtime.inspection import Inspection
from runtime.part import Part
from runtime.sinks.base import FrameSink, SinkContext, output_options
from runtime.uri import Option, allowed, choice
from stlm_edge.errors import OutputError, shortly

logger = logging.getLogger(__name__)

Says = Literal["reject", "good"]
"""What the wire tells the machine: of everything that is not proven good, `reject`."""

_OPTIONS = {
    "on": choice("reject", "good"),
    "default": choice("reject", "good"),
    "pulse-ms": Option(allowed(float, lambda value: 1 <= value <= 60_000), "a number from 1 to 60000"),
    "active": choice("high", "low"),
}


class GpioLine(FrameSink):
    """Drives a line of a GPIO chip. It says what a part is for one pulse, and at all other times the default.

    So a line of parts that hangs, fails or ends says the default within a pulse. A program that is killed (SIGKILL)
    cannot: the kernel takes the line back, and what level it keeps is up to the chip's driver and the wiring.
    """

    takes_pictures = False
    takes_frames = False

    def __init__(
        self,
        chip: Path,
        line: int | str,
        *,
        on: Says = "reject",
        default: Says = "reject",
        pulse_ms: float = 50.0,
        active: Literal["high", "low"] = "high",
    ) -> None:
        """
        Args:
            chip: its device.
            line: offset on the chip, or name.
            on: what the active level says.
            default: what the wire says while no result holds.
            pulse_ms: how long a result holds; the next one takes its place before that.
            active: the physical level that is the active one.
        Raises:
            OutputError: if the line is not there, is taken, or may not be used.
        """
        self._line = line
        self._on: Says = on
        self._default: Says = default
        self._pulse_s = pulse_ms / 1e3
        self._name = f"gpio://{chip.name}/{line}"
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._says: Says = default
        settings = gpiod.LineSettings(
            direction=Direction.OUTPUT, active_low=active == "low", output_value=self._level(default)
        )
        try:
            self._request = gpiod.request_lines(str(chip), consumer="stlm-edge", config={line: settings})
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{self._name} cannot be used ({getattr(error, 'strerror', None) or shortly(error)}); gpioinfo lists "
                f"chips, lines and who has them, and the user needs permission for {chip}"
            ) from error

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, _OPTIONS)

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> GpioLine:
        """Raises `OutputError` on unknown options too."""
        context.require_parts(uri)
        place = re.fullmatch(r"gpio://([\w.-]+)/([^/?]+)", uri.partition("?")[0])
        if place is None:
            raise OutputError(f"{uri} is no line of a chip; expected gpio://CHIP/LINE, as in gpio://gpiochip0/17")
        options = {name.replace("-", "_"): value for name, value in output_options(uri, _OPTIONS).items()}
        line = int(place[2]) if place[2].isascii() and place[2].isdecimal() else place[2]
        return cls(Path("/dev") / place[1], line, **options)

    @property
    def state(self) -> str:
        return f"says {self._says}"

    def write(self, inspection: Inspection) -> None:
        """Nothing: the machine gets one result a part."""

    def write_part(self, part: Part) -> None:
        says: Says = "good" if part.verdict == "good" else "reject"
        with self._lock:
            self._stop_timer()
            self._say(says)
            if says != self._default:
                timer = threading.Timer(self._pulse_s, self._end_pulse)
                timer.args = [timer]
                timer.daemon = True
                self._timer = timer
                timer.start()

    def close(self) -> None:
        """Say the default, and give the line back."""
        with self._lock:
            self._stop_timer()
            if not self._request:
                return
            try:
                self._say(self._default)
            finally:
                self._request.release()

    def _end_pulse(self, timer: threading.Timer) -> None:
        with self._lock:
            if self._timer is not timer:  # a result came while this waited for the lock
                return
            self._timer = None
            try:
                self._say(self._default)
            except OutputError as error:
                logger.error("%s", error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self, says: Says) -> None:
        try:
            self._request.set_value(self._line, self._level(says))
        except (OSError, gpiod.RequestReleasedError) as error:
            raise OutputError(
                f"{self._name} cannot be set ({shortly(error)}) and keeps saying {self._says}; check the chip, and see "
                "that no part passes"
            ) from error
        self._says = says

    def _level(self, says: Says) -> Value:
        return Value.ACTIVE if says == self._on else Value.INACTIVE
