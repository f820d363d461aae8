"""Is a CPU engine worth its precision? Its answers and its speed beside FP32's, on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from runtime.backends.base import Backend
from runtime.backends.openvino import OpenVinoBackend, has_bf16
from stlm_edge.imaging import Input, read_image, to_input
from stlm_edge.spec import ModelSpec
from stlm_edge.synthetic import render_part

IMAGES = 8

TURNS = 5
TURN_S = 0.3
"""Of one engine at a time; at least one picture after one that does not count, since threads of the other spin on."""

NOISE = 0.05
"""Two times are the same if they differ by less than this share of FP32's: other programs run as well."""

TOO_FAR = 0.1
"""A score that moves by more than this has little to do with FP32's; both are on a scale of 0 … 1."""


@dataclass(frozen=True)
class Comparison:
    """An engine beside FP32.

    Attributes:
        precision: of the engine.
        images: how many pictures the errors were measured on.
        max_map_error, max_score_error: the largest differences from FP32.
        time_ratios: precision → its time for a picture as a share of FP32's, the median over turns; of the engine, and
            of `bf16` where the processor has that.
    """

    precision: str
    images: int
    max_map_error: float
    max_score_error: float
    time_ratios: dict[str, float]

    def lines(self) -> Iterator[str]:
        """For people: the figures, and plainly what they mean."""
        name, ratio = self.precision, self.time_ratios[self.precision]
        others = "".join(f", {other} {time:.2f}" for other, time in self.time_ratios.items() if other != name)
        yield (
            f"{name} against fp32: maps differ by up to {self.max_map_error:.2g} and scores by up to "
            f"{self.max_score_error:.2g} on {self.images} pictures; time on this machine {ratio:.2f} of fp32's{others}"
        )
        if self.max_score_error > TOO_FAR:
            yield f"{name} DRIFTS TOO FAR: a score moved by more than {TOO_FAR:g}; take --precision fp32"
        if name == "fp16":
            yield "fp16 halves the file of the weights; the processor calculates in fp32 all the same"
        elif ratio > 1 - NOISE:
            yield f"{name} is NOT FASTER than fp32 on this machine; take --precision fp32"
        elif self.time_ratios.get("bf16", ratio) < ratio - NOISE:
            yield f"{name} is SLOWER than bf16 on this machine; see how far --precision bf16 drifts"


def compare(
    engine: Path, *, precision: str, fp32: Path, pictures: Sequence[Path] | None, spec: ModelSpec
) -> Comparison:
    """Have an engine and FP32 take turns on the same pictures.

    Args:
        fp32: the same graph in FP32, as OpenVINO's files.
        pictures: of which up to eight are taken; None for synthetic parts.
    Raises:
        EngineError: if one of them fails.
        ImageError: if a picture cannot be read.
    """
    batches = list(_batches(pictures, spec))
    contenders = {"fp32": (fp32, "fp32"), precision: (engine, precision)}
    if has_bf16():
        contenders.setdefault("bf16", (fp32, "bf16"))
    with ExitStack() as stack:
        backends = {
            name: stack.enter_context(OpenVinoBackend(path, spec=spec, precision=how))
            for name, (path, how) in contenders.items()
        }
        errors = [_errors(backends["fp32"], backends[precision], batch) for batch in batches]
        times: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(TURNS):
            for name, backend in backends.items():
                times[name].append(_turn_s(backend, batches))
    ratios = {
        name: median(taken / base for taken, base in zip(turns, times["fp32"], strict=True))
        for name, turns in times.items()
        if name != "fp32"
    }
    map_errors, score_errors = zip(*errors, strict=True)
    return Comparison(precision, len(batches), max(map_errors), max(score_errors), ratios)


def _errors(wanted: Backend, found: Backend, batch: Input) -> tuple[float, float]:
    """Largest difference of the maps' pixels, and of the scores."""
    (maps, scores), (other_maps, other_scores) = wanted.infer(batch), found.infer(batch)
    return float(np.abs(maps - other_maps).max()), float(np.abs(scores - other_scores).max())


def _turn_s(backend: Backend, batches: Sequence[Input]) -> float:
    """Median time for a picture in one turn."""
    backend.infer(batches[0])
    times: list[float] = []
    while not times or sum(times) < TURN_S:
        start = time.perf_counter()
        backend.infer(batches[len(times) % len(batches)])
        times.append(time.perf_counter() - start)
    return median(times)


def _batches(pictures: Sequence[Path] | None, spec: ModelSpec) -> Iterator[Input]:
    if pictures is None:
        for seed in range(IMAGES):
            part = render_part(
                np.random.default_rng(seed), size=spec.picture_size, defect="scratch" if seed % 2 else None
            )
            yield to_input(part.image, spec=spec)
        return
    for index in np.unique(np.linspace(0, len(pictures) - 1, IMAGES).round().astype(int)):
        yield to_input(read_image(pictures[index]), spec=spec)
