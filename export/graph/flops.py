"""How much the convolutions and matrix products of an ONNX graph compute."""

from __future__ import annotations

import math

import onnx

from stlm_edge.errors import EngineError

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operations whose FLOPs count; the rest of this network is bound by memory."""

Shape = tuple[int, ...]


def node_flops(model: onnx.ModelProto, *, batch: int = 0) -> dict[str, int]:
    """FLOPs of each product that depends on the picture, by its node's name; two for each multiply-add.

    What depends on constants alone is left out: a compiler computes it once.

    Args:
        batch: pictures at once, where the graph takes a number of them that it does not say.
    Raises:
        EngineError: if a shape is not known, or a product's node has no name.
    """
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
