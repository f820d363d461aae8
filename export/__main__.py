"""`python -m export`: from a checkpoint to an engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import copy

import click

from export import commands
from stlm_edge.cli import run
from stlm_edge.threshold_command import threshold


@click.group()
def command() -> None:
    """Turn a trained checkpoint into an engine that gives the same answers."""


for each in (
    commands.onnx,
    commands.engine,
    commands.openvino,
    commands.verify,
    commands.report,
    commands.sensitivity,
    commands.triton,
    commands.deepstream,
):
    command.add_command(each)
command.add_command(threshold)
calibrate = copy(threshold)
calibrate.hidden = True
command.add_command(calibrate, "calibrate")  # its name of before


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
