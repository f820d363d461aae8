"""Precision written into a graph, so that the file itself says it, and every TensorRT builds the same from it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from export import CALIBRATION_IMAGES
from export.graph.graph import Graph, Kept, Precision, PrecisionRecord
from export.graph.parts import QUANTISABLE, LayerClass, layer_class
from export.precision.calibration import choose_pictures
from export.precision.half import islands, measure_ranges, to_half
from export.precision.int8 import calibrate, quantised_nodes, quantised_only
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Input, read_image, to_input
from stlm_edge.sidecar import Calibration
from stlm_edge.spec import ModelSpec

logger = logging.getLogger(__name__)

RANGE_IMAGES = 16
"""So many pictures at most show which values FP16 cannot hold; there is a margin of a factor of eight."""

INT8_CLASSES: tuple[LayerClass, ...] = tuple(name for name in QUANTISABLE if name != "depth-wise")
"""What is quantised unless asked otherwise. Convolutions in groups drift most, are 2 % of the arithmetic, and
TensorRT-RTX pads each group to four channels in INT8, which moves more bytes than it saves."""

_ARITHMETIC = frozenset({"Conv", "MatMul", "Gemm", "LayerNormalization", "Softmax", "Gelu", "Div", "Sigmoid", "Sub"})
"""Operations whose types say in what a part of the network computes; the rest moves data or follows them."""

_TYPES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def in_precision(
    graph: Graph,
    precision: Precision,
    *,
    good: Path | None = None,
    count: int = CALIBRATION_IMAGES,
    seed: int = 0,
    classes: Collection[LayerClass] = INT8_CLASSES,
) -> Graph:
    """The same network in a precision; the graph itself where it has that already.

    Args:
        good: a folder of good pictures. INT8 needs it; FP16 without it goes by rules alone, and says so.
        count: pictures to calibrate on, at most; FP16 needs no more than `RANGE_IMAGES`.
        seed: of their choice.
        classes: with `int8`, the layer classes to quantise; what is not of them is in FP16.
    Raises:
        ConfigError: if the graph is in another precision than float32, or pictures are needed and missing.
        DataError: if the folder has no good pictures.
        EngineError: if ModelOpt is missing or fails.
    """
    if precision == graph.precision:
        return graph
    if graph.precision != "fp32":
        raise ConfigError(
            f"the graph is in {graph.precision} already, found --precision {precision}; leave it out, or give the "
            "checkpoint or its graph in fp32"
        )
    if precision == "int8":
        if good is None:
            raise ConfigError(
                "INT8 needs good pictures to calibrate on and found none; give --calibration GOOD_PICTURES"
            )
        return calibrated(graph, good, count=count, seed=seed).with_classes(classes)
    pictures: list[Input] = []
    calibration: Calibration | None = None
    if good is not None:
        pictures, calibration = load_pictures(good, spec=graph.spec, count=min(count, RANGE_IMAGES), seed=seed)
    else:
        logger.warning(
            "RANGES NOT MEASURED: no good pictures were given, so what stays in FP32 is chosen by rules alone; "
            "give --calibration GOOD_PICTURES"
        )
    return in_half(graph, "fp16", kept=keep(graph.model, pictures), calibration=calibration)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """All that is needed to write any choice of classes.

    Attributes:
        graph: in float32.
        quantised: its model with all that can be quantised, see `calibrate`.
        kept: what stays in FP32, see `keep`.
    """

    graph: Graph
    quantised: onnx.ModelProto
    kept: Mapping[str, str]
    calibration: Calibration

    def with_classes(self, classes: Iterable[LayerClass]) -> Graph:
        """The graph with these classes in INT8 and the rest in FP16."""
        chosen = self.graph.with_model(quantised_only(self.quantised, tuple(classes)))
        return in_half(chosen, "int8", kept=self.kept, calibration=self.calibration)

    def in_half(self) -> Graph:
        """The graph in FP16 alone."""
        return in_half(self.graph, "fp16", kept=self.kept, calibration=self.calibration)

    def classes(self) -> list[LayerClass]:
        """The classes that have something to quantise."""
        found = {layer_class(node) for node in quantised_nodes(self.quantised)}
        return [name for name in QUANTISABLE if name in found]


def calibrated(graph: Graph, good: Path, *, count: int, seed: int) -> Calibrated:
    """Measure ranges on the good pictures of a folder. Raises `DataError`, `EngineError`."""
    pictures, calibration = load_pictures(good, spec=graph.spec, count=count, seed=seed)
    kept = keep(graph.model, pictures[:RANGE_IMAGES])
    return Calibrated(graph, calibrate(graph.model, pictures, kept=kept), kept, calibration)


def load_pictures(
    folder: Path, *, spec: ModelSpec, count: int = CALIBRATION_IMAGES, seed: int = 0
) -> tuple[list[Input], Calibration]:
    """Good pictures of a folder as a graph takes them, (1, H, W, 3) each. Raises `DataError`."""
    paths, calibration = choose_pictures(folder, count=count, seed=seed)
    return [to_input(read_image(path), spec=spec) for path in paths], calibration


def keep(model: onnx.ModelProto, pictures: Sequence[Input]) -> dict[str, str]:
    """Nodes that stay in FP32 by rule, or by what is seen on pictures, and why; see `islands`."""
    return islands(model, measure_ranges(model, pictures) if pictures else None)


def in_half(graph: Graph, precision: Precision, *, kept: Mapping[str, str], calibration: Calibration | None) -> Graph:
    """A float32 graph in FP16 but for what is kept, and for what is quantised in it."""
    half = to_half(graph.model, kept)
    classes = {node.name: layer_class(node) for node in graph.model.graph.node}
    groups: dict[tuple[str, str], list[str]] = {}
    for name, reason in kept.items():
        groups.setdefault((classes[name], reason), []).append(name)
    kept_in_groups = tuple(Kept(name, reason, tuple(nodes)) for (name, reason), nodes in groups.items())
    return graph.with_model(half, PrecisionRecord(precision, _by_class(half), kept_in_groups, calibration))


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
