"""Which part of the network a node of a deployment graph belongs to, by the module that it is named after."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

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
    "score",
    "encoders",
    "other",
]
"""What precision is chosen by."""

QUANTISABLE: tuple[LayerClass, ...] = (
    "patch embed",
    "stage 0",
    "downsample",
    "depth-wise",
    "window attention",
    "MLP",
    "neck",
    "decoder",
    "feature aggregation",
    "encoders",
)
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
    "score",
    "other",
)
"""What kernels are told by, in the network's order. `encoders` is what cannot be told apart in a graph of stacked
streams, `other` what comes from no node and touches nothing that does."""

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
    (r"feature_aggregation\b", "feature aggregation", "feature aggregation"),
    (r"scoring\b", "score", "score"),
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


def _part(name: str) -> tuple[LayerClass, str]:
    return next(
        ((layer_class, stage) for pattern, layer_class, stage in _FIND if pattern.match(name)), ("other", "other")
    )


def _groups(node: onnx.NodeProto) -> int:
    if node.op_type != "Conv":
        return 1
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
