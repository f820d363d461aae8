"""An NVIDIA GPU's clocks, heat and power, by NVML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SLOWED_BY = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software's heat limit",
    0x40: "hardware's heat limit",
    0x80: "power brake",
}
"""Bits of NVML's reasons why clocks are lower than they could be. The others are neither heat nor power: idleness, or
clocks that somebody has set."""


@contextmanager
def nvml() -> Iterator[Callable[[], dict[str, Any]] | None]:
    """What reads the first GPU, in names of `benchmarks.conditions.Moment`; None without NVML or a GPU."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except pynvml.NVMLError:
            yield None
            return
        yield lambda: _read(pynvml, handle)
    finally:
        pynvml.nvmlShutdown()


def _read(pynvml: Any, handle: Any) -> dict[str, Any]:
    """What can be read: virtual and partitioned GPUs keep some of it to themselves."""
    questions: dict[str, Callable[[], Any]] = {
        "gpu": lambda: _text(pynvml.nvmlDeviceGetName(handle)),
        "driver": lambda: _text(pynvml.nvmlSystemGetDriverVersion()),
        "gpu_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "gpu_memory_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "gpu_temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        "gpu_power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "gpu_power_limit_w": lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        "gpu_busy_percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        "slowed_by": lambda: _reasons(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
    }
    found = {}
    for name, ask in questions.items():
        try:
            found[name] = ask()
        except (pynvml.NVMLError, AttributeError):  # of a later binding the question may be gone
            continue
    return found


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(words for bit, words in SLOWED_BY.items() if bits & bit)
