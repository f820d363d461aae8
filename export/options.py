"""Options that several commands of `python -m export` take, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export import CALIBRATION_IMAGES, GATE_IMAGES
from stlm_edge.spec import Size

if TYPE_CHECKING:
    from export.gate.pictures import Pictures
    from export.graph.graph import GraphOptions
    from export.pipeline import Classes

PATH = click.Path(path_type=Path)
PRECISIONS = click.Choice(["fp32", "fp16", "int8"])

ALLOW_UNVERIFIED = click.option(
    "--allow-unverified",
    is_flag=True,
    help="Also take an engine that no gate has verified.",
)

Command = Callable[..., None]


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


def graph_options(command: Command) -> Command:
    """What shapes the graph of a checkpoint."""
    return _with(
        command,
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
        click.option(
            "--local-conv",
            type=click.Choice(["convolution", "sums"]),
            default="convolution",
            show_default=True,
            help="The blocks' convolutions as such, or as sums that TensorRT-RTX fuses and a processor is slow at.",
        ),
        click.option("--full-map", is_flag=True, help="Also put out the map at the network's input size."),
        click.option(
            "--max-batch",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Take up to so many pictures at once; 1 makes all shapes fixed.",
        ),
        click.option(
            "--simplify",
            is_flag=True,
            help="Run onnx-simplifier over the graph; that made no plan better so far.",
        ),
    )


def picture_options(command: Command) -> Command:
    """What an engine is calibrated on and judged by."""
    return _with(
        command,
        click.option(
            "--data",
            type=PATH,
            help="Pictures to compare on, best a data set with labels.  [default: drawn parts]",
        ),
        click.option("--category", help="Folder below --data."),
        click.option(
            "--images",
            type=click.IntRange(1),
            default=GATE_IMAGES,
            show_default=True,
            help="Compare on so many at most.",
        ),
        click.option(
            "--calibration",
            type=PATH,
            help="Good pictures to measure ranges on.  [default: those for training of a data set]",
        ),
        click.option(
            "--calibration-images",
            type=click.IntRange(1),
            default=CALIBRATION_IMAGES,
            show_default=True,
            help="So many at most.",
        ),
        click.option("--seed", default=0, show_default=True, help="Of the choice of calibration pictures."),
        click.option("--picture", type=PATH, help="Write a contact sheet of the worst cases here, .png or .jpg."),
        click.option("--reference", type=PATH, help="Compare with this checkpoint or fp32 graph.  [default: SOURCE]"),
    )


def class_option(command: Command) -> Command:
    """Which layer classes are quantised."""
    return click.option(
        "--int8-classes",
        help="For int8: all, or layer classes as 'sensitivity' names them, with commas.  "
        "[default: as many as the comparison accepts]",
    )(command)


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def settings_of(others: dict[str, Any]) -> tuple[Pictures, GraphOptions]:
    """What `picture_options` and `graph_options` have collected."""
    from export.gate.pictures import Pictures
    from export.graph.graph import GraphOptions

    others["worst"] = others.pop("picture")
    graph = {
        name: others.pop(name) for name in ("frame_size", "streams", "local_conv", "full_map", "max_batch", "simplify")
    }
    return Pictures(**others), GraphOptions(**graph)


def layer_classes(text: str | None) -> Classes:
    from export.graph.parts import QUANTISABLE
    from export.precision.apply import INT8_CLASSES

    if text is None:
        return "auto"
    if text == "all":
        return INT8_CLASSES
    known = {str(name): name for name in QUANTISABLE}
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no layer class {unknown[0]!r}; expected all or some of {', '.join(known)}")
    return tuple(known[name] for name in names)
