"""TensorRT's Python module as far as a build uses it, for machines that cannot have the real one: it needs a GPU.

What it offers is held to the recorded names of the real one in `test_tensorrt_api.py`.
"""

from __future__ import annotations

import enum
import json
import types
from typing import Any

CACHE = b"timings of "
"""How a timing cache begins; the version follows."""


def fake_tensorrt(version: str) -> Any:
    """A module that looks like `tensorrt` of a version, and whose plans say in JSON how they were built.

    It reads any graph but `garbage`, and cannot build one with `impossible` in it.
    """
    old = version.startswith("10.")
    trt: Any = types.ModuleType("tensorrt")
    trt.__version__ = version
    # TensorRT 11 has no precision flags and no implicit batch to choose.
    trt.BuilderFlag = enum.Enum("BuilderFlag", ["TF32", *(["FP16", "INT8"] if old else [])])
    trt.NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {**({"EXPLICIT_BATCH": 0} if old else {}), "STRONGLY_TYPED": 1}
    )
    trt.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE", "TACTIC_DRAM"])
    trt.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

        def log(self, severity: Any, message: str) -> None:
            raise NotImplementedError

    class IProgressMonitor:
        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase: str) -> None:
            raise NotImplementedError

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> bytes:
            return self._content

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
            self._shapes[name] = [list(least), list(best), list(most)]

    class IBuilderConfig:
        __slots__ = ("_cache", "_cleared", "_limits", "_profiles", "profiling_verbosity", "progress_monitor")

        def __init__(self) -> None:
            self._cleared: list[str] = []
            self._limits: dict[str, int] = {}
            self._profiles: list[Any] = []
            self._cache: Any = None
            self.profiling_verbosity = self.progress_monitor = None

        def clear_flag(self, flag: Any) -> None:
            self._cleared.append(flag.name)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self._limits[pool.name] = size

        def add_optimization_profile(self, profile: Any) -> int:
            self._profiles.append(profile._shapes)
            return len(self._profiles) - 1

        def create_timing_cache(self, content: bytes) -> Any:
            return ITimingCache(content or CACHE + version.encode())

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return ignore_mismatch or cache.serialize().startswith(CACHE + version.encode())

        def get_timing_cache(self) -> Any:
            return self._cache

    class Network:
        graph = b""

    class ParserError:
        def desc(self) -> str:
            return "Assertion failed:\nthis is no graph"

        def node_name(self) -> str:
            return "head|conv"

    class OnnxParser:
        num_errors = 0

        def __init__(self, network: Any, logger: Any) -> None:
            self._network = network

        def parse(self, graph: bytes) -> bool:
            self._network.graph = graph
            self.num_errors = int(graph == b"garbage")
            return self.num_errors == 0

        def get_error(self, index: int) -> Any:
            return ParserError()

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def create_network(self, flags: int) -> Any:
            assert flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return Network()

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            severity, monitor = ILogger.Severity, config.progress_monitor
            self._logger.log(severity.VERBOSE, "Name: kernel")
            self._logger.log(severity.WARNING, "half of it\nis slow")
            monitor.phase_start("Building engine", None, 2)
            going_on = all(monitor.step_complete("Building engine", step) for step in range(2))
            monitor.phase_finish("Building engine")
            if b"impossible" in network.graph:
                self._logger.log(severity.ERROR, "no implementation for\nhead|conv")
                return None
            if not going_on:
                return None
            return json.dumps(
                {
                    "version": version,
                    "verbosity": config.profiling_verbosity.name,
                    "cleared": config._cleared,
                    "limits": config._limits,
                    "profiles": config._profiles,
                }
            ).encode()

    trt.Builder, trt.OnnxParser, trt.ILogger, trt.IProgressMonitor = Builder, OnnxParser, ILogger, IProgressMonitor
    # Not used by name, but their members are.
    trt.IBuilderConfig, trt.IOptimizationProfile, trt.ITimingCache = IBuilderConfig, IOptimizationProfile, ITimingCache
    trt.ParserError = ParserError
    return trt
