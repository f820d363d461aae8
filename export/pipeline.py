"""From a checkpoint or a graph to an engine that is verified: graph → precision → engine → gate, or nothing."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import onnx

from export.gate.verify import record_gate, verify
from export.graph.onnx_model import spec_of
from export.precision.apply import INT8_CLASSES, Precision, PrecisionRecord, in_half, precision_of, with_precision
from export.precision.gain import BuildCost, expected_gain
from export.precision.layer_classes import LayerClass
from export.publish import publish
from export.sources import GraphOptions, Pictures, Source, float_source, read_source
from export.tensorrt.build import EngineSettings, build_engine
from export.tensorrt.kernels import kernels_path, read_kernels
from export.tensorrt.roofline import GPUS
from stlm_edge.errors import ConfigError, OutputError, SpecError
from stlm_edge.files import require_place, sha256, write_bytes
from stlm_edge.sidecar import EngineRecord, Gate, Sidecar

if TYPE_CHECKING:
    from export.openvino.write import CpuPrecision

logger = logging.getLogger(__name__)

Classes = Literal["auto"] | tuple[LayerClass, ...]
"""The layer classes to quantise; `auto` takes as many as the gate accepts."""


def export_onnx(
    source: Path,
    output: Path,
    *,
    precision: Precision = "fp32",
    pictures: Pictures | None = None,
    options: GraphOptions | None = None,
    classes: Classes = "auto",
) -> Gate | None:
    """Write `output`, a graph in a precision, and its sidecar.

    Raises:
        VerificationError: if its answers drift too far; see `publish`.
        StlmError: if source, pictures or place cannot be used.
    """
    _require_place(output, ".onnx")
    pictures = pictures or Pictures()
    pictures.require_usable()
    read = read_source(source, options)
    if not read.is_checkpoint and precision == read.precision:
        raise ConfigError(f"{source} is in {precision} already, so there is nothing to export; copy it")
    model, record = _in_precision(read, precision, pictures, classes)

    def write(path: Path) -> None:
        write_bytes(path, model.SerializeToString())
        Sidecar(
            spec=spec_of(model, path),
            engine=EngineRecord(
                product="onnx",
                version=read.made_by,
                device="any",
                precision=record.precision,
                engine_sha256=sha256(path),
                precision_by_class=record.by_class,
                calibration=record.calibration,
            ),
        ).write(path)

    return publish(output, write=write, judge=lambda path: _judge(path, read, pictures))


def export_engine(
    source: Path,
    output: Path,
    *,
    precision: Precision | None = None,
    settings: EngineSettings | None = None,
    pictures: Pictures | None = None,
    options: GraphOptions | None = None,
    classes: Classes = "auto",
) -> Gate | None:
    """Write the plan `output` with its sidecar, its list of kernels and the graph that it was built from.

    From a graph that carries its precision already, this needs neither torch nor ModelOpt: so a Jetson builds again.

    Args:
        precision: None for that of the source.
    Raises:
        VerificationError: if its answers drift too far; see `publish`.
        StlmError: if source, settings, pictures or place cannot be used, or TensorRT fails.
    """
    _require_place(output, ".plan")
    settings, pictures = settings or EngineSettings(), pictures or Pictures()
    pictures.require_usable()
    read = read_source(source, options)
    precision = precision or read.precision
    model, record = _in_precision(read, precision, pictures, classes)
    _tell_of_recalibration(output)

    def write(path: Path) -> None:
        if model is read.model and not read.is_checkpoint:
            build_engine(source, path, settings=settings)
            return
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / f"{output.stem}.{record.precision}.onnx"
            graph.write_bytes(model.SerializeToString())
            build_engine(graph, path, settings=settings)

    gate = publish(output, write=write, judge=lambda path: _judge(path, read, pictures))
    if record.precision == "int8" and read.precision == "fp32":
        _tell_gain(read, output, record, settings)
    return gate


def export_openvino(
    source: Path,
    output: Path,
    *,
    precision: CpuPrecision = "fp32",
    pictures: Pictures | None = None,
    options: GraphOptions | None = None,
) -> Gate | None:
    """Write an engine of OpenVINO, its weights and its sidecar, and say whether it is faster than FP32 here.

    Args:
        source: a checkpoint, or a graph in float32, which needs neither torch nor timm.
    Raises:
        VerificationError: if its answers drift too far; see `publish`.
        StlmError: if source, pictures or place cannot be used, or the processor lacks the precision.
    """
    from export.openvino.write import require_possible, write_openvino

    _require_place(output, ".xml")
    require_possible(output, precision)
    pictures = pictures or Pictures()
    pictures.require_usable()
    read = float_source(source, options)

    def write(path: Path) -> None:
        write_openvino(
            read,
            path,
            precision=precision,
            good=pictures.good(),
            count=pictures.calibration_images,
            seed=pictures.seed,
        )

    gate = publish(output, write=write, judge=lambda path: _judge(path, read, pictures))
    if precision != "fp32":
        from export.openvino.speed import measure_speed

        for line in measure_speed(output, read, precision=precision).lines():
            click.echo(line)
    return gate


def _require_place(output: Path, suffix: str) -> None:
    if output.suffix != suffix:
        raise OutputError(f"{output} has the suffix {output.suffix!r}, expected {suffix}; rename the output")
    require_place(output)


def _in_precision(
    source: Source, precision: Precision, pictures: Pictures, classes: Classes
) -> tuple[onnx.ModelProto, PrecisionRecord]:
    if precision == source.precision:
        return source.model, precision_of(source.model) or PrecisionRecord(precision)
    if source.precision != "fp32":
        raise ConfigError(
            f"{source.path} is in {source.precision}, found --precision {precision}; leave it out, or give the "
            "checkpoint or its graph in fp32"
        )
    if precision == "int8" and classes == "auto":
        from export.precision.automatic import quantise_automatically

        return quantise_automatically(source, pictures)
    return with_precision(
        source.model,
        precision,
        calibration_pictures=pictures.good(),
        count=pictures.calibration_images,
        seed=pictures.seed,
        classes=INT8_CLASSES if classes == "auto" else classes,
    )


def _judge(engine: Path, source: Source, pictures: Pictures) -> Gate | None:
    """The verdict on an engine that is not in its place yet, also in its sidecar; None if there is nothing to say."""
    reference = pictures.reference
    if reference is None:
        record = Sidecar.read(engine).engine
        # A plan in the precision of a given graph is compared with nothing: the graph would vouch for itself.
        differs = record.precision != source.precision or record.product == "openvino"
        reference = source.path if source.is_checkpoint or differs else None
    if reference is not None:
        return verify(
            engine,
            reference=reference,
            data=pictures.data,
            category=pictures.category,
            images=pictures.images,
            picture=pictures.worst,
        )
    gate = _gate_of_graph(source.path)
    if gate is None:
        logger.warning(
            "NOT COMPARED: %s carries no verdict and nothing to compare with; give --reference, a checkpoint or its "
            "graph in fp32",
            source.path,
        )
        return None
    logger.info("the verdict on the graph is taken over: %s has not been executed", engine.name)
    record_gate(engine, gate)
    return gate


def _gate_of_graph(graph: Path) -> Gate | None:
    """What was found of a graph when it was exported, or when a plan was built of it elsewhere."""
    engine = graph.with_suffix("") if graph.name.endswith(".plan.onnx") else graph
    try:
        record = Sidecar.read(engine).engine
    except SpecError:
        return None
    known = record.onnx_sha256 if engine != graph else record.engine_sha256
    if record.gate is None or known != sha256(graph):
        return None
    return dataclasses.replace(record.gate, executed=False)


def _tell_of_recalibration(output: Path) -> None:
    """A threshold that was chosen on the engine which is about to be replaced does not come along."""
    try:
        threshold = Sidecar.read(output).spec.threshold
    except SpecError:
        return
    if threshold is not None and threshold.previous is not None:
        logger.warning(
            "%s had the threshold %.4g, chosen on that very engine; the new one starts with the network's, choose it "
            "again: python -m export calibrate %s --data GOOD_PICTURES",
            output,
            threshold.value,
            output,
        )


def _tell_gain(source: Source, plan: Path, int8: PrecisionRecord, settings: EngineSettings) -> None:
    """Build the same in FP16, to say whether INT8 can be faster at all."""
    if not kernels_path(plan).is_file():
        return
    kept = {name: kept.reason for kept in int8.kept for name in kept.nodes}
    fp16, _ = in_half(source.model, "fp16", kept=kept, calibration=int8.calibration)
    logger.info("building the same in FP16, to compare")
    with tempfile.TemporaryDirectory() as folder:
        graph, other = Path(folder) / "fp16.onnx", Path(folder) / "fp16.plan"
        graph.write_bytes(fp16.SerializeToString())
        build_engine(graph, other, settings=settings)
        tables = [read_kernels(path) for path in (other, plan)]
    gpu = GPUS["rtx3090"]
    costs = [
        BuildCost(
            kernels=len(table.kernels),
            bytes_moved=sum(kernel.bytes_moved for kernel in table.kernels),
            floor_ms=sum(gpu.floor_ms(kernel) for kernel in table.kernels),
        )
        for table in tables
    ]
    click.echo(f"{expected_gain(*costs).sentence}, floors of {gpu.name}")
