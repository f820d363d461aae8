"""Precision written into an ONNX graph, so that the file itself says it, and every TensorRT builds the same from it.

Reading what a graph says needs neither torch nor ModelOpt.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import onnx
from onnx import TensorProto

from export.graph.onnx_model import PRECISION_KEY, metadata, set_metadata, spec_of
from export.precision.calibration import COUNT, choose_pictures
from export.precision.layer_classes import QUANTISABLE, LayerClass, layer_class
from stlm_edge.errors import ConfigError, EngineError, SpecError
from stlm_edge.imaging import Input, read_image, to_input
from stlm_edge.records import MAY_LACK, build, parse
from stlm_edge.sidecar import Calibration

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

RANGE_IMAGES = 16
"""So many pictures at most show which values FP16 cannot hold; there is a margin of a factor of eight."""

INT8_CLASSES: tuple[LayerClass, ...] = tuple(name for name in QUANTISABLE if name != "depth-wise")
"""What is quantised unless asked otherwise. Convolutions in groups drift most, are 2 % of the arithmetic, and
TensorRT-RTX pads each group to four channels in INT8, which moves more bytes than it saves."""

_ARITHMETIC = frozenset({"Conv", "MatMul", "Gemm", "LayerNormalization", "Softmax", "Gelu", "Div", "Sigmoid", "Sub"})
"""Operations whose types say in what a part of the network computes; the rest moves data or follows them."""

_TYPES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


@dataclass(frozen=True)
class Kept:
    """Nodes of one class that stay in FP32, and why."""

    layer_class: str
    reason: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class PrecisionRecord:
    """What stands in a graph's metadata as `stlm_edge.precision`.

    Attributes:
        precision: as it was asked for.
        by_class: layer class → the precisions that its arithmetic has in fact, joined by `+`.
        kept: what is in FP32 although FP16 was asked for.
        calibration: the pictures that ranges were measured on; None if there were none.
    """

    precision: Precision
    by_class: dict[str, str] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    calibration: Calibration | None = field(default=None, metadata=MAY_LACK)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def with_precision(
    model: onnx.ModelProto,
    precision: Precision,
    *,
    calibration_pictures: Path | None = None,
    count: int = COUNT,
    seed: int = 0,
    classes: Collection[LayerClass] = INT8_CLASSES,
) -> tuple[onnx.ModelProto, PrecisionRecord]:
    """Write a precision into a float32 deployment graph.

    Args:
        calibration_pictures: a folder of good pictures. INT8 needs it; FP16 without it goes by rules alone, and says
            so.
        count: pictures to calibrate on, at most; FP16 needs no more than `RANGE_IMAGES`.
        seed: of their choice.
        classes: with `int8`, the layer classes to quantise; what is not of them is in FP16.
    Returns:
        A checked graph of the same inputs and outputs, and the record that stands in its metadata.
    Raises:
        ConfigError: if the graph's precision has already been chosen, or pictures are needed and missing.
        DataError: if the folder has no good pictures.
        EngineError: if ModelOpt is missing or fails.
    """
    before = precision_of(model)
    if before is not None:
        raise ConfigError(
            f"the graph is in {before.precision} already, expected one in float32; give the checkpoint, or the graph "
            "that 'python -m export onnx' wrote"
        )
    if precision == "fp32":
        return model, PrecisionRecord("fp32", _by_class(model))
    pictures: list[Input] = []
    calibration: Calibration | None = None
    if calibration_pictures is not None:
        wanted = count if precision == "int8" else min(count, RANGE_IMAGES)
        pictures, calibration = load_pictures(model, calibration_pictures, count=wanted, seed=seed)
    elif precision == "int8":
        raise ConfigError("INT8 needs good pictures to calibrate on and found none; give --calibration GOOD_PICTURES")
    else:
        logger.warning(
            "RANGES NOT MEASURED: no good pictures were given, so what stays in FP32 is chosen by rules alone; "
            "give --calibration GOOD_PICTURES"
        )
    kept = keep(model, pictures[:RANGE_IMAGES])
    if precision == "int8":
        from export.precision.int8 import calibrate

        return with_classes(calibrate(model, pictures, kept=kept), classes, kept=kept, calibration=calibration)
    return in_half(model, "fp16", kept=kept, calibration=calibration)


def load_pictures(
    model: onnx.ModelProto, folder: Path, *, count: int = COUNT, seed: int = 0
) -> tuple[list[Input], Calibration]:
    """Good pictures of a folder as a graph takes them, (1, H, W, 3) each. Raises `DataError`."""
    spec = spec_of(model, folder)
    paths, calibration = choose_pictures(folder, count=count, seed=seed)
    return [to_input(read_image(path), spec=spec) for path in paths], calibration


def keep(model: onnx.ModelProto, pictures: Sequence[Input]) -> dict[str, str]:
    """Nodes that stay in FP32 by rule, or by what is seen on pictures, and why; see `export.precision.half.islands`."""
    from export.precision.activation_ranges import measure_ranges
    from export.precision.half import islands

    return islands(model, measure_ranges(model, pictures) if pictures else None)


def with_classes(
    calibrated: onnx.ModelProto,
    classes: Collection[LayerClass],
    *,
    kept: Mapping[str, str],
    calibration: Calibration | None,
) -> tuple[onnx.ModelProto, PrecisionRecord]:
    """Of a graph of `export.int8.calibrate`, the one with these classes in INT8 and the rest in FP16."""
    from export.precision.int8 import quantised_only

    return in_half(quantised_only(calibrated, classes), "int8", kept=kept, calibration=calibration)


def in_half(
    model: onnx.ModelProto, precision: Precision, *, kept: Mapping[str, str], calibration: Calibration | None
) -> tuple[onnx.ModelProto, PrecisionRecord]:
    """A float32 graph in FP16 but for what is kept, and its record."""
    from export.precision.half import to_half

    half = to_half(model, kept)
    classes = {node.name: layer_class(node) for node in model.graph.node}
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in kept.items():
        groups.setdefault((classes[name], reason), []).append(name)
    islands = tuple(Kept(name, reason, tuple(nodes)) for (name, reason), nodes in groups.items())
    return _recorded(half, PrecisionRecord(precision, _by_class(half), islands, calibration))


def precision_of(model: onnx.ModelProto) -> PrecisionRecord | None:
    """What a graph says of its precision; None if none has been chosen. Raises `EngineError` if that is damaged."""
    text = metadata(model).get(PRECISION_KEY)
    if text is None:
        return None
    try:
        record = build(PrecisionRecord, parse(text))
    except SpecError as error:
        raise EngineError(f"the graph's {PRECISION_KEY} cannot be read: {error}") from None
    if record.precision not in PRECISIONS:
        raise EngineError(
            f"the graph says its precision is {record.precision!r}, expected one of {', '.join(PRECISIONS)}; "
            "export it again with this version"
        )
    return record


def _recorded(model: onnx.ModelProto, record: PrecisionRecord) -> tuple[onnx.ModelProto, PrecisionRecord]:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    set_metadata(made, PRECISION_KEY, record.to_json())
    return made, record


def _by_class(model: onnx.ModelProto) -> dict[str, str]:
    """Layer class → precisions of its arithmetic."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    dequantised = {node.output[0] for node in inferred.node if node.op_type == "DequantizeLinear"}
    found: dict[str, set[str]] = {}
    for node in inferred.node:
        if node.op_type in _ARITHMETIC and types.get(node.output[0]) in _TYPES:
            is_int8 = len(node.input) > 1 and dequantised.issuperset(node.input[:2])
            found.setdefault(layer_class(node), set()).add("int8" if is_int8 else _TYPES[types[node.output[0]]])
    return {name: "+".join(sorted(precisions)) for name, precisions in found.items()}
