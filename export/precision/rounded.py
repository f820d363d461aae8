"""An FP16 graph as a float32 graph that rounds as FP16 does, to be run on a processor.

A processor's library does not run FP16 as a GPU does. ONNX Runtime puts casts around each FP16 node and takes pairs of
them out again, OpenVINO computes in whatever its hint says: both go on in float32 where a GPU has long overflowed.
Here each result is rounded by casts that are part of the graph, which no optimiser may remove, since they change
values. Inside one operation sums are in float32, as tensor cores do it.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_MOVES = frozenset(
    {
        "Transpose", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Concat", "Identity", "Gather",
        "GatherElements", "Pad", "Relu", "Neg", "Abs", "ReduceMax", "TopK",
    }
)  # fmt: skip
"""What gives FP16 numbers for FP16 numbers without rounding."""


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make the FP16 of a graph explicit.

    Args:
        model: a graph with FP16 inside and other types at its ends; also with QuantizeLinear and DequantizeLinear.
    Returns:
        A checked copy with the same inputs, outputs and metadata, in which every tensor that was FP16 is float32 and
        holds numbers that FP16 has: infinite where it overflowed, zero where it vanished.
    """
    made = onnx.shape_inference.infer_shapes(model)
    graph = made.graph
    halves = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _rounded_node(node, halves)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(made, full_check=True)
    return made


def _rounded_node(node: NodeProto, halves: set[str]) -> list[NodeProto]:
    results = [index for index, name in enumerate(node.output) if name in halves]
    if node.op_type == "Cast":
        if results:  # into FP16, from whatever it was
            return _round(node.input[0], node.output[0], node.name)
        # Out of FP16: the numbers are such already, so only the type is to be changed, if at all.
        return [node]
    if node.op_type == "ReduceL2" and results:
        return _length(node)
    if node.op_type in _MOVES:
        return [node]
    made = [node]
    for index in results:
        name = node.output[index]
        node.output[index] = f"{name}.exact"
        made += _round(f"{name}.exact", name, f"{node.name}.{index}")
    return made


def _length(node: NodeProto) -> list[NodeProto]:
    """TensorRT has no such operation: it squares, sums and takes the root, each of which is rounded."""
    values, result = node.input[0], node.output[0]
    square, total, root = (f"{result}.{step}" for step in ("square", "total", "root"))
    summed = NodeProto()
    summed.CopyFrom(node)
    summed.op_type = "ReduceSum"
    summed.input[0], summed.output[0] = square, f"{total}.exact"
    return [
        helper.make_node("Mul", [values, values], [f"{square}.exact"], name=f"{node.name}.square"),
        *_round(f"{square}.exact", square, f"{node.name}.square"),
        summed,
        *_round(f"{total}.exact", total, f"{node.name}.total"),
        helper.make_node("Sqrt", [total], [root], name=f"{node.name}.root"),
        *_round(root, result, node.name),
    ]


def _round(name: str, result: str, label: str) -> list[NodeProto]:
    return [
        helper.make_node("Cast", [name], [f"{result}.fp16"], name=f"{label}.to_half", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{result}.fp16"], [result], name=f"{label}.from_half", to=TensorProto.FLOAT),
    ]
