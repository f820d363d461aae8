"""How large the values inside a graph get on real pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graph.onnx_model import INPUT
from stlm_edge.imaging import Input

_MOVES = frozenset({"Transpose", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Concat", "Pad"})


@dataclass(frozen=True)
class Range:
    """Of one tensor's absolute values over all pictures: the highest, and the mean."""

    highest: float
    mean: float


def measure_ranges(model: onnx.ModelProto, pictures: Iterable[Input]) -> dict[str, Range]:
    """Run a float32 graph and see what its nodes put out.

    Each tensor is reduced to two numbers within the graph, so that one run in the memory of an ordinary one is enough,
    whatever the size of the picture.

    Args:
        pictures: (1, H, W, 3) each, at least one.
    Returns:
        Name of each float32 tensor that a node makes → its range; what merely moves values has that of its source.
    """
    import onnxruntime

    watched = onnx.shape_inference.infer_shapes(model)
    graph = watched.graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    nodes = [node for node in graph.node if node.op_type not in _MOVES]
    names = [name for node in nodes for name in node.output if known.get(name) == TensorProto.FLOAT]
    del graph.output[:]
    for index, name in enumerate(names):
        absolute, highest, mean = (f"watched.{index}.{what}" for what in ("absolute", "highest", "mean"))
        graph.node.extend(
            (
                helper.make_node("Abs", [name], [absolute]),
                helper.make_node("ReduceMax", [absolute], [highest], keepdims=0),
                helper.make_node("ReduceMean", [absolute], [mean], keepdims=0),
            )
        )
        graph.output.extend(helper.make_tensor_value_info(end, TensorProto.FLOAT, []) for end in (highest, mean))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen = np.array([session.run(None, {INPUT: picture}) for picture in pictures]).reshape(-1, len(names), 2)
    highest, mean = seen[..., 0].max(axis=0), seen[..., 1].mean(axis=0)
    ranges = {name: Range(float(highest[index]), float(mean[index])) for index, name in enumerate(names)}
    for node in model.graph.node:
        sources = [ranges[name] for name in node.input if name in ranges]
        if node.op_type in _MOVES and sources:
            moved = Range(max(item.highest for item in sources), sum(item.mean for item in sources) / len(sources))
            ranges.update(dict.fromkeys(node.output, moved))
    return ranges
