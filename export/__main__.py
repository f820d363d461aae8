"""`python -m export`: from a checkpoint to an engine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stlm_edge.cli import run
from stlm_edge.plans import TITLES

if TYPE_CHECKING:
    from export.tensorrt_flavour import FlavourChoice

logger = logging.getLogger(__name__)

PATH = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Turn a trained checkpoint into an engine that gives the same answers."""


@command.command()
@click.argument("checkpoint", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The .onnx file to write; its .json goes beside it.")
@click.option("--data", type=PATH, help="Folder tree of pictures to compare on.  [default: synthetic parts]")
def onnx(checkpoint: Path, output: Path, data: Path | None) -> None:
    """Write CHECKPOINT as ONNX, after ONNX Runtime and PyTorch have agreed on real pictures."""
    from export.pipeline import export_onnx

    if data is None:
        logger.warning("comparing on synthetic parts; give --data to compare on your own pictures")
    drift = export_onnx(checkpoint, output, data=data)
    click.echo(
        f"{output}: agrees with PyTorch on {drift.images} pictures within {drift.max_map_error:.1e} (map) and "
        f"{drift.max_score_error:.1e} (score)"
    )


@command.command()
@click.argument("graph", type=PATH, metavar="FILE.onnx")
@click.option("--output", "-o", required=True, type=PATH, help="The .plan file to write; .json and .onnx go beside it.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Refuse a graph of another precision.  [default: take it as it is]",
)
@click.option("--target", help="Compute capabilities to build for without the GPU (sm86,sm89); TensorRT-RTX only.")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Scratch memory of a layer at most.")
@click.option("--timing-cache", type=PATH, help="File of kernel timings to read and to write; TensorRT only.")
@click.option(
    "--flavour",
    type=click.Choice(["auto", *TITLES]),
    default="auto",
    show_default=True,
    help="Which TensorRT builds; auto takes TensorRT where it is installed, else TensorRT-RTX.",
)
def engine(
    graph: Path,
    output: Path,
    precision: str | None,
    target: str | None,
    workspace: int | None,
    timing_cache: Path | None,
    flavour: FlavourChoice,
) -> None:
    """Build a TensorRT plan from FILE.onnx; needs neither torch nor, with TensorRT-RTX, a GPU."""
    from export.to_engine import EngineSettings, build_engine

    targets = () if target is None else tuple(dict.fromkeys(part.strip().lower() for part in target.split(",")))
    settings = EngineSettings(
        precision=precision, flavour=flavour, targets=targets, workspace_mib=workspace, timing_cache=timing_cache
    )
    record = build_engine(graph, output, settings=settings).engine
    click.echo(f"{output}: {record.precision} for {record.device}, {TITLES[record.flavour]} {record.version}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # The exporter's optimiser warns of each layer that it leaves alone; nobody can do anything about it.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
