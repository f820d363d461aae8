"""FP16 with islands of FP32."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export.graph.deployment import DeploymentGraph
from export.graph.to_onnx import to_onnx
from export.precision.half import islands, measure_ranges, to_half
from export.precision.rounded import rounded
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath

HEAD = "feature_aggregation.head.conv"
OUT = "feature_aggregation.head.out"


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def kernel_lines(log: list[str]) -> list[str]:
    """What a compiler says of its kernels."""
    return [line for message in log for line in message.splitlines() if re.search(r"LayerType: \w", line)]


@pytest.fixture(scope="module")
def inference(small_checkpoint) -> InferencePath:
    loaded = load(small_checkpoint)
    return InferencePath(loaded.network, loaded.spec).eval()


def scaled_head(model: onnx.ModelProto, factor: float, channels: slice) -> onnx.ModelProto:
    """The same function, since a ReLU lies between: some channels of one layer larger, and the next one's weights
    smaller."""
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    for tensor in scaled.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in (f"{HEAD}.weight", f"{HEAD}.bias"):
            values[channels] *= factor
        elif tensor.name == f"{OUT}.weight":
            values[:, channels] /= factor
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return scaled


def test_half_graph_keeps_its_ends_and_answers(model, pictures, run):
    half = to_half(model, islands(model, measure_ranges(model, pictures)))
    assert half.graph.input == model.graph.input
    assert {value.name: value.type.tensor_type.elem_type for value in half.graph.output} == dict.fromkeys(
        ("anomaly_map", "score"), TensorProto.FLOAT
    )
    for picture in pictures:
        (wanted_map, wanted_score), (found_map, found_score) = run(model, picture), run(rounded(half), picture)
        assert np.abs(found_map - wanted_map).max() < 0.02
        assert np.abs(found_score - wanted_score).max() < 0.01
        assert not np.array_equal(found_map, wanted_map), "FP16 that changes nothing is no FP16"


def test_products_are_in_half_and_what_overflows_is_not(model):
    half = to_half(model, islands(model, None))
    types = types_of(half)
    products = {n.name: types[n.output[0]] for n in half.graph.node if n.op_type in ("Conv", "MatMul")}
    in_float = {name for name, kind in products.items() if kind == TensorProto.FLOAT}
    assert in_float == set()
    for node in half.graph.node:
        if node.op_type in ("LayerNormalization", "ReduceL2", "TopK", "Sigmoid", "ReduceMean"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
        elif node.op_type in ("Softmax", "Gelu"):
            assert types[node.output[0]] == TensorProto.FLOAT16, node.name


def test_of_the_comparison_only_the_product_is_in_half(model):
    """The lengths are sums of squares; what is multiplied is normalised, and halves what travels between kernels."""
    half = to_half(model, islands(model, None))
    types = types_of(half)
    compared = {n.name: types[n.output[0]] for n in half.graph.node if n.name.startswith("comparison")}
    products = {name for name, kind in compared.items() if kind == TensorProto.FLOAT16 and "|mul" in name}
    assert products == {"comparison.product|mul", "comparison.product|mul.2"}
    assert compared["comparison|linalg_vector_norm"] == TensorProto.FLOAT


def test_no_cast_is_made_twice_or_undone(model):
    half = to_half(model, islands(model, None))
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    made = Counter((node.input[0], node.attribute[0].i) for node in casts)
    assert set(made.values()) == {1}
    assert not {node.input[0] for node in casts} & {node.output[0] for node in casts}
    names = [node.name for node in half.graph.node]
    assert len(names) == len(set(names))
    assert all("|" in name for name in names)


def test_outlier_channel_overflows_naive_half_and_not_with_islands(model, pictures, run):
    outliers = scaled_head(model, 1e7, slice(0, 4))
    wanted, _ = run(outliers, pictures[0])
    assert np.abs(wanted - run(model, pictures[0])[0]).max() < 1e-4
    naive, _ = run(
        rounded(to_half(outliers, islands(outliers, None).keys() - {f"{HEAD}|conv2d", f"{OUT}|conv2d"})), pictures[0]
    )
    assert not np.isfinite(naive).all() or np.abs(naive - wanted).max() > 0.05

    kept = islands(outliers, measure_ranges(outliers, pictures))
    assert "values reach" in kept[f"{HEAD}|conv2d"]
    assert "values reach" in kept[f"{OUT}|conv2d"]
    found, _ = run(rounded(to_half(outliers, kept)), pictures[0])
    assert np.abs(found - wanted).max() < 1e-2
    assert set(kept) - set(islands(model, measure_ranges(model, pictures))) <= {
        f"{HEAD}|conv2d",
        f"{OUT}|conv2d",
        "feature_aggregation.head|relu",
    }


def test_vanishing_values_are_kept(model, pictures, run):
    faint = scaled_head(model, 1e-6, slice(None))
    kept = islands(faint, measure_ranges(faint, pictures))
    assert "values are" in kept[f"{OUT}|conv2d"]
    found, _ = run(rounded(to_half(faint, kept)), pictures[0])
    assert np.abs(found - run(faint, pictures[0])[0]).max() < 1e-2


def test_weights_that_half_cannot_hold_are_kept(model):
    kept = islands(scaled_head(model, 1e-8, slice(None)), None)
    assert "weights are" in kept[f"{HEAD}|conv2d"]
    assert "weights reach" in kept[f"{OUT}|conv2d"]


def test_reason_for_a_layer_survives_a_transpose(model, pictures):
    """What is moved is as large where it arrives as where it came from."""
    ranges = measure_ranges(model, pictures)
    for node in model.graph.node:
        if node.op_type in ("Transpose", "Reshape") and node.input[0] in ranges:
            assert ranges[node.output[0]] == ranges[node.input[0]]


def test_pixels_with_fractions_keep_the_first_convolution_in_float32(model):
    fractions = onnx.ModelProto()
    fractions.CopyFrom(model)
    (whole,) = [tensor for tensor in fractions.graph.initializer if tensor.name == "pixels.whole"]
    whole.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(whole) + np.float32(0.3), whole.name))
    kept = set(islands(fractions, None)) - set(islands(model, None))
    assert kept == {f"{stream}.backbone.patch_embed.conv1.conv|conv2d" for stream in ("plain", "denoising")}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stacked", "sums", "batched"])
def test_other_forms_of_the_graph_convert(request, run, form):
    model = request.getfixturevalue(form).model
    half = to_half(model, islands(model, None))
    frames = np.random.default_rng(0).integers(0, 256, (3 if form == "batched" else 1, 64, 96, 3), dtype=np.uint8)
    assert np.abs(run(rounded(half), frames)[0] - run(model, frames)[0]).max() < 1e-2


@pytest.mark.slow
def test_graph_that_resizes_frames_converts(inference, run):
    model = to_onnx(DeploymentGraph(inference, frame_size=(70, 130)), max_batch=3).model
    half = to_half(model, islands(model, None))
    frames = np.random.default_rng(0).integers(0, 256, (2, 70, 130, 3), dtype=np.uint8)
    assert np.abs(run(rounded(half), frames)[0] - run(model, frames)[0]).max() < 1e-2


@pytest.mark.slow
def test_tensorrt_fuses_sums_of_shifted_products(sums, build_log, half_plan):
    """That is what they are for: no kernel of a plan may hold a local convolution by itself."""
    half = to_half(sums.model, islands(sums.model, None))
    kernels, before = kernel_lines(build_log(half, sums.spec)), kernel_lines(half_plan.log)
    local = [line for line in kernels if ".local_conv|mul" in line]
    assert local
    assert all(".mlp.norm|layer_norm" in line for line in local)
    assert len(kernels) < len(before)


def test_tensorrt_fuses_every_window_attention_in_half(model, half_plan, float_plan):
    softmaxes = sum(node.name.endswith(".attn|softmax") for node in model.graph.node)
    assert sum("_gemm_mha" in line for line in kernel_lines(half_plan.log)) == softmaxes
    assert not [line for line in kernel_lines(float_plan.log) if "_gemm_mha" in line]
