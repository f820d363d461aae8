"""What can be counted instead of timed: figures of the code that are the same in every run, so that any change is real.

    python -m benchmarks.counts --json benchmarks/results/counts.json

Of the paper's network at 1024 x 1024, or a checkpoint's: parameters, nodes of its ONNX graph in FP16, and of the plan
that TensorRT-RTX builds from it for SM 8.6 without a GPU: kernels, fused attentions, bytes moved, FLOPs and floors. Of
programs: what their import loads and executes. `benchmarks/results/counts.json` is what is held; a test in CI counts
again and fails when something has got worse, and also when it has got better: then renew the file, since an old one
would let the gain be lost again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stlm_edge.cli import run

if TYPE_CHECKING:
    from benchmarks.record import Better, Measure
    from stlm_edge.network.inference import InferencePath

BASELINE = Path(__file__).parent / "results" / "counts.json"

PROGRAMS = ("stlm_edge", "runtime.camera", "export.__main__", "train.__main__")
FLOORS = ("rtx3090", "agx-orin", "h100")
"""GPUs whose floor is held."""

ARCHITECTURE = "stlm"
INPUT_SIZE = (1024, 1024)

TARGET = "sm86"

DRIFT = {"import": 0.05}
"""First word of a measure → the share by which it may differ from the baseline: what an import executes grows a little
with every constant."""

_TOLERANCE = 1e-3
"""Of all others: sums of the same floats."""

_PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"


@click.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Count this network at its own size instead of the paper's with random weights, which do not matter.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(checkpoint: Path | None, json_path: Path | None) -> None:
    """Count kernels, bytes, FLOPs, parameters, and the instructions of imports."""
    from benchmarks.record import recording

    with recording("counts", json_path) as recorder:
        recorder.measures |= import_measures()
        inspector = network(checkpoint)
        measures, details = plan_measures(inspector)
        recorder.measures |= measures
        recorder.details |= details
        width = max(map(len, recorder.measures))
        for name, measure in recorder.measures.items():
            click.echo(f"{name:<{width}} {measure.median:>14.6g} {measure.unit}")


def network(checkpoint: Path | None) -> InferencePath:
    """A checkpoint's network, or the paper's with random weights. Raises `CheckpointError`."""
    import torch

    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.encoder import ARCHITECTURES
    from stlm_edge.network.inference import InferencePath
    from stlm_edge.network.stlm import Stlm
    from stlm_edge.spec import ModelSpec

    if checkpoint is not None:
        loaded = load(checkpoint)
        return InferencePath(loaded.network, loaded.spec).eval()
    torch.manual_seed(0)
    spec = ModelSpec("none", ARCHITECTURE, INPUT_SIZE, INPUT_SIZE, weights_sha256="")
    return InferencePath(Stlm(ARCHITECTURES[ARCHITECTURE]), spec).eval()


def plan_measures(inspector: InferencePath) -> tuple[dict[str, Measure], dict[str, Any]]:
    """Build a plan in FP16 for `TARGET`; returns its measures, and details with the floors of its stages on all GPUs.

    Raises `EngineError` if TensorRT-RTX is not installed or cannot build it.
    """
    from export.graph.deployment import DeploymentGraph
    from export.graph.to_onnx import to_onnx
    from export.precision.apply import with_precision
    from export.tensorrt.log import kernel_table
    from export.tensorrt.product import find_product
    from export.tensorrt.report import make_report
    from export.tensorrt.roofline import GPUS

    product = find_product("tensorrt-rtx")
    model, _ = with_precision(to_onnx(DeploymentGraph(inspector)), "fp16")
    messages: list[str] = []
    product.compile(
        model.SerializeToString(),
        spec=inspector.spec,
        targets=(TARGET,),
        on_log=lambda _, message: messages.append(message),
    )
    table = kernel_table(messages, model)
    report = make_report(table, list(GPUS.values()), plan="")
    measures = {
        "network parameters": _exact(sum(map(_size, inspector.network.parameters())), "parameters"),
        "graph nodes": _exact(len(model.graph.node), "nodes"),
        "plan kernels": _exact(report.total.kernels, "kernels"),
        "plan fused attentions": _exact(report.total.fused_attentions, "kernels", better="higher"),
        "plan unplaced products": _exact(len(table.unplaced), "products"),
        "plan moved": _exact(report.total.moved_mb, "MB"),
        "plan products": _exact(report.total.gflop, "GFLOP"),
    }
    measures |= {f"plan floor {name}": _exact(report.total.floor_ms[name], "ms") for name in FLOORS}
    details = {
        "architecture": inspector.spec.architecture,
        "input_size": list(inspector.spec.input_size),
        "batch": 1,
        "precision": "fp16",
        "target": TARGET,
        "library": str(product),
        "stages": [
            {
                "name": row.name,
                "kernels": row.kernels,
                "gflop": row.gflop,
                "moved_mb": row.moved_mb,
                "floor_ms": row.floor_ms,
            }
            for row in report.stages
        ],
    }
    return measures, details


def import_measures() -> dict[str, Measure]:
    """Of `PROGRAMS`. What depends on Python's minor version has it in its name."""
    from benchmarks.import_cost import import_cost

    measures: dict[str, Measure] = {}
    for program in PROGRAMS:
        cost = import_cost(program)
        measures |= {
            f"import {program}: own modules": _exact(cost.own_modules, "modules"),
            f"import {program}: packages of others": _exact(len(cost.packages), "packages"),
            f"import {program}: all modules, {_PYTHON}": _exact(cost.all_modules, "modules"),
            f"import {program}: own instructions, {_PYTHON}": _exact(cost.own_instructions, "instructions"),
        }
    return measures


def departures(held: dict[str, Measure], found: dict[str, Measure]) -> list[str]:
    """What differs from the baseline by more than it may, one line each, the worst first; empty if nothing does.

    Args:
        held: of the baseline; what is of another version of Python is left out.
    """
    from benchmarks.verdicts import changes

    expected = {name: entry for name, entry in held.items() if ", Python " not in name or name.endswith(_PYTHON)}
    counted = {name: entry for name, entry in found.items() if name in expected or ", Python " not in name}
    return [
        f"{change.name}: found {change.new}, the baseline has {change.old} {change.unit} ({change.verdict})"
        for change in changes([expected], [counted])
        if change.verdict != "same"
        and (change.ratio is None or abs(change.ratio - 1) > DRIFT.get(change.name.split()[0], _TOLERANCE))
    ]


def _size(parameter: Any) -> int:
    return int(parameter.numel())


def _exact(value: float, unit: str, *, better: Better = "lower") -> Measure:
    from benchmarks.record import Measure

    return Measure(unit, better, (float(value),), is_exact=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
