"""`python -m export`: from a checkpoint to an engine."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stlm_edge.cli import run
from stlm_edge.spec import Size

if TYPE_CHECKING:
    from export.graph import Streams

logger = logging.getLogger(__name__)

PATH = click.Path(path_type=Path)


class FrameSize(click.ParamType[Size]):
    """`HxW` in pixels → (height, width)."""

    name = "HxW"

    def convert(self, value: str | Size, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", value)
        if match is None or min(map(int, match.groups())) < 1:
            self.fail(f"{value!r} is no size; give height x width of the frames, such as 1080x1920", param, ctx)
        return int(match[1]), int(match[2])


def graph_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that shape the exported graph."""
    options = (
        click.option(
            "--frame-size", type=FrameSize(), help="Take raw frames of this size and resize them in the graph."
        ),
        click.option(
            "--streams",
            type=click.Choice(["branched", "stacked"]),
            default="branched",
            show_default=True,
            help="One encoder after the other, or both as one grouped network.",
        ),
        click.option("--full-map", is_flag=True, help="Also put out the map at the network's input size."),
        click.option(
            "--max-batch",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Take up to so many pictures at once; 1 makes all shapes fixed.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Turn a trained checkpoint into an engine that gives the same answers."""


@command.command()
@click.argument("checkpoint", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The .onnx file to write; its .json goes beside it.")
@click.option("--data", type=PATH, help="Folder tree of pictures to compare on.  [default: synthetic parts]")
@graph_options
def onnx(
    checkpoint: Path,
    output: Path,
    data: Path | None,
    frame_size: Size | None,
    streams: Streams,
    full_map: bool,
    max_batch: int,
) -> None:
    """Write CHECKPOINT as ONNX, after ONNX Runtime and PyTorch have agreed on real pictures."""
    from export.pipeline import GraphOptions, export_onnx

    if data is None:
        logger.warning("comparing on synthetic parts; give --data to compare on your own pictures")
    options = GraphOptions(frame_size=frame_size, streams=streams, full_map=full_map, max_batch=max_batch)
    drift = export_onnx(checkpoint, output, data=data, options=options)
    click.echo(
        f"{output}: agrees with PyTorch on {drift.images} pictures within {drift.max_map_error:.1e} (map) and "
        f"{drift.max_score_error:.1e} (score)"
    )


@command.command()
@click.argument("plan", type=PATH)
@click.option(
    "--gpu",
    multiple=True,
    help="Name, or your own as name=tflops16:tflops8:tflops32:gb_s; repeatable.  [default: all that have names]",
)
@click.option("--launch-us", default=0.0, type=click.FloatRange(min=0), help="Cost of a launch, told separately.")
@click.option("--json", "json_path", type=PATH, help="Also write the report here, for machines.")
@click.option("--output", "-o", type=PATH, help="Also draw it, as .png.")
def report(plan: Path, gpu: tuple[str, ...], launch_us: float, json_path: Path | None, output: Path | None) -> None:
    """Tell what the kernels of PLAN move and compute, and how fast it can be at best; needs no GPU."""
    from export.report import report_plan

    click.echo(report_plan(plan, gpus=gpu, launch_us=launch_us, json_path=json_path, picture=output))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    # The exporter's optimiser warns of each layer that it leaves alone; nobody can do anything about it.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
