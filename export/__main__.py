"""`python -m export`: from a checkpoint to an engine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click

from export import commands
from stlm_edge.cli import run


@click.group()
def command() -> None:
    """Turn a trained checkpoint into an engine that gives the same answers."""


for each in (
    commands.onnx,
    commands.engine,
    commands.openvino,
    commands.verify,
    commands.calibrate,
    commands.report,
    commands.sensitivity,
    commands.triton,
    commands.deepstream,
):
    command.add_command(each)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # The exporter's optimiser warns of each layer that it leaves alone; nobody can do anything about it.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
