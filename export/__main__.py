"""`python -m export`: from a checkpoint to an engine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click

from export import judge_commands, make_commands, serve_commands
from stlm_edge.cli import run
from stlm_edge.threshold_command import threshold


@click.group()
def command() -> None:
    """Turn a trained checkpoint into an engine that gives the same answers."""


for each in (
    make_commands.onnx,
    make_commands.engine,
    make_commands.openvino,
    judge_commands.verify,
    judge_commands.report,
    judge_commands.sensitivity,
    serve_commands.triton,
    serve_commands.deepstream,
):
    command.add_command(each)
command.add_command(threshold, "calibrate")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # The exporter's optimiser warns of each layer that it leaves alone; nobody can do anything about it.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
