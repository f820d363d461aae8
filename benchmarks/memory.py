"""How much memory this process has, on the host and on the GPU; in MB of 10⁶ bytes."""

from __future__ import annotations

import os
import re
from pathlib import Path


def resident_mb() -> float:
    """The resident set now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """The largest resident set there ever was."""
    # Not getrusage's: on Linux a process that was started by a larger one begins with that one's peak.
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def gpu_mb() -> float | None:
    """What this process holds on the first GPU, by NVML; None where that cannot be told."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    mine = [entry.usedGpuMemory for entry in processes if entry.pid == os.getpid()]
    return mine[0] / 1e6 if mine and mine[0] is not None else None
