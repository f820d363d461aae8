"""`python -m export onnx`, `engine` and `openvino`: what makes an engine, and verifies it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export.options import PATH, class_option, graph_options, picture_options
from stlm_edge.tensorrt import TITLES

if TYPE_CHECKING:
    from export.openvino.write import CpuPrecision
    from export.pipeline import Classes
    from export.precision.apply import Precision
    from export.sources import GraphOptions, Pictures
    from export.tensorrt.product import ProductChoice
    from stlm_edge.sidecar import Gate

PRECISIONS = click.Choice(["fp32", "fp16", "int8"])


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The .onnx file to write; its .json goes beside it.")
@click.option("--precision", type=PRECISIONS, default="fp32", show_default=True, help="Written into the graph.")
@class_option
@picture_options
@graph_options
def onnx(source: Path, output: Path, precision: Precision, int8_classes: str | None, **others: Any) -> None:
    """Write SOURCE as an ONNX graph in a precision, if it gives the network's answers."""
    from export.pipeline import export_onnx

    pictures, options = _settings(others)
    gate = export_onnx(
        source,
        output,
        precision=precision,
        pictures=pictures,
        options=options,
        classes=_classes(int8_classes),
    )
    click.echo(f"{output}: {_verdict(gate)}")


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--output", "-o", required=True, type=PATH, help="The .plan file to write; .json and .onnx go beside it.")
@click.option("--precision", type=PRECISIONS, help="Of the engine.  [default: that of SOURCE, fp32 for a checkpoint]")
@click.option("--target", help="Compute capabilities to build for without the GPU (sm86,sm89); TensorRT-RTX only.")
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Scratch memory of a layer at most.")
@click.option("--timing-cache", type=PATH, help="File of kernel timings to read and to write; TensorRT only.")
@click.option(
    "--product",
    "--flavour",
    "product",
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
    product: ProductChoice,
    int8_classes: str | None,
    **others: Any,
) -> None:
    """Build a TensorRT plan from SOURCE, if it gives the network's answers.

    From a graph that carries its precision this needs neither torch nor ModelOpt; TensorRT-RTX needs no GPU either.
    """
    from export.pipeline import export_engine
    from export.tensorrt.build import EngineSettings
    from stlm_edge.sidecar import Sidecar

    settings = EngineSettings(
        product=product,
        targets=() if target is None else tuple(dict.fromkeys(part.strip().lower() for part in target.split(","))),
        workspace_mib=workspace,
        timing_cache=timing_cache,
    )
    pictures, options = _settings(others)
    gate = export_engine(
        source,
        output,
        precision=precision,
        settings=settings,
        pictures=pictures,
        options=options,
        classes=_classes(int8_classes),
    )
    record = Sidecar.read(output).engine
    click.echo(
        f"{output}: {record.precision} for {record.device}, {TITLES[record.product]} {record.version}; {_verdict(gate)}"
    )


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option(
    "--output", "-o", required=True, type=PATH, help="The .xml file to write; its .bin and .json go beside it."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="bf16 needs a processor that has it, int8 good pictures.",
)
@picture_options
@graph_options
def openvino(source: Path, output: Path, precision: CpuPrecision, **others: Any) -> None:
    """Write SOURCE as an engine of OpenVINO, for machines without an NVIDIA GPU, if it gives the network's answers."""
    from export.pipeline import export_openvino

    pictures, options = _settings(others)
    gate = export_openvino(source, output, precision=precision, pictures=pictures, options=options)
    click.echo(f"{output}: {precision}; {_verdict(gate)}")


def _settings(others: dict[str, Any]) -> tuple[Pictures, GraphOptions]:
    """What `picture_options` and `graph_options` have collected."""
    from export.sources import GraphOptions, Pictures

    others["worst"] = others.pop("picture")
    graph = {name: others.pop(name) for name in ("frame_size", "streams", "full_map", "max_batch")}
    return Pictures(**others), GraphOptions(**graph)


def _classes(text: str | None) -> Classes:
    from export.precision.apply import INT8_CLASSES
    from export.precision.layer_classes import QUANTISABLE

    if text is None:
        return "auto"
    if text == "all":
        return INT8_CLASSES
    known = {str(name): name for name in QUANTISABLE}
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no layer class {unknown[0]!r}; expected all or some of {', '.join(known)}")
    return tuple(known[name] for name in names)


def _verdict(gate: Gate | None) -> str:
    if gate is None:
        return "not compared with the network"
    images = max(drift.images for drift in gate.drifts)
    ran = "" if gate.executed else ", by its graph: the plan itself has not been executed"
    return f"verified on {images} pictures{ran}"
