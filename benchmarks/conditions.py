"""Under which conditions a device was measured: clocks, heat, power and load before, during and after.

Nothing is set and nothing needs root: what a machine does not tell is absent, and named.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.jetson import tegrastats
from benchmarks.nvml import nvml
from stlm_edge.tensorrt import find_gpu

INTERVAL_S = 1.0

BUSY = 0.5
"""Load average for each core, from which on a machine counts as busy with something else."""


@dataclass(frozen=True)
class Moment:
    """What could be read at one moment; None is what could not.

    Attributes:
        cpu_mhz: mean clock of the cores.
        governor: of the first core's clock.
        temperature_c: of the hottest of the machine's thermal zones.
        load: processes that ran or waited to, mean of the last minute.
        gpu, driver: names.
        gpu_mhz, gpu_memory_mhz: clocks of the multiprocessors and of the memory; on a Jetson that is the machine's.
        gpu_power_w, gpu_power_limit_w: of the card; of a Jetson, what the whole module draws.
        gpu_busy_percent: share of the time in which a kernel ran.
        slowed_by: why the clocks were lowered, of heat and power only.
        power_mode: of a Jetson.
    """

    cpu_mhz: float | None = None
    governor: str | None = None
    temperature_c: float | None = None
    load: float | None = None
    gpu: str | None = None
    driver: str | None = None
    gpu_mhz: float | None = None
    gpu_memory_mhz: float | None = None
    gpu_temperature_c: float | None = None
    gpu_power_w: float | None = None
    gpu_power_limit_w: float | None = None
    gpu_busy_percent: float | None = None
    slowed_by: tuple[str, ...] | None = None
    power_mode: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values of what could be read."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


_TITLES = {
    "cpu_mhz": "the processor's clock",
    "governor": "its governor",
    "temperature_c": "temperatures",
    "load": "the load",
}
_GPU_TITLES = {
    "driver": "the driver's version",
    "gpu_mhz": "the GPU's clock",
    "gpu_temperature_c": "its temperature",
    "gpu_power_w": "its power",
    "slowed_by": "whether it was slowed down",
}


class Watch:
    """Reads the conditions now and then, until it is closed; see `watching`.

    Attributes:
        before: when it began.
        after: when it was closed; until then None.
        during: one moment a second.
    """

    def __init__(self, read: Callable[[], Moment]) -> None:
        self._read = read
        self.before = read()
        self.after: Moment | None = None
        self.during: list[Moment] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="conditions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling and read a last time."""
        self._is_over.set()
        self._thread.join()
        self.after = self._read()

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `before`, `after`, `during` (low, median and high of each number), `absent` and `warnings`."""
        moments = [self.before, *self.during, *([] if self.after is None else [self.after])]
        return {
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "during": _ranges(self.during),
            "samples": len(self.during),
            "absent": self.absent,
            "warnings": self.warnings(moments),
        }

    @property
    def absent(self) -> list[str]:
        """What this machine does not tell, in words."""
        titles = _TITLES | (_GPU_TITLES if self.before.gpu is not None else {})
        return [title for name, title in titles.items() if getattr(self.before, name) is None]

    def warnings(self, moments: list[Moment]) -> list[str]:
        """What makes figures doubtful, one sentence each."""
        found, cores = [], os.cpu_count() or 1
        if self.before.load is not None and self.before.load > BUSY * cores:
            found.append(
                f"THE MACHINE WAS BUSY: load {self.before.load:.2f} on {cores} cores at the start; read the ratios "
                "only, or measure again when nothing else runs"
            )
        reasons = sorted({reason for moment in moments for reason in moment.slowed_by or ()})
        if reasons:
            found.append(
                f"THE GPU WAS SLOWED DOWN by its {', '.join(reasons)}; cool it, raise its power limit or fix its "
                "clocks, and measure again"
            )
        return found

    def _sample(self) -> None:
        while not self._is_over.wait(INTERVAL_S):
            self.during.append(self._read())


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch the conditions as long as the block runs; `after` is there behind it."""
    with ExitStack() as stack:
        readers = [entry for entry in map(stack.enter_context, (nvml(), tegrastats())) if entry is not None]
        gpu = find_gpu()
        name = {} if gpu is None else {"gpu": gpu.name}

        def read() -> Moment:
            found: dict[str, Any] = read_processor() | name
            for reader in readers:
                found |= reader()
            return Moment(**found)

        watch = Watch(read)
        try:
            yield watch
        finally:
            watch.close()


def lines_of(conditions: Mapping[str, Any]) -> list[str]:
    """What `Watch.to_dict` gives, for people."""
    lines = [
        f"{moment}: " + ", ".join(f"{name} {_short(value)}" for name, value in conditions[moment].items())
        for moment in ("before", "after")
        if conditions[moment]
    ]
    if conditions["absent"]:
        lines.append(f"this machine does not tell {', '.join(conditions['absent'])}")
    return [*lines, *conditions["warnings"]]


def read_processor(root: Path = Path("/")) -> dict[str, Any]:
    """What Linux tells, in names of `Moment`.

    Args:
        root: what /proc and /sys lie in.
    """
    clocks = root / "sys/devices/system/cpu"
    khz = [_number(path) for path in clocks.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    mhz = [value / 1e3 for value in khz if value is not None] or _cpuinfo_mhz(root / "proc/cpuinfo")
    zones = [_number(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    heat = [value / 1e3 for value in zones if value is not None and value > 0]
    load = _text(root / "proc/loadavg")
    found = {
        "cpu_mhz": fmean(mhz) if mhz else None,
        "governor": _text(clocks / "cpu0/cpufreq/scaling_governor"),
        "temperature_c": max(heat, default=None),
        "load": None if load is None else float(load.split()[0]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return " and ".join(value) or "nothing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpuinfo_mhz(path: Path) -> list[float]:
    lines = (_text(path) or "").splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _number(path: Path) -> float | None:
    text = _text(path)
    return None if text is None else float(text)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:  # not there, or a sensor that does not answer
        return None


def _ranges(moments: list[Moment]) -> Mapping[str, dict[str, float]]:
    numbers: dict[str, list[float]] = {}
    for moment in moments:
        for name, value in moment.to_dict().items():
            if isinstance(value, int | float):
                numbers.setdefault(name, []).append(value)
    return {name: {"low": min(own), "median": median(own), "high": max(own)} for name, own in numbers.items()}
