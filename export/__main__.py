"""`python -m export`: from a checkpoint to an engine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from stlm_edge.cli import run

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
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of good pictures to calibrate on.")
@click.option("--test", type=PATH, help="Folder of pictures to measure the errors on.  [default: those of --data]")
@click.option("--count", default=64, show_default=True, type=click.IntRange(1), help="Calibrate on so many at most.")
@click.option("--seed", default=0, show_default=True, help="Seed of the choice of calibration pictures.")
@click.option("--images", default=32, show_default=True, type=click.IntRange(2), help="Measure on so many at most.")
def sensitivity(source: Path, data: Path, test: Path | None, count: int, seed: int, images: int) -> None:
    """Say what INT8 does to the answers, one layer class at a time."""
    from export.sensitivity import sensitivity_table, table

    rows, calibration = sensitivity_table(source, data=data, test=test, count=count, seed=seed, images=images)
    click.echo(f"errors against FP32, scales from {calibration.images} good pictures, seed {calibration.seed}")
    click.echo(table(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # The exporter's optimiser warns of each layer that it leaves alone; nobody can do anything about it.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
