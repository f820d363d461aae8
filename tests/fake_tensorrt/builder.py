"""What of the simulated TensorRT builds plans."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from export.graph.graph import SPEC_KEY
from stlm_edge.spec import ModelSpec

from .plan import fake_plan, told

CACHE = b"timings of "
"""How a timing cache begins; the version follows."""


def add_builder(trt: Any, *, rtx: bool, has: Callable[[str], bool]) -> None:
    """Put what builds plans into a module. It reads any graph but `garbage`, and cannot build one that is
    `impossible` or `enormous`.

    Args:
        has: whether the version has a name.
    """
    version = trt.__version__

    def enumeration(name: str, *members: str) -> Any:
        return enum.IntEnum(name, {member: index for index, member in enumerate(members) if has(member)})

    # TensorRT 11 has no precision flags and no implicit batch to choose.
    trt.BuilderFlag = enumeration("BuilderFlag", "TF32", *([] if rtx else ["FP16", "INT8"]))
    trt.NetworkDefinitionCreationFlag = enumeration("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "STRONGLY_TYPED")
    trt.MemoryPoolType = enumeration("MemoryPoolType", "WORKSPACE", "TACTIC_DRAM")
    trt.ProfilingVerbosity = enumeration("ProfilingVerbosity", "DETAILED")
    if rtx:
        trt.ComputeCapability = enumeration("ComputeCapability", "NONE", "SM80", "SM86", "SM89")
    else:
        trt.HardwareCompatibilityLevel = enumeration(
            "HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"
        )

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
        __slots__ = (
            *("_cache", "_cleared", "_limits", "_profiles", "_targets", "profiling_verbosity", "progress_monitor"),
            *(["num_compute_capabilities"] if rtx else ["hardware_compatibility_level"]),
        )

        def __init__(self) -> None:
            self._cleared: list[str] = []
            self._limits: dict[str, int] = {}
            self._profiles: list[Any] = []
            self._targets: list[str] = []
            self._cache: Any = None
            self.profiling_verbosity = self.progress_monitor = None
            if not rtx:
                self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE

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

        def set_compute_capability(self, capability: Any, index: int) -> None:
            assert index < self.num_compute_capabilities
            self._targets.append(capability.name)

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
            severity, monitor = trt.ILogger.Severity, config.progress_monitor
            self._logger.log(severity.VERBOSE, "Name: kernel")
            self._logger.log(severity.WARNING, "half of it\nis slow")
            monitor.phase_start("Building engine", None, 2)
            going_on = all(monitor.step_complete("Building engine", step) for step in range(2))
            monitor.phase_finish("Building engine")
            if b"impossible" in network.graph:
                self._logger.log(severity.ERROR, "no implementation for\nhead|conv")
                return None
            if b"enormous" in network.graph:
                for message in told("IBuilder::buildSerializedNetwork").split("; "):
                    self._logger.log(severity.ERROR, message)
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
                    "compatibility": None if rtx else config.hardware_compatibility_level.name,
                    **runnable(network.graph),
                }
            ).encode()

    trt.Builder, trt.OnnxParser, trt.IProgressMonitor = Builder, OnnxParser, IProgressMonitor
    # Not used by name, but their members are.
    trt.IBuilderConfig, trt.IOptimizationProfile, trt.ITimingCache = IBuilderConfig, IOptimizationProfile, ITimingCache
    trt.ParserError = ParserError
    if not rtx:
        del IBuilderConfig.set_compute_capability


def runnable(graph: bytes) -> dict[str, Any]:
    """What running a plan needs to know of its graph; nothing if that is not one of this project."""
    try:
        metadata = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    except DecodeError:
        return {}
    if SPEC_KEY not in metadata:
        return {}
    facts: dict[str, Any] = json.loads(fake_plan(ModelSpec.from_json(metadata[SPEC_KEY])))
    return facts
