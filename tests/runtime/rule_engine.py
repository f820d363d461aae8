"""The brightness engine with a score by the specification's rule, as exported graphs have it, and with batches."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .conftest import INPUT_SIZE, MAP_SIZE, SPEC, write_engine

TOP_K = 20


def rule_graph(*, max_batch: int = 1) -> onnx.ModelProto:
    """The map is the mean of the channels, the score the mean of its highest pixels, up-sampled to the input's size."""
    batch = 1 if max_batch == 1 else -1
    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(np.array([3], np.int64), "channels"),
        numpy_helper.from_array(np.array([1], np.int64), "first"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        numpy_helper.from_array(np.array([0, -1], np.int64), "flat"),
        numpy_helper.from_array(np.array([TOP_K], np.int64), "k"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "channels"], ["grey"], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "first"], ["plane"]),
        helper.make_node("AveragePool", ["plane"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Squeeze", ["pooled", "first"], ["anomaly_map"]),
        helper.make_node("Resize", ["pooled", "", "scales"], ["full"], mode="linear"),
        helper.make_node("Reshape", ["full", "flat"], ["pixels"]),
        helper.make_node("TopK", ["pixels", "k"], ["highest", "places"], axis=1),
        helper.make_node("ReduceMean", ["highest", "first"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *INPUT_SIZE, 3])],
        [
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, [batch, *MAP_SIZE]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def write_rule_engine(path: Path, *, max_batch: int = 1) -> Path:
    """Save the engine and its sidecar."""
    spec = dataclasses.replace(SPEC, top_k=TOP_K, max_batch=max_batch)
    return write_engine(path, model=rule_graph(max_batch=max_batch), spec=spec)
