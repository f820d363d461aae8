"""The commands of `python -m export`, in the order of a model's life: make, judge, serve.

Whatever needs more than numpy is imported by the command that needs it, so that `--help` works and is quick everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from export import CALIBRATION_IMAGES
from export.options import (
    ALLOW_UNVERIFIED,
    PATH,
    PRECISIONS,
    class_option,
    graph_options,
    layer_classes,
    picture_options,
    settings_of,
)
from stlm_edge.cli import Number
from stlm_edge.errors import VerificationError
from stlm_edge.tensorrt import TITLES

if TYPE_CHECKING:
    from export.gate.pictures import Pictures
    from export.graph.graph import GraphOptions, Precision
    from export.openvino import CpuPrecision
    from export.pipeline import Builder, Classes, Exported
    from export.serving.triton import Device
    from export.tensorrt.product import ProductChoice
    from stlm_edge.sidecar import Gate

logger = logging.getLogger(__name__)


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The .onnx file to write; its .json goes beside it.")
@click.option("--precision", type=PRECISIONS, default="fp32", show_default=True, help="Written into the graph.")
@class_option
@picture_options
@graph_options
def onnx(source: Path, output: Path, precision: Precision, int8_classes: str | None, **others: Any) -> None:
    """Write SOURCE as an ONNX graph in a precision, if it gives the network's answers."""
    from export.pipeline import OnnxBuilder

    exported = _export(source, output, OnnxBuilder(precision), settings_of(others), classes=layer_classes(int8_classes))
    click.echo(f"{output}: {_verdict(exported.gate)}")


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The .plan file to write; .json and .onnx go beside it.")
@click.option("--precision", type=PRECISIONS, help="Of the engine.  [default: that of SOURCE, fp32 for a checkpoint]")
@click.option("--target", help="Compute capabilities to build for without the GPU (sm86,sm89); TensorRT-RTX only.")
@click.option(
    "--workspace",
    type=click.IntRange(1, 1 << 20),
    metavar="MIB",
    help="Scratch memory of a layer at most.  [default: what the GPU has; half of what is free where it shares memory]",
)
@click.option("--timing-cache", type=PATH, help="File of kernel timings to read and to write; TensorRT only.")
@click.option(
    "--portable", is_flag=True, help="For other GPUs of its compute capability too, maybe slower; TensorRT only."
)
@click.option(
    "--product",
    type=click.Choice(["auto", *TITLES]),
    default="auto",
    show_default=True,
    help="Which TensorRT builds; auto takes TensorRT where it is installed, else TensorRT-RTX.",
)
@class_option
@picture_options
@graph_options
def engine(
    source: Path,
    output: Path,
    precision: Precision | None,
    target: str | None,
    workspace: int | None,
    timing_cache: Path | None,
    portable: bool,
    product: ProductChoice,
    int8_classes: str | None,
    **others: Any,
) -> None:
    """Build a TensorRT plan from SOURCE, if it gives the network's answers.

    From a graph that carries its precision this needs neither torch nor ModelOpt; TensorRT-RTX needs no GPU either.
    """
    from export.tensorrt.build import PlanBuilder
    from stlm_edge.sidecar import Sidecar

    builder = PlanBuilder(
        precision=precision,
        product=product,
        targets=() if target is None else tuple(dict.fromkeys(part.strip().lower() for part in target.split(","))),
        workspace_mib=workspace,
        timing_cache=timing_cache,
        portable=portable,
    )
    exported = _export(source, output, builder, settings_of(others), classes=layer_classes(int8_classes))
    record = Sidecar.read(output).engine
    click.echo(
        f"{output}: {record.precision} for {record.device}, {TITLES[record.product]} {record.version}; "
        f"{_verdict(exported.gate)}"
    )
    if record.portability is not None:
        click.echo(f"{output} {record.portability}")


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option(
    "--output", "-o", required=True, type=PATH, help="The .xml file to write; its .bin and .json go beside it."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "auto"]),
    default="fp32",
    show_default=True,
    help="bf16 needs a processor that has it, int8 good pictures. auto: the fastest on the machine that exports, as "
    "measured, which the comparison accepts.",
)
@picture_options
@graph_options
def openvino(source: Path, output: Path, precision: CpuPrecision | Literal["auto"], **others: Any) -> None:
    """Write SOURCE as an engine of OpenVINO, for machines without an NVIDIA GPU, if it gives the network's answers."""
    from export.openvino import OpenVinoBuilder, measure_speed

    pictures, options = settings_of(others)
    if precision == "auto":
        from export.fastest import export_fastest

        with _lines_of_refusals():
            found = export_fastest(source, output, pictures=pictures, options=options)
        _echo(found.lines)
        click.echo(f"{output}: {found.precision}, {found.reason}; {_verdict(found.gate)}")
        return
    builder = OpenVinoBuilder(precision, pictures.good(), count=pictures.calibration_images, seed=pictures.seed)
    exported = _export(source, output, builder, (pictures, options))
    if precision != "fp32":
        _echo(measure_speed(output, exported.graph, precision=precision).lines())
    click.echo(f"{output}: {precision}; {_verdict(exported.gate)}")


@click.command()
@click.argument("engine", type=PATH)
@click.option("--reference", required=True, type=PATH, help="The checkpoint, or the float32 .onnx file.")
@click.option("--data", required=True, type=PATH, help="Data set, or folder tree of pictures; labels are used.")
@click.option("--category", help="Folder below --data.")
@click.option("--images", type=click.IntRange(min=1), help="Take at most so many pictures.  [default: all]")
@click.option("--picture", type=PATH, help="Write a contact sheet of the worst cases here, .png or .jpg.")
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
    """Compare ENGINE with its network, and verify it in its sidecar or not."""
    from export.gate.verify import require_verified
    from export.gate.verify import verify as run_gate

    found = run_gate(
        engine,
        reference=reference,
        data=data,
        category=category,
        images=images,
        picture=picture,
        json_file=json_file,
    )
    _echo(found.lines)
    require_verified(engine, found.gate)
    click.echo(f"{engine} is verified")


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of good pictures to calibrate on.")
@click.option("--test", type=PATH, help="Folder of pictures to measure the errors on.  [default: those of --data]")
@click.option(
    "--count",
    default=CALIBRATION_IMAGES,
    show_default=True,
    type=click.IntRange(1),
    help="Calibrate on so many at most.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the choice of calibration pictures.")
@click.option("--images", default=32, show_default=True, type=click.IntRange(2), help="Measure on so many at most.")
def sensitivity(source: Path, data: Path, test: Path | None, count: int, seed: int, images: int) -> None:
    """Say what INT8 does to the answers, one layer class at a time."""
    from export.precision.sensitivity import sensitivity_table, table

    rows, calibration = sensitivity_table(source, data=data, test=test, count=count, seed=seed, images=images)
    click.echo(f"errors against FP32, scales from {calibration.images} good pictures, seed {calibration.seed}")
    click.echo(table(rows))


@click.command()
@click.argument("plan", type=PATH)
@click.option(
    "--gpu",
    multiple=True,
    help="Name, or your own as name=tflops16:tflops8:tflops32:gb_s; repeatable.  [default: all that have names]",
)
@click.option("--launch-us", default=0.0, type=Number(min=0), help="Cost of a launch, told separately.")
@click.option("--json", "json_path", type=PATH, help="Also write the report here, for machines.")
@click.option("--output", "-o", type=PATH, help="Also draw it, as .png.")
def report(plan: Path, gpu: tuple[str, ...], launch_us: float, json_path: Path | None, output: Path | None) -> None:
    """Tell what the kernels of PLAN move and compute, and how fast it can be at best; needs no GPU."""
    from export.tensorrt.kernels import read_kernels
    from export.tensorrt.report import as_text, make_report
    from stlm_edge.files import write_text
    from stlm_edge.tensorrt import peaks_of

    gpus, table = peaks_of(gpu), read_kernels(plan)
    found = make_report(table, gpus, plan=plan.name, launch_us=launch_us)
    if output is not None:
        from export.tensorrt.report_picture import draw

        draw(table, found, output)
    if json_path is not None:
        write_text(json_path, found.to_json())
    click.echo(as_text(found))


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
    from export.serving.deepstream import UNTRIED, write_deepstream

    click.echo(write_deepstream(engine, output, allow_unverified=allow_unverified))
    logger.warning("NOT TRIED: %s; the file says how to build the plan", UNTRIED)


def _export(
    source: Path,
    output: Path,
    builder: Builder,
    settings: tuple[Pictures, GraphOptions],
    *,
    classes: Classes = "auto",
) -> Exported:
    """Export and print what the gate has found, also where it refuses."""
    from export.pipeline import export

    pictures, options = settings
    with _lines_of_refusals():
        exported = export(source, output, builder=builder, pictures=pictures, options=options, classes=classes)
    _echo(exported.lines)
    return exported


@contextmanager
def _lines_of_refusals() -> Iterator[None]:
    try:
        yield
    except VerificationError as error:
        _echo(error.lines)
        raise


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _verdict(gate: Gate | None) -> str:
    if gate is None:
        return "not compared with the network"
    images = max(drift.images for drift in gate.drifts)
    ran = "" if gate.executed else ", by its graph: the plan itself has not been executed"
    return f"verified on {images} pictures{ran}"
