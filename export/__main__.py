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
from stlm_edge.plans import TITLES
from stlm_edge.spec import FALSE_ALARM_RATE, Size

if TYPE_CHECKING:
    from export.calibrate import Method
    from export.graph import Streams
    from export.tensorrt_flavour import FlavourChoice
    from export.to_openvino import CpuPrecision
    from export.triton import Device

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
@click.argument("engine", type=PATH)
@click.option("--reference", required=True, type=PATH, help="The checkpoint, or the float32 .onnx file.")
@click.option("--data", required=True, type=PATH, help="Data set, or folder tree of pictures; labels are used.")
@click.option("--category", help="Folder below --data.")
@click.option("--images", type=click.IntRange(min=1), help="Take at most so many pictures.  [default: all]")
@click.option("--picture", type=PATH, help="Write a sheet of the worst cases here, .png or .jpg.")
@click.option("--json", "json_file", type=PATH, help="Write all figures here.")
def verify(
    engine: Path,
    reference: Path,
    data: Path,
    category: str | None,
    images: int | None,
    picture: Path | None,
    json_file: Path | None,
) -> None:
    """Compare ENGINE with its network, and bless it in its sidecar or not."""
    from export.verify import require_blessed
    from export.verify import verify as run_gate

    gate = run_gate(
        engine,
        reference=reference,
        data=data,
        category=category,
        images=images,
        picture=picture,
        json_file=json_file,
    )
    require_blessed(engine, gate)
    click.echo(f"{engine} is blessed")


@command.command()
@click.argument("engine", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of good pictures, or labelled ones for f1.")
@click.option("--category", help="Folder below --data.")
@click.option(
    "--method",
    type=click.Choice(["good-quantile", "f1"]),
    default="good-quantile",
    show_default=True,
    help="good-quantile: from good pictures alone. f1: F1-optimal on labelled pictures.",
)
@click.option(
    "--false-alarm-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help=f"For good-quantile: wanted share of good pictures at or above it.  [default: {FALSE_ALARM_RATE:g}]",
)
def calibrate(engine: Path, data: Path, category: str | None, method: Method, false_alarm_rate: float | None) -> None:
    """Choose the threshold of ENGINE by its own scores, and change it in its sidecar."""
    from export.calibrate import calibrate as run_calibration

    if method == "f1" and false_alarm_rate is not None:
        raise click.UsageError("--false-alarm-rate goes with --method good-quantile; --method f1 needs none")
    rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
    done = run_calibration(engine, data=data, category=category, method=method, false_alarm_rate=rate)
    for line in done.lines():
        click.echo(line)


@command.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option(
    "--output", "-o", required=True, type=PATH, help="The .xml file to write; its .bin and .json go beside it."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="bf16 needs a processor that has it, int8 needs --data.",
)
@click.option("--data", type=PATH, help="Good pictures, which int8 is calibrated and everything but fp32 compared on.")
@click.option("--calibration-images", type=click.IntRange(1), default=64, show_default=True, help="How many, at most.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of pictures.")
def openvino(
    source: Path, output: Path, precision: CpuPrecision, data: Path | None, calibration_images: int, seed: int
) -> None:
    """Write CHECKPOINT_OR_ONNX as an engine of OpenVINO, for machines without an NVIDIA GPU."""
    from export.to_openvino import export_openvino

    comparison = export_openvino(source, output, precision=precision, data=data, count=calibration_images, seed=seed)
    click.echo(f"{output}: written in {precision}")
    for line in () if comparison is None else comparison.lines():
        click.echo(line)


ALLOW_UNBLESSED = click.option("--allow-unblessed", is_flag=True, help="Also take an engine that no gate has blessed.")


@command.command()
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
@ALLOW_UNBLESSED
def triton(
    engine: Path,
    output: Path,
    name: str,
    instances: int,
    device: Device,
    max_queue_delay_us: int | None,
    allow_unblessed: bool,
) -> None:
    """Write a model repository of Triton Inference Server with ENGINE, a .plan or .onnx, in it."""
    from export.triton import TritonOptions, write_repository

    options = TritonOptions(name=name, instances=instances, device=device, max_queue_delay_us=max_queue_delay_us)
    click.echo(write_repository(engine, output, options=options, allow_unblessed=allow_unblessed))


@command.command()
@click.argument("engine", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The folder for the configuration and the graph.")
@ALLOW_UNBLESSED
def deepstream(engine: Path, output: Path, allow_unblessed: bool) -> None:
    """Write what DeepStream's Gst-nvinfer needs to run ENGINE, an .onnx file."""
    from export.deepstream import UNTESTED, write_deepstream

    click.echo(write_deepstream(engine, output, allow_unblessed=allow_unblessed))
    logger.warning("NOT TESTED: %s; it says how to build the plan", UNTESTED)


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
