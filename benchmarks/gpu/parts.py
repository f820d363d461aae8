"""What `python -m benchmarks.gpu` does, the most important first, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda"]

_NEEDS_GPU = "needs a GPU"
_NEEDS_GRAPH = "needs a graph; bring one: python -m export onnx CHECKPOINT -o GRAPH.onnx, and --graph GRAPH.onnx"

BATCH = 8

_UNHURRIED = 10


@dataclass(frozen=True)
class Part:
    """One of the things to be measured.

    Attributes:
        name: of its record and its log.
        says: what it is, in words.
        command: module and arguments, without `--json`.
        writes_record: it takes `--json`.
        limit_s: it is stopped after so long; what it has written until then stays.
        lacks: why it cannot be done here; None if it can.
        after: name of a part that must have been done.
    """

    name: str
    says: str
    command: tuple[str, ...]
    limit_s: float
    writes_record: bool = True
    lacks: str | None = None
    after: str | None = None


def parts(
    checkpoint: Path, *, graphs: Sequence[Path], output: Path, device: Device, data: Path | None, quick: bool
) -> list[Part]:
    """All parts in the order of their importance, also those that cannot be done here.

    On a processor, which is for trying, none is hurried.
    """
    found = _parts(checkpoint, graphs, output, device, data, quick)
    return [replace(part, limit_s=part.limit_s * (1 if device == "cuda" else _UNHURRIED)) for part in found]


def _parts(
    checkpoint: Path, graphs: Sequence[Path], output: Path, device: Device, data: Path | None, quick: bool
) -> Iterator[Part]:
    amount = ("--turns", "2", "--runs", "2") if quick else ("--turns", "6", "--runs", "30")
    pictures = () if data is None else ("--data", str(data))
    timing = (*amount, "--turn-seconds", "2", *pictures)
    no_gpu = None if device == "cuda" else _NEEDS_GPU
    network = ("--checkpoint", str(checkpoint), "--device", device)

    def ways(*names: str, batch: int = 1) -> tuple[str, ...]:
        listed = [word for name in ("eager", *names) for word in ("--way", name)]
        return ("benchmarks.latency", *network, *listed, "--batch", str(batch), *timing)

    deployment = ("benchmarks.gpu.deployment", *network, *timing)
    yield Part("ways", "the authors' way in FP32, batched streams, half precision", ways("batched", "half"), 90)
    yield Part("tf32", "the authors' way with TF32", ways("eager+tf32", "tf32"), 60, lacks=no_gpu)
    yield Part("cuda-graph", "captured", ways("half+cuda-graph", "cuda-graph"), 75, lacks=no_gpu)
    yield Part(
        "stages", "the deployment graph stage by stage", ("benchmarks.gpu.stages", *network, *amount, *pictures), 60
    )
    yield Part("deployment", "the deployment graph, branched and stacked", deployment, 120)
    for graph in graphs:
        yield from _engines(graph, output, network, timing, no_gpu)
    if not graphs:
        yield Part("plan", "TensorRT", (), 0, lacks=no_gpu or _NEEDS_GRAPH)
        yield Part("onnxruntime", "ONNX Runtime on CUDA", (), 0, lacks=no_gpu or _NEEDS_GRAPH)
    yield Part(f"ways-{BATCH}", f"the same at batch {BATCH}", ways("batched", "half", batch=BATCH), 90)
    yield Part(
        f"deployment-{BATCH}", f"the deployment graph at batch {BATCH}", (*deployment, "--batch", str(BATCH)), 120
    )
    yield Part(
        f"cuda-graph-{BATCH}", f"captured, batch {BATCH}", ways("half+cuda-graph", batch=BATCH), 75, lacks=no_gpu
    )
    yield Part("channels-last", "channels last", ways("half+channels-last"), 60)
    yield Part("compile", "torch.compile", ways("half+compile"), 180)
    yield Part("compile-cuda-graph", "torch.compile, captured", ways("half+compile+cuda-graph"), 180, lacks=no_gpu)


def _engines(
    graph: Path, output: Path, network: tuple[str, ...], timing: tuple[str, ...], no_gpu: str | None
) -> Iterator[Part]:
    """Build a plan for this GPU and run it; run the graph in ONNX Runtime. A graph for several pictures at batch 1."""
    plan, name = output / f"{graph.stem}.plan", graph.stem
    build, against = f"build-{name}", (*network, "--way", "eager", *timing)
    yield Part(
        build,
        f"a plan from {graph.name} for this GPU",
        ("export", "engine", str(graph), "-o", str(plan)),
        150,
        writes_record=False,
        lacks=no_gpu,
    )
    yield Part(
        f"plan-{name}",
        "that plan",
        ("benchmarks.latency", "--engine", str(plan), *against),
        75,
        lacks=no_gpu,
        after=build,
    )
    yield Part(
        f"onnxruntime-{name}",
        f"{graph.name} in ONNX Runtime on CUDA",
        ("benchmarks.latency", "--engine", str(graph), "--backend", "onnxruntime-cuda", *against),
        75,
        lacks=no_gpu,
    )
