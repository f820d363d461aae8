"""Which part of the network a node of a deployment graph belongs to, by the module that it is named after."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

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

_BY_MODULE: tuple[tuple[LayerClass, str], ...] = (
    ("pixels", r"pixels\b"),
    ("comparison", r"comparison\b"),
    ("feature aggregation", r"feature_aggregation\b"),
    ("score", r"scoring\b|graph\|sigmoid"),
    ("decoder", r"(denoising_)?decoder\b"),
    ("encoders", r"both\b"),
    ("patch embed", r"\w+\.backbone\.patch_embed\b"),
    ("stage 0", r"\w+\.backbone\.stages\.0\b"),
    ("downsample", r"\w+\.backbone\.stages\.\d+\.downsample\b"),
    ("window attention", r"\w+\.backbone\.stages\.\d+\.blocks\.\d+\.attn\b"),
    ("MLP", r"\w+\.backbone\.stages\.\d+\.blocks\.\d+\.mlp\b"),
    ("neck", r"\w+\.neck\b"),
)


def layer_class(node: onnx.NodeProto) -> LayerClass:
    """The part of the network; `encoders` where both are stacked and their parts cannot be told apart."""
    name: LayerClass = next((name for name, module in _BY_MODULE if re.match(module, node.name)), "other")
    # Of a convolution in groups each channel sees few others, so it has hardly any arithmetic to speed up.
    return "depth-wise" if name not in ("encoders", "pixels") and _groups(node) > 1 else name


def is_weighted(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it is a convolution, or a product with a matrix of weights."""
    return node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in weights


def _groups(node: onnx.NodeProto) -> int:
    if node.op_type != "Conv":
        return 1
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
