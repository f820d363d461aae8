"""How much memory a build may take where GPU and processor share it, as on a Jetson.

TensorRT's own limits are what the GPU has: there that is the memory of the whole system, and a build that takes more
than is free is killed by it without a word, often minutes after its start.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.errors import ConfigError
from stlm_edge.tensorrt import Gpu

logger = logging.getLogger(__name__)

IF_KILLED = (
    "if memory runs out (the system kills a build then), sudo init 3 ends the desktop, tegrastats shows what is free, "
    "and a file for swap helps"
)


@dataclass(frozen=True)
class MemoryLimits:
    """What a build may take, in MiB; None leaves it to TensorRT, which then takes what the GPU has.

    Attributes:
        workspace: scratch memory of a layer at most.
        tactics: all that the build may have taken when it tries a kernel; on a Jetson the host's part counts too.
    """

    workspace: int | None = None
    tactics: int | None = None


def memory_limits(workspace: int | None, gpu: Gpu | None, *, meminfo: Path = Path("/proc/meminfo")) -> MemoryLimits:
    """The limits of a build on this machine: by default half and three quarters of the memory that is free and shared.

    Args:
        workspace: what the user says, in MiB; None for the default.
        gpu: of this machine.
        meminfo: where Linux says what is free.
    Raises:
        ConfigError: if a layer were to take more than that.
    """
    free = _available_mib(meminfo) if gpu is not None and gpu.shares_memory else None
    if free is None:
        return MemoryLimits(workspace)
    if workspace is not None and workspace > free:
        raise ConfigError(f"found --workspace {workspace}, only {free} MiB are free; {IF_KILLED}")
    limits = MemoryLimits(workspace or max(free // 2, 1), max(free * 3 // 4, workspace or 1))
    logger.info(
        "GPU and processor share memory, and %d MiB are free: a layer may take %d MiB for scratch (--workspace), the "
        "build %d MiB; %s",
        free,
        limits.workspace,
        limits.tactics,
        IF_KILLED,
    )
    return limits


def _available_mib(meminfo: Path) -> int | None:
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) >> 10
