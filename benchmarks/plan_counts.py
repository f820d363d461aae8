"""What can be counted of a plan instead of timed: figures that are the same in every run, so that any change is real.

    python -m benchmarks.plan_counts --json benchmarks/results/plan-counts.json

Of the paper's network at 1024 x 1024 with random weights, which do not matter, and of the plan that TensorRT-RTX builds
from it for SM 8.6 without a GPU. For a network of your own see `stlm report`. A test in CI counts again and
fails when something has got worse, and also when it has got better: then renew the file.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.record import Better, Recorder, recording
from export.graph.deployment import DeploymentGraph
from export.graph.graph import Graph
from export.graph.to_onnx import to_onnx
from export.precision.apply import in_precision
from export.tensorrt.kernels import KernelTable
from export.tensorrt.log import kernel_table
from export.tensorrt.product import Product, find_product
from export.tensorrt.report import make_report
from stlm_edge.cli import run
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import GPU_PEAKS

FLOORS = ("rtx3090", "agx-orin", "h100")
ARCHITECTURE = "stlm"
INPUT_SIZE = (1024, 1024)
TARGET = "sm86"


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(json_path: Path | None) -> None:
    """Count kernels, bytes, FLOPs and parameters of the paper's network."""
    with recording("plan_counts", json_path) as recorder:
        graph = trace_network(recorder)
        count_plan(recorder, graph)
        count_simplified(recorder, graph)
    for name, measure in recorder.measures.items():
        click.echo(f"{name:<24} {measure.median:>14.6g} {measure.unit}")


def trace_network(recorder: Recorder) -> Graph:
    """The paper's network in float32, with random weights."""
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES[ARCHITECTURE])
    spec = ModelSpec("none", ARCHITECTURE, INPUT_SIZE, INPUT_SIZE, weights_sha256="")
    parameters = sum(tensor.numel() for tensor in network.parameters())
    _count(recorder, "network parameters", parameters, "parameters")
    return to_onnx(DeploymentGraph(InferencePath(network, spec).eval()))


def count_plan(recorder: Recorder, graph: Graph) -> None:
    """Build a plan in FP16 for `TARGET`. Raises `EngineError` if TensorRT-RTX is not installed or cannot build it."""
    half = in_precision(graph, "fp16")
    product, table = _kernels(half)
    report = make_report(table, list(GPU_PEAKS.values()), plan="")
    total = report.total
    _count(recorder, "graph nodes", len(half.model.graph.node), "nodes")
    _count(recorder, "plan kernels", total.kernels, "kernels")
    _count(recorder, "plan fused attentions", total.fused_attentions, "kernels", better="higher")
    _count(recorder, "plan unplaced products", len(table.unplaced), "products")
    _count(recorder, "plan moved", total.moved_mb, "MB")
    _count(recorder, "plan products", total.gflop, "GFLOP")
    for name in FLOORS:
        _count(recorder, f"plan floor {name}", total.floor_ms[name], "ms")
    recorder.details |= {"architecture": ARCHITECTURE, "input_size": list(INPUT_SIZE), "precision": "fp16"}
    recorder.details |= {"target": TARGET, "library": str(product)}
    recorder.details["stages"] = [asdict(stage) for stage in report.stages]


def count_simplified(recorder: Recorder, graph: Graph) -> None:
    """The same after onnx-simplifier, see `stlm export --simplify`. Raises `ModuleNotFoundError` without it."""
    from export.graph.simplify import simplify  # an extra

    half = in_precision(simplify(graph), "fp16")
    total = make_report(_kernels(half)[1], list(GPU_PEAKS.values()), plan="").total
    _count(recorder, "simplified graph nodes", len(half.model.graph.node), "nodes")
    _count(recorder, "simplified plan kernels", total.kernels, "kernels")
    _count(recorder, "simplified plan moved", total.moved_mb, "MB")


def _kernels(graph: Graph) -> tuple[Product, KernelTable]:
    product, messages = find_product("tensorrt-rtx"), list[str]()
    product.compile(
        graph.to_bytes(), spec=graph.spec, targets=(TARGET,), on_log=lambda _, message: messages.append(message)
    )
    return product, kernel_table(messages, graph)


def _count(recorder: Recorder, name: str, value: float, unit: str, *, better: Better = "lower") -> None:
    recorder.measure(name, [float(value)], unit=unit, better=better, is_exact=True)


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
