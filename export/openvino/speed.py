"""Is a CPU engine worth its precision? Its speed beside FP32's, on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from export.graph.onnx_model import spec_of
from export.sources import Source
from runtime.backends.base import Backend
from runtime.backends.openvino import OpenVinoBackend, has_bf16
from stlm_edge.imaging import Input, to_input
from stlm_edge.plate.part import render_part

PICTURES = 4

TURNS = 5
TURN_S = 0.3
"""Of one engine at a time; at least one picture after one that does not count, since threads of the other spin on."""

NOISE = 0.05
"""Two times are the same if they differ by less than this share of FP32's: other programs run as well."""


@dataclass(frozen=True)
class Speed:
    """An engine beside FP32.

    Attributes:
        precision: of the engine.
        time_ratios: precision → its time for a picture as a share of FP32's, the median over turns; of the engine, and
            of `bf16` where the processor has that.
    """

    precision: str
    time_ratios: dict[str, float]

    def lines(self) -> Iterator[str]:
        """For people: the figures, and plainly what they mean."""
        name, ratio = self.precision, self.time_ratios[self.precision]
        others = "".join(f", {other} {share:.2f}" for other, share in self.time_ratios.items() if other != name)
        yield f"time on this machine: {name} {ratio:.2f} of fp32's{others}"
        if name == "fp16":
            yield "fp16 halves the file of the weights; the processor calculates in fp32 all the same"
        elif ratio > 1 - NOISE:
            yield f"{name} is NOT FASTER than fp32 on this machine; take --precision fp32"
        elif self.time_ratios.get("bf16", ratio) < ratio - NOISE:
            yield f"{name} is SLOWER than bf16 on this machine; see how far --precision bf16 drifts"


def measure_speed(engine: Path, source: Source, *, precision: str) -> Speed:
    """Have an engine and the float32 graph that it was made of take turns on drawn parts.

    Raises `EngineError` if one of them fails.
    """
    spec = spec_of(source.model, source.path)
    batches = [
        to_input(render_part(np.random.default_rng(seed), size=spec.picture_size, defect=None).image, spec=spec)
        for seed in range(PICTURES)
    ]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        fp32 = Path(folder) / "fp32.onnx"
        fp32.write_bytes(source.model.SerializeToString())
        contenders = {"fp32": (fp32, "fp32"), precision: (engine, precision)}
        if has_bf16():
            contenders.setdefault("bf16", (fp32, "bf16"))
        backends = {
            name: stack.enter_context(OpenVinoBackend(path, spec=spec, precision=how))
            for name, (path, how) in contenders.items()
        }
        times: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(TURNS):
            for name, backend in backends.items():
                times[name].append(_turn_s(backend, batches))
    ratios = {
        name: median(taken / base for taken, base in zip(turns, times["fp32"], strict=True))
        for name, turns in times.items()
        if name != "fp32"
    }
    return Speed(precision, ratios)


def _turn_s(backend: Backend, batches: Sequence[Input]) -> float:
    """Median time for a picture in one turn."""
    backend.infer(batches[0])
    times: list[float] = []
    while not times or sum(times) < TURN_S:
        start = time.perf_counter()
        backend.infer(batches[len(times) % len(batches)])
        times.append(time.perf_counter() - start)
    return median(times)
