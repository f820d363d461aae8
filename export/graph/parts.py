"""Which part of the network a node of a graph belongs to, by the module it is named after, and how much it computes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from stlm_edge.errors import EngineError

if TYPE_CHECKING:
    import onnx

LayerClass = Literal[
    "pixels",
    "patch embed",
    "stage 0",
    "downsample",
    "depth-wise",
    "window attention",
    "MLP",
    "neck",
    "decoder",
    "comparison",
    "feature aggregation",
    "patch memory",
    "score",
    "encoders",
    "other",
]
"""What precision is chosen by."""

NEVER_QUANTISED: tuple[LayerClass, ...] = ("pixels", "comparison", "patch memory", "score", "other")

QUANTISABLE: tuple[LayerClass, ...] = tuple(name for name in get_args(LayerClass) if name not in NEVER_QUANTISED)
"""Classes whose convolutions and products with weights can be in INT8."""

STAGES = (
    "input",
    "patch embed",
    "stage 0",
    "stage 1",
    "stage 2",
    "stage 3",
    "neck",
    "encoders",
    "decoder",
    "comparison",
    "feature aggregation",
    "patch memory",
    "score",
    "other",
)
"""What kernels are told by, in the network's order. `encoders` is what cannot be told apart in a graph of stacked
streams, `other` what comes from no node and touches nothing that does."""

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operations whose FLOPs count; the rest of this network is bound by memory."""

Shape = tuple[int, ...]

_BACKBONE = r"(plain|denoising)\.backbone\."

_WITHIN_STAGE: tuple[tuple[str, LayerClass], ...] = (
    (r"\.downsample", "downsample"),
    (r"\.blocks\.\d+\.attn", "window attention"),
    (r"\.blocks\.\d+\.mlp", "MLP"),
    ("", "other"),
)

_PARTS: tuple[tuple[str, LayerClass, str], ...] = (
    (r"pixels\b", "pixels", "input"),
    (r"both\b", "encoders", "encoders"),
    (rf"{_BACKBONE}patch_embed\b", "patch embed", "patch embed"),
    (rf"{_BACKBONE}stages\.0\b", "stage 0", "stage 0"),
    *(
        (rf"{_BACKBONE}stages\.{number}{module}\b", layer_class, f"stage {number}")
        for number in (1, 2, 3)
        for module, layer_class in _WITHIN_STAGE
    ),
    (r"(plain|denoising)\.neck\b", "neck", "neck"),
    (r"(plain|denoising)\.", "other", "encoders"),
    (r"(denoising_)?decoder\b", "decoder", "decoder"),
    (r"comparison\b", "comparison", "comparison"),
    (r"plain_features\b", "comparison", "comparison"),
    (r"feature_aggregation\b", "feature aggregation", "feature aggregation"),
    (r"memory\b", "patch memory", "patch memory"),
    (r"(fusion|scoring)\b", "score", "score"),
    (r"graph\|sigmoid", "score", "other"),  # a kernel of its own goes with what made its input
)
"""Beginning of a node's name, as `to_onnx` gives it → its class and its stage; the first that fits."""

_FIND = tuple((re.compile(pattern), layer_class, stage) for pattern, layer_class, stage in _PARTS)
_STREAM = re.compile(r"(plain|denoising|both)\b")


def layer_class(node: onnx.NodeProto) -> LayerClass:
    """The part of the network; `encoders` where both are stacked and their parts cannot be told apart."""
    name, _ = _part(node.name)
    # Of a convolution in groups each channel sees few others, so it has hardly any arithmetic to speed up.
    return "depth-wise" if name not in ("encoders", "pixels") and _groups(node) > 1 else name


def place(nodes: Sequence[str]) -> tuple[str, str | None]:
    """Stage and stream, if there is one, of a kernel that computes nodes of these names.

    The stage is that of most, of equals the later one.
    """
    stages = Counter(stage for name in nodes if (stage := _part(name)[1]) != "other")
    streams = {match[1] for name in nodes if (match := _STREAM.match(name))}
    stage = max(stages, key=lambda stage: (stages[stage], STAGES.index(stage)), default="other")
    return stage, None if not streams else streams.pop() if len(streams) == 1 else "both"


def is_weighted(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it is a convolution, or a product with a matrix of weights."""
    return node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in weights


def node_flops(model: onnx.ModelProto, *, batch: int = 0) -> dict[str, int]:
    """FLOPs of each product that depends on the picture, by its node's name; two for each multiply-add.

    What depends on constants alone is left out: a compiler computes it once.

    Args:
        batch: pictures at once, where the graph takes a number of them that it does not say.
    Raises:
        EngineError: if a shape is not known, or a product's node has no name.
    """
    import onnx  # the names of stages are read with a plan's kernels, where there may be none

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: tuple(axis.dim_value or batch for axis in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    } | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    constants = {tensor.name for tensor in graph.initializer} | {""}
    flops: dict[str, int] = {}
    for node in graph.node:
        if all(name in constants for name in node.input):
            constants.update(node.output)
        elif node.op_type in PRODUCTS:
            if not node.name or node.name in flops:
                raise EngineError(f"a {node.op_type} of the graph is named {node.name!r}, expected a name of its own")
            flops[node.name] = _flops(node, shapes)
    return flops


def _part(name: str) -> tuple[LayerClass, str]:
    return next(
        ((layer_class, stage) for pattern, layer_class, stage in _FIND if pattern.match(name)), ("other", "other")
    )


def _groups(node: onnx.NodeProto) -> int:
    if node.op_type != "Conv":
        return 1
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def _flops(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    left, right, out = (shapes.get(name, (0,)) for name in (node.input[0], node.input[1], node.output[0]))
    if not (math.prod(left) and math.prod(right) and math.prod(out)):
        raise EngineError(
            f"the graph does not say in which shapes {node.name} computes; expected one for a fixed number of "
            "pictures, export it without --max-batch"
        )
    if node.op_type == "Conv":  # the weights are (channels out, channels in / groups, height, width)
        return 2 * math.prod(out) * math.prod(right[1:])
    transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
    return 2 * math.prod(out) * (left[0] if transposed else left[-1])
