"""FP16 graphs on a processor, honestly."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from export.precision.rounded import rounded


def model_of(nodes, inputs, outputs, weights=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, **inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def casting(*middle: onnx.NodeProto) -> list[onnx.NodeProto]:
    """x in float32, `middle` from h to r in FP16, y in float32."""
    return [
        helper.make_node("Cast", ["x"], ["h"], name="in", to=TensorProto.FLOAT16),
        *middle,
        helper.make_node("Cast", ["r"], ["y"], name="out", to=TensorProto.FLOAT),
    ]


def test_overflow_becomes_infinite_and_faint_values_vanish():
    squared = model_of(casting(helper.make_node("Mul", ["h", "h"], ["r"], name="mul")), {"x": [4]}, {"y": [4]})
    found = run(rounded(squared), x=np.array([300, 255, 1e-4, 1 + 2**-10], np.float32))
    # (1 + 2^-10)² = 1 + 2^-9 + 2^-20, of which FP16 keeps the first two.
    np.testing.assert_array_equal(found, np.array([np.inf, 65024, 0, 1 + 2**-9], np.float32))


def test_no_optimiser_takes_a_lossy_pair_of_casts_out():
    pair = model_of(
        [
            helper.make_node("Cast", ["x"], ["r"], name="in", to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["r"], ["y"], name="out", to=TensorProto.FLOAT),
        ],
        {"x": [3]},
        {"y": [3]},
    )
    values = np.array([1e5, 1e-9, 0.1], np.float32)
    wanted = torch.from_numpy(values).half().float().numpy()
    np.testing.assert_array_equal(run(rounded(pair), x=values), wanted)
    assert wanted[0] == np.inf
    assert wanted[1] == 0


def test_length_overflows_where_its_squares_do():
    """TensorRT takes the operation apart, and the sum of squares is a tensor of its own."""
    length = model_of(
        casting(helper.make_node("ReduceL2", ["h", "axes"], ["r"], name="norm", keepdims=1)),
        {"x": [1, 256]},
        {"y": [1, 1]},
        [("axes", np.array([1]))],
    )
    assert run(rounded(length), x=np.full((1, 256), 15, np.float32)) == 240
    assert np.isinf(run(rounded(length), x=np.full((1, 256), 17, np.float32)))


rng = np.random.default_rng(0)
X = rng.normal(size=(2, 16, 8, 8)).astype(np.float32)
WEIGHT = (rng.normal(size=(24, 16, 3, 3)) / 12).astype(np.float16)
BIAS = rng.normal(size=24).astype(np.float16)
MATRIX = (rng.normal(size=(8, 32)) / 3).astype(np.float16)
SCALE, SHIFT = rng.normal(size=8).astype(np.float16), rng.normal(size=8).astype(np.float16)

LAYERS = {
    "convolution": (
        helper.make_node("Conv", ["h", "w", "b"], ["r"], name="conv", pads=[1, 1, 1, 1]),
        [("w", WEIGHT), ("b", BIAS)],
        lambda x: F.conv2d(x, torch.from_numpy(WEIGHT), torch.from_numpy(BIAS), padding=1),
    ),
    "product": (
        helper.make_node("MatMul", ["h", "m"], ["r"], name="matmul"),
        [("m", MATRIX)],
        lambda x: x @ torch.from_numpy(MATRIX),
    ),
    "layer norm": (
        helper.make_node("LayerNormalization", ["h", "s", "t"], ["r"], name="norm", epsilon=1e-5),
        [("s", SCALE), ("t", SHIFT)],
        lambda x: F.layer_norm(x, (8,), torch.from_numpy(SCALE), torch.from_numpy(SHIFT), 1e-5),
    ),
    "softmax": (helper.make_node("Softmax", ["h"], ["r"], name="softmax", axis=-1), [], lambda x: x.softmax(-1)),
    "gelu": (helper.make_node("Gelu", ["h"], ["r"], name="gelu"), [], F.gelu),
    "sum": (
        helper.make_node("Add", ["h", "t"], ["r"], name="add"),
        [("t", SHIFT)],
        lambda x: x + torch.from_numpy(SHIFT),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_rounds_as_torch_does_in_half(layer):
    node, weights, reference = LAYERS[layer]
    wanted = reference(torch.from_numpy(X).half()).float().numpy()
    found = run(rounded(model_of(casting(node), {"x": list(X.shape)}, {"y": list(wanted.shape)}, weights)), x=X)
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))
    spacing = np.spacing(np.maximum(np.abs(wanted), 2**-10).astype(np.float16)).astype(np.float32)
    off = np.abs(found - wanted) / spacing
    # torch rounds once more here and there, and sums in another order: two neighbours apart at most, and rarely.
    assert off.max() <= 2
    assert (off > 0).mean() < 0.05


def test_quantised_values_stay_quantised():
    nodes = casting(
        helper.make_node("QuantizeLinear", ["h", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["r"], name="dq"),
    )
    weights = [("scale", np.array(0.5, np.float16)), ("zero", np.array(0, np.int8))]
    found = run(
        rounded(model_of(nodes, {"x": [4]}, {"y": [4]}, weights)), x=np.array([0.6, -3.2, 1e3, -1e3], np.float32)
    )
    np.testing.assert_array_equal(found, np.array([0.5, -3, 63.5, -64], np.float32))
