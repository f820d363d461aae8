"""`python -m export triton` and `deepstream`: what others need to run an engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from export.options import PATH

if TYPE_CHECKING:
    from export.serving.triton import Device

logger = logging.getLogger(__name__)

ALLOW_UNVERIFIED = click.option(
    "--allow-unverified",
    "--allow-unblessed",
    "allow_unverified",
    is_flag=True,
    help="Also take an engine that no gate has verified.",
)


@click.command()
@click.argument("engine", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The model repository; the model's folder goes into it.")
@click.option("--name", default="stlm", show_default=True, help="Of the model.")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="Side by side on each device.")
@click.option(
    "--device",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="auto: a plan on the GPU, ONNX on the GPU where there is one.",
)
@click.option(
    "--max-queue-delay-us",
    type=click.IntRange(0),
    help="How long a request waits for others to join its batch; only for engines exported with --max-batch.",
)
@ALLOW_UNVERIFIED
def triton(
    engine: Path,
    output: Path,
    name: str,
    instances: int,
    device: Device,
    max_queue_delay_us: int | None,
    allow_unverified: bool,
) -> None:
    """Write a model repository of Triton Inference Server with ENGINE, a .plan or .onnx, in it."""
    from export.serving.triton import TritonOptions, write_repository

    options = TritonOptions(name=name, instances=instances, device=device, max_queue_delay_us=max_queue_delay_us)
    click.echo(write_repository(engine, output, options=options, allow_unverified=allow_unverified))


@click.command()
@click.argument("engine", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The folder for the configuration and the graph.")
@ALLOW_UNVERIFIED
def deepstream(engine: Path, output: Path, allow_unverified: bool) -> None:
    """Write what DeepStream's Gst-nvinfer needs to run ENGINE, an .onnx file."""
    from export.serving.deepstream import UNTESTED, write_deepstream

    click.echo(write_deepstream(engine, output, allow_unverified=allow_unverified))
    logger.warning("NOT TESTED: %s; it says how to build the plan", UNTESTED)
