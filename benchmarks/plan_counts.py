"""What can be counted of a plan instead of timed: figures that are the same in every run, so that any change is real.

    python -m benchmarks.plan_counts --json benchmarks/results/plan-counts.json

Of the paper's network at 1024 x 1024 with random weights, which do not matter: parameters, nodes of its ONNX graph in
FP16, and of the plan that TensorRT-RTX builds from it for SM 8.6 without a GPU: kernels, fused attentions, bytes moved,
FLOPs and floors. For a network of your own see `python -m export report`.
`benchmarks/results/plan-counts.json` is what is held; a test in CI counts again and fails when something has got worse,
and also when it has got better: then renew the file, since an old one would let the gain be lost again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.record import Better, Measure, recording
from export.graph.deployment import DeploymentGraph
from export.graph.to_onnx import to_onnx
from export.precision.apply import in_precision
from export.tensorrt.log import kernel_table
from export.tensorrt.product import find_product
from export.tensorrt.report import make_report
from stlm_edge.cli import run
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import GPU_PEAKS

FLOORS = ("rtx3090", "agx-orin", "h100")
"""GPUs whose floor is held."""

ARCHITECTURE = "stlm"
INPUT_SIZE = (1024, 1024)
TARGET = "sm86"


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(json_path: Path | None) -> None:
    """Count kernels, bytes, FLOPs and parameters of the paper's network."""
    with recording("plan_counts", json_path) as recorder:
        measures, details = count_plan()
        recorder.measures |= measures
        recorder.details |= details
    for name, measure in measures.items():
        click.echo(f"{name:<24} {measure.median:>14.6g} {measure.unit}")


def count_plan() -> tuple[dict[str, Measure], dict[str, Any]]:
    """Build a plan in FP16 for `TARGET`; returns its measures, and details with the floors of its stages on all GPUs.

    Raises `EngineError` if TensorRT-RTX is not installed or cannot build it.
    """
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES[ARCHITECTURE])
    spec = ModelSpec("none", ARCHITECTURE, INPUT_SIZE, INPUT_SIZE, weights_sha256="")
    graph = in_precision(to_onnx(DeploymentGraph(InferencePath(network, spec).eval())), "fp16")
    product, messages = find_product("tensorrt-rtx"), list[str]()
    product.compile(graph.to_bytes(), spec=spec, targets=(TARGET,), on_log=lambda _, message: messages.append(message))
    table = kernel_table(messages, graph)
    report = make_report(table, list(GPU_PEAKS.values()), plan="")
    total = report.total
    measures = {
        "network parameters": _exact(sum(tensor.numel() for tensor in network.parameters()), "parameters"),
        "graph nodes": _exact(len(graph.model.graph.node), "nodes"),
        "plan kernels": _exact(total.kernels, "kernels"),
        "plan fused attentions": _exact(total.fused_attentions, "kernels", better="higher"),
        "plan unplaced products": _exact(len(table.unplaced), "products"),
        "plan moved": _exact(total.moved_mb, "MB"),
        "plan products": _exact(total.gflop, "GFLOP"),
        **{f"plan floor {name}": _exact(total.floor_ms[name], "ms") for name in FLOORS},
    }
    return measures, {
        "architecture": ARCHITECTURE,
        "input_size": list(INPUT_SIZE),
        "precision": "fp16",
        "target": TARGET,
        "library": str(product),
        "stages": [asdict(stage) for stage in report.stages],
    }


def _exact(value: float, unit: str, *, better: Better = "lower") -> Measure:
    return Measure(unit, better, (float(value),), is_exact=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
