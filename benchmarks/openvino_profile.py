"""How long each stage of an engine takes in OpenVINO, by its own count for each operation."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import openvino

from benchmarks.processor_peaks import Peaks
from export.tensorrt.log import place
from runtime.backends.openvino import require_bf16
from stlm_edge.errors import EngineError
from stlm_edge.imaging import to_input
from stlm_edge.plate.part import render_part
from stlm_edge.signal_stack import kept_signal_stack
from stlm_edge.spec import ModelSpec

_PICTURES = 4
_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
_COMPUTING = (*_PRODUCTS, "FullyConnected")
"""Types of operations in the compiled graph that multiply."""


@dataclass(frozen=True)
class Stage:
    """A stage of the network.

    Attributes:
        name: one of `export.tensorrt.kernels.STAGES`.
        measured_ms: the median over the turns.
        floor_ms: of its operations, one after the other.
        gflop: of convolutions and matrix products, two for each multiplication with its addition.
        moved_mb: operands and results of each operation, once; in 10⁶ bytes.
    """

    name: str
    measured_ms: float
    floor_ms: float
    gflop: float
    moved_mb: float


@dataclass(frozen=True)
class _Operation:
    """One of the compiled graph's: which nodes of the exported graph it computes, and the bytes it reads and writes."""

    computes: tuple[str, ...]
    bytes: int


class Profile:
    """An engine that runs with OpenVINO's counters, and beside it without.

    Attributes:
        threads: that OpenVINO uses.
        totals_ms: milliseconds a picture of each turn, counters on.
    """

    def __init__(self, engine: Path, *, spec: ModelSpec, precision: str) -> None:
        """Raises `EngineError` if the engine cannot be opened, or the processor lacks its precision."""
        if precision == "bf16":
            require_bf16(engine)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        try:
            model = core.read_model(engine)
            with kept_signal_stack():
                compiled = core.compile_model(model, "CPU", settings | {"PERF_COUNT": True})
                self._plain = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise EngineError(f"{engine} cannot be opened by OpenVINO ({reason}); export it again") from None
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._request = compiled.create_infer_request()
        self._flops = _flops(model)
        # Not the nodes themselves: they belong to the compiled graph, which may be gone before them.
        self._operations = {
            node.get_friendly_name(): _Operation(_computed_by(node), _bytes(node))
            for node in compiled.get_runtime_model().get_ordered_ops()
        }
        parts = (
            render_part(np.random.default_rng(seed), size=spec.picture_size, defect=None) for seed in range(_PICTURES)
        )
        self._pictures = [to_input(part.image, spec=spec) for part in parts]
        self.totals_ms: list[float] = []
        self._turns: list[Counter[str]] = []
        self._unprofiled_ms: list[float] = []
        for request in (self._request, self._plain):
            request.infer({"image": self._pictures[0]})

    @property
    def unprofiled_ms(self) -> float:
        """A picture without counters, the median over the turns."""
        return median(self._unprofiled_ms)

    def take_turn(self, runs: int) -> None:
        """Run so many pictures with counters, and as many without."""
        times: Counter[str] = Counter()
        for index in range(runs):
            self._request.infer({"image": self._pictures[index % _PICTURES]})
            for entry in self._request.profiling_info:
                times[entry.node_name] += 1e3 * entry.real_time.total_seconds() / runs
        start_s = time.perf_counter()
        for index in range(runs):
            self._plain.infer({"image": self._pictures[index % _PICTURES]})
        self._unprofiled_ms.append(1e3 * (time.perf_counter() - start_s) / runs)
        self._turns.append(times)
        self.totals_ms.append(sum(times.values()))

    def turns_ms(self, stage: str) -> list[float]:
        """Milliseconds of a stage in each turn."""
        return [sum(ms for name, ms in times.items() if _stage(name) == stage) for times in self._turns]

    def stages(self, peaks: Peaks) -> Iterator[Stage]:
        """Those of which an operation was counted."""
        floors: defaultdict[str, float] = defaultdict(float)
        flops: Counter[str] = Counter()
        moved: Counter[str] = Counter()
        left = dict(self._flops)
        for name in self._turns[0]:
            stage, operation = _stage(name), self._operations.get(name, _Operation((), 0))
            size, computed = operation.bytes, sum(left.pop(origin, 0) for origin in operation.computes)
            flops[stage] += computed
            moved[stage] += size
            floors[stage] += max(computed / peaks.gflop_s, size / peaks.gb_s) / 1e6
        for origin, computed in left.items():  # depth-wise convolutions that others have taken in without a word
            flops[_stage(origin)] += computed
            floors[_stage(origin)] += computed / peaks.gflop_s / 1e6
        for stage, floor in floors.items():
            if floor > 0:
                yield Stage(stage, median(self.turns_ms(stage)), floor, flops[stage] / 1e9, moved[stage] / 1e6)


def _computed_by(node: Any) -> tuple[str, ...]:
    """The graph's nodes in an operation that multiplies; copies bear the names of products as well."""
    if node.get_rt_info()["layerType"].value not in _COMPUTING:
        return ()
    return tuple(_origin(name) for name in node.get_rt_info()["originalLayersNames"].value.split(","))


def _origin(name: str) -> str:
    """The node of the exported graph that an operation of OpenVINO's comes from."""
    return name.partition("/")[0]


def _stage(name: str) -> str:
    return place([_origin(name)])[0]


def _flops(model: Any) -> dict[str, int]:
    """By the exported graph's node. Raises `EngineError` for a graph of unknown shapes."""
    found: Counter[str] = Counter()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in _PRODUCTS:
            continue
        if node.get_output_partial_shape(0).is_dynamic:
            raise EngineError(
                "the engine takes a number of pictures that it does not say, so its FLOPs are not known; export it "
                "without --max-batch"
            )
        out, left, right = (
            tuple(shape) for shape in (node.get_output_shape(0), node.get_input_shape(0), node.get_input_shape(1))
        )
        # Weights of a convolution are ([groups,] channels out, channels in, height, width).
        depth = math.prod(left) // math.prod(out[:-1]) if kind == "MatMul" else math.prod(right[-3:])
        found[_origin(node.get_friendly_name())] += 2 * math.prod(out) * depth
    return dict(found)


def _bytes(node: Any) -> int:
    """What an operation of the compiled graph reads and writes."""
    ports = [*node.inputs(), *node.outputs()]
    return sum(
        math.prod(port.get_partial_shape().to_shape()) * port.get_element_type().size
        for port in ports
        if port.get_partial_shape().is_static
    )
