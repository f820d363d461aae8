"""What a GPU says of its clock, heat, power and memory: by NVML, on a Jetson by the kernel's files.

Nothing is set and nothing needs root: what a machine does not tell is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.closing import Closing
from stlm_edge.tensorrt import find_gpu

SLOWED_BY = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software's heat limit",
    0x40: "hardware's heat limit",
    0x80: "power brake",
}
"""Bits of NVML's reasons why clocks are lower than they could be. The others are neither heat nor power: idleness, or
clocks that somebody has set."""

JETSON_CLOCKS = ("sys/class/devfreq/*.gpu", "sys/class/devfreq/gpu-gpc-0")
"""Folders of an Orin's and of a Thor's GPU clock."""

_JETSON_POWER = ("VDD_IN", "VIN", "POM_5V_IN")
"""Where a Jetson measures what all of it takes, the first that there is."""


@dataclass(frozen=True)
class GpuState:
    """Of one GPU at one moment; None for what it does not tell.

    Attributes:
        mhz: clock of the cores.
        power_w: of the card; on a Jetson, of the module or board.
        busy: share of the last moments in which it worked, 0 to 1.
        memory_used, memory: bytes; a Jetson's GPU has none of its own.
    """

    mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    busy: float | None = None
    memory_used: int | None = None
    memory: int | None = None


class Nvml(Closing):
    """The GPU that CUDA takes first. All threads may ask it until `close`.

    NVML counts GPUs by their place on the bus and CUDA the fastest first, of those that it may see.

    Attributes:
        driver: its version.
    """

    def __init__(self, nvml: Any, uuid: str) -> None:
        """
        Args:
            nvml: the module, which has not been started.
            uuid: of the GPU.
        Raises:
            nvml.NVMLError: if there is no driver, or no such GPU.
        """
        self._nvml = nvml
        nvml.nvmlInit()
        self._is_open = True
        try:
            self._gpu, self.driver = nvml.nvmlDeviceGetHandleByUUID(uuid), nvml.nvmlSystemGetDriverVersion()
        except nvml.NVMLError:
            self.close()
            raise

    def read(self) -> GpuState:
        """As it is now."""
        nvml = self._nvml
        power_mw, memory = self._ask(nvml.nvmlDeviceGetPowerUsage), self._ask(nvml.nvmlDeviceGetMemoryInfo)
        rates = self._ask(nvml.nvmlDeviceGetUtilizationRates)
        return GpuState(
            mhz=self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1e3,
            busy=None if rates is None else rates.gpu / 100,
            memory_used=None if memory is None else memory.used,
            memory=None if memory is None else memory.total,
        )

    def slowed_by(self) -> set[str]:
        """Which of `SLOWED_BY` hold it back now."""
        bits = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
        return {words for bit, words in SLOWED_BY.items() if bits & bit}

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._nvml.nvmlShutdown()

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """None where it cannot be told: virtual and partitioned GPUs keep some of it to themselves."""
        try:
            return question(self._gpu, *arguments)
        except self._nvml.NVMLError:
            return None


def open_nvml() -> Nvml | None:
    """None without NVML's Python binding (`nvidia-ml-py`), or a GPU that it knows."""
    try:
        import pynvml  # only some machines with a GPU have it
    except ImportError:
        return None
    gpu = find_gpu()
    if gpu is None or gpu.uuid is None:
        return None
    try:
        return Nvml(pynvml, gpu.uuid)
    except pynvml.NVMLError:
        return None


def read_jetson_gpu(root: Path = Path("/")) -> GpuState:
    """What the kernel's files of a Jetson say; nothing elsewhere.

    Args:
        root: what /sys lies in.
    """
    clocks = [folder / "cur_freq" for pattern in JETSON_CLOCKS for folder in root.glob(pattern)]
    if not clocks:
        return GpuState()
    hertz = next((value for path in clocks if (value := _number(path)) is not None), None)
    heats = (zone / "temp" for zone in root.glob("sys/class/thermal/thermal_zone*") if _is_gpu(_text(zone / "type")))
    heat = next((value for path in heats if (value := _number(path)) is not None and value > 0), None)
    load = _number(root / "sys/devices/platform/gpu.0/load")
    return GpuState(
        mhz=None if hertz is None else hertz / 1e6,
        temperature_c=None if heat is None else heat / 1e3,
        power_w=_jetson_power_w(root),
        busy=None if load is None else load / 1e3,
    )


def _jetson_power_w(root: Path) -> float | None:
    """By the INA3221 that measures voltage (mV) and current (mA) of some rails."""
    found: dict[str, float] = {}
    for label in root.glob("sys/class/hwmon/hwmon*/in[0-9]_label"):
        number = label.name[2]
        millivolts = _number(label.with_name(f"in{number}_input"))
        milliamperes = _number(label.with_name(f"curr{number}_input"))
        if millivolts is not None and milliamperes is not None:
            found[_text(label)] = millivolts * milliamperes / 1e6
    return next((found[rail] for rail in _JETSON_POWER if rail in found), None)


def _is_gpu(zone: str) -> bool:
    return re.match("gpu", zone, re.IGNORECASE) is not None


def _number(path: Path) -> float | None:
    """None for what is not there, or a sensor that is off, as -256000 says in places."""
    text = _text(path)
    return float(text) if re.fullmatch(r"\d+", text, re.ASCII) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
