"""A Jetson's clocks, heat and power, from the lines of its `tegrastats`, and its power mode."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

_FIRST_LINE_S = 5.0

_GPU = re.compile(r"GR3D_FREQ (\d+)%(?:@\[?(\d+(?:,\d+)*)\]?)?")
_MEMORY = re.compile(r"EMC_FREQ \d+%@(\d+)")
_HEAT = re.compile(r"\bgpu@(-?\d+(?:\.\d+)?)C", re.IGNORECASE)
_CORES = re.compile(r"CPU \[([^\]]*)\]")
_POWER = re.compile(r"\b(?:VDD_IN|POM_5V_IN) (\d+)(?:mW)?/")
_POWER_MODE = re.compile(r"NV Power Mode: *(\S+)")


def parse_tegrastats(line: str) -> dict[str, Any]:
    """What a line says, in names of `benchmarks.conditions.Moment`; what it leaves out is left out.

    Power is that of the whole module, which AGX modules do not measure in one place. Clocks of the GPU are told to root
    only, on some releases.
    """
    found: dict[str, Any] = {}
    if gpu := _GPU.search(line):
        found["gpu_busy_percent"] = int(gpu[1])
        if gpu[2]:
            found["gpu_mhz"] = max(map(int, gpu[2].split(",")))
    if memory := _MEMORY.search(line):
        found["gpu_memory_mhz"] = int(memory[1])
    if (heat := _HEAT.search(line)) and float(heat[1]) > 0:  # a sensor that is off reads -256
        found["gpu_temperature_c"] = float(heat[1])
    if cores := _CORES.search(line):
        clocks = [int(core.rpartition("@")[2]) for core in cores[1].split(",") if "@" in core]
        if clocks:
            found["cpu_mhz"] = sum(clocks) / len(clocks)
    if power := _POWER.search(line):
        found["gpu_power_w"] = int(power[1]) / 1e3
    return found


def power_mode() -> str | None:
    """The one that `nvpmodel` tells, such as `MAXN`; None where there is no such program."""
    if shutil.which("nvpmodel") is None:
        return None
    done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False, timeout=10)
    found = _POWER_MODE.search(done.stdout)
    return found[1] if found else None


@contextmanager
def tegrastats(*, interval_ms: int = 1000) -> Iterator[Callable[[], dict[str, Any]] | None]:
    """What tells the latest line of a `tegrastats` that runs meanwhile; None where there is no such program."""
    program = shutil.which("tegrastats")
    if program is None:
        yield None
        return
    mode = power_mode()
    with subprocess.Popen(
        [program, "--interval", str(interval_ms)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        latest = _Latest(process.stdout)
        try:
            yield lambda: latest.read() | ({} if mode is None else {"power_mode": mode})
        finally:
            process.terminate()
            latest.join()


class _Latest(threading.Thread):
    """Reads lines as they come and keeps the last one."""

    def __init__(self, lines: IO[str]) -> None:
        super().__init__(name="tegrastats", daemon=True)
        self._lines = lines
        self._line = ""
        self._has_begun = threading.Event()
        self.start()

    def run(self) -> None:
        for line in self._lines:
            self._line = line
            self._has_begun.set()
        self._has_begun.set()  # it has ended, so nobody need wait for its first line

    def read(self) -> dict[str, Any]:
        """What the last line says; waits for the first one."""
        self._has_begun.wait(_FIRST_LINE_S)
        return parse_tegrastats(self._line)
