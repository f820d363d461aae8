"""Under which conditions a device was measured: load, clocks, heat and power before and after, and what slowed it down.

Nothing is set and nothing needs root: what a machine does not tell is left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from runtime.gpu_state import Nvml, open_nvml

INTERVAL_S = 1.0
"""Between two looks at what slows a GPU down."""

BUSY = 0.5
"""Load average for each core, from which on a machine counts as busy with something else."""

_TEGRASTATS = {
    "gpu_busy_percent": re.compile(r"GR3D_FREQ (\d+)%"),
    "gpu_mhz": re.compile(r"GR3D_FREQ (?:\d+%)?@\[?(\d+)"),  # told to root only, on some releases
    "gpu_temperature_c": re.compile(r"\bgpu@(\d+(?:\.\d+)?)C", re.IGNORECASE),  # -256 is a sensor that is off
    "module_power_mw": re.compile(r"\b(?:VDD_IN|POM_5V_IN) (\d+)(?:mW)?/"),
    "board_power_mw": re.compile(r"\bVIN (\d+)mW/"),  # Thor measures where the whole developer kit is fed
}

_Reader = Callable[[], dict[str, Any]]


@contextmanager
def watching() -> Iterator[dict[str, Any]]:
    """JSON values: `before`, `after` (empty until the block ends) and `warnings`: what makes figures doubtful."""
    with open_nvml() or nullcontext() as nvml:
        gpu = dict if nvml is None else partial(_read_gpu, nvml)
        slowed_by = set if nvml is None else nvml.slowed_by
        with watched(lambda: read_processor() | gpu() | read_jetson(), slowed_by) as found:
            yield found


@contextmanager
def watched(read: _Reader, slowed_by: Callable[[], set[str]]) -> Iterator[dict[str, Any]]:
    """The same by what reads the conditions, and what is asked all the time why the GPU is slowed down."""
    reasons, is_over = slowed_by(), threading.Event()
    found: dict[str, Any] = {"before": read(), "after": {}}

    def look() -> None:
        while not is_over.wait(INTERVAL_S):
            reasons.update(slowed_by())
            found["warnings"] = _warnings(found["before"].get("load", 0), reasons)

    found["warnings"] = _warnings(found["before"].get("load", 0), reasons)
    thread = threading.Thread(target=look, name="conditions", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()
        found["after"] = read()


def _warnings(load: float, reasons: set[str]) -> list[str]:
    warnings, cores = [], os.cpu_count() or 1
    if load > BUSY * cores:
        warnings.append(
            f"THE MACHINE WAS BUSY: load {load:.2f} on {cores} cores at the start; read the ratios only, or "
            "measure again when nothing else runs"
        )
    if reasons:
        warnings.append(
            f"THE GPU WAS SLOWED DOWN by its {', '.join(sorted(reasons))}; cool it, raise its power limit or "
            "fix its clocks, and measure again"
        )
    return warnings


def lines_of(conditions: Mapping[str, Any]) -> list[str]:
    """What `watching` gives, for people, without its warnings."""
    return [
        f"{moment}: "
        + ", ".join(f"{name} {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in found.items())
        for moment in ("before", "after")
        if (found := conditions[moment])
    ]


def read_processor(root: Path = Path("/")) -> dict[str, Any]:
    """Load (mean of the last minute), mean clock of the cores and the hottest thermal zone, as far as Linux tells.

    Args:
        root: what /proc and /sys lie in.
    """
    found: dict[str, Any] = {}
    if load := _text(root / "proc/loadavg"):
        found["load"] = float(load.split()[0])
    clocks = map(_text, (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    mhz = [float(khz) / 1e3 for khz in clocks if khz]
    mhz = mhz or [float(value) for value in re.findall(r"(?m)^cpu MHz\s*: (.*)$", _text(root / "proc/cpuinfo"))]
    if mhz:
        found["cpu_mhz"] = fmean(mhz)
    zones = map(_text, (root / "sys/class/thermal").glob("thermal_zone*/temp"))
    if heat := [float(value) / 1e3 for value in zones if value and float(value) > 0]:
        found["temperature_c"] = max(heat)
    return found


def read_jetson() -> dict[str, Any]:
    """A Jetson's power mode, and what the first line of its `tegrastats` says; nothing on other machines."""
    found: dict[str, Any] = {}
    if shutil.which("nvpmodel"):
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False, timeout=10)
        if mode := re.search(r"NV Power Mode: *(\S+)", done.stdout):
            found["power_mode"] = mode[1]
    if program := shutil.which("tegrastats"):
        with subprocess.Popen(
            [program, "--interval", "100"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            try:
                found |= parse_tegrastats(process.stdout.readline())
            finally:
                process.terminate()
    return found


def parse_tegrastats(line: str) -> dict[str, Any]:
    """What a line says. AGX Xavier and AGX Orin do not measure their power in one place."""
    found = {name: pattern.search(line) for name, pattern in _TEGRASTATS.items()}
    return {name: float(match[1]) for name, match in found.items() if match}


def _read_gpu(nvml: Nvml) -> dict[str, Any]:
    state = nvml.read()
    found = {
        "driver": nvml.driver,
        "gpu_mhz": state.mhz,
        "gpu_temperature_c": state.temperature_c,
        "gpu_power_w": state.power_w,
    }
    return {name: value for name, value in found.items() if value is not None}


def _text(path: Path) -> str:
    """Empty for what is not there, or a sensor that does not answer."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
