"""Kernels out of a compiler's log: a recorded one of each kind, and those of real builds."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from export.graph.graph import Graph, PrecisionRecord
from export.graph.parts import node_flops
from export.tensorrt.kernels import Kernel
from export.tensorrt.log import kernel_table, parse_kernels
from stlm_edge.errors import EngineError
from stlm_edge.spec import ModelSpec

LOG = Path(__file__).parent / "data" / "build_log.txt"
"""Lines of real logs: the paper's network at 1024 x 1024 in FP32 and FP16, stlm-tiny in INT8."""


@pytest.fixture(scope="module")
def recorded() -> dict[str, Kernel]:
    kernels, unread = parse_kernels([LOG.read_text()])
    assert unread == []
    return {kernel.name: kernel for kernel in kernels}


SPEC = ModelSpec("plate", "stlm-tiny", input_size=(64, 96), map_size=(64, 96), weights_sha256="0")


@pytest.fixture(scope="module")
def log(float_plan) -> list[str]:
    """Of a real build of `graph`."""
    return float_plan.log


def attention(batch: int | str = 1) -> Graph:
    """Softmax of a product, times a third tensor, in FP16; 8 heads of 64 tokens of 32."""
    shape = [batch, 8, 64, 32]
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], name="attn|transpose", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["weights"], name="attn|matmul"),
        helper.make_node("Softmax", ["weights"], ["shares"], name="attn|softmax", axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["attended"], name="attn|matmul.2"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name in "qkv"]
    outputs = [helper.make_tensor_value_info("attended", TensorProto.FLOAT16, shape)]
    made = helper.make_graph(nodes, "attention", inputs, outputs)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Graph(model, SPEC, PrecisionRecord("fp16"), "a test")


def test_recorded_kernels_are_read_and_synchronisation_is_none(recorded):
    assert len(recorded) == 12
    assert Counter(kernel.kind for kernel in recorded.values()) == {
        "kgen": 6,
        "correlation": 2,
        "gemm": 2,
        "runtime_fusion": 2,
    }


def test_recorded_convolution_moves_its_tensors_once(recorded):
    kernel = recorded["plain.backbone.patch_embed.conv2.conv|conv2d_myl0_2"]
    assert [tensor.shape for tensor in kernel.inputs] == [(1, 32, 512, 512)]
    assert [tensor.shape for tensor in kernel.outputs] == [(1, 64, 256, 256)]
    values = 32 * 512 * 512 + 64 * 32 * 3 * 3 + 1 + 1 + 64 + 64 * 256 * 256
    assert kernel.bytes_moved == 4 * values
    assert kernel.nodes == ("plain.backbone.patch_embed.conv2.conv|conv2d",)
    assert kernel.dtype == "fp32"


def test_recorded_types_are_those_of_the_operands(recorded):
    assert recorded["plain.backbone.patch_embed.conv2.conv|conv2d_myl0_4"].dtype == "int8"  # scales are fp32
    assert recorded["_gemm_mha_v2_myl0_25"].dtype == "fp16"
    assert [tensor.dtype for tensor in recorded["__myl_Topk_myl0_285"].outputs] == ["fp32", "int64"]


def test_recorded_kernel_without_nodes_has_none(recorded):
    assert recorded["__myl_Tran_myl0_439"].nodes == ()


def test_messages_may_come_with_their_severity_before_them(recorded):
    lines = [f"[VERBOSE] {line}" for line in LOG.read_text().splitlines()]
    assert {kernel.name: kernel for kernel in parse_kernels(lines)[0]} == recorded


def as_tensorrt_writes(line: str) -> str:
    """A line of TensorRT-RTX in the form of TensorRT: no constants of their own, types by another name."""
    line = re.sub(r"\], Constants: \[ ?(?=\{)", ", ", line.replace("Inputs: [],", "Inputs: [ ],"))
    line = (
        re.sub(r"\], Constants: \[\]", "]", line)
        .replace("Inputs: [ , {", "Inputs: [ {")
        .replace("Inputs: [ ]", "Inputs: []")
    )
    line = re.sub(r", Strides: [^{}]*?Datatype: (\w+), Format: [^{}]*? \}", r", Format/Datatype: \1 }", line)
    return line.replace("\x1f", "\x1e")


def test_tensorrts_form_tells_the_same(log, graph):
    """Of the same kernels."""
    lines = [as_tensorrt_writes(line) for message in log for line in message.splitlines()]
    assert not [line for line in lines if "Constants: [" in line or "Strides" in line]
    assert any("\x1e" in line for line in lines), "one line, though `str.splitlines` takes it for two"
    found, wanted = kernel_table(["\n".join(lines)], graph), kernel_table(log, graph)
    assert (found.unread, found.unplaced, found.graph_flops) == ((), (), wanted.graph_flops)
    for kernel, same in zip(found.kernels, wanted.kernels, strict=True):
        assert dataclasses.replace(kernel, inputs=(), constants=()) == dataclasses.replace(
            same, inputs=(), constants=()
        )
        assert {tensor.name for tensor in kernel.constants} == {tensor.name for tensor in same.constants}
        assert kernel.bytes_moved == same.bytes_moved


CASK = (
    "Name: plain.conv|conv2d + plain.conv|relu, LayerType: CaskConvolution, Inputs: [ { Name: Reformatted Input Tensor "
    "0 to {ForeignNode[a...b]}, Location: Device, Dimensions: [1,32,64,64], Format/Datatype: Channel major FP16 format "
    "where channel % 8 == 0 }], Outputs: [ { Name: relu, Location: Device, Dimensions: [1,64,32,32], "
    "Format/Datatype: Half }], ParameterType: Convolution, Kernel: [3,3], Stride: [2,2], "
    'Weights: {"Type": "Half", "Count": 18432}, Bias: {"Type": "Float", "Count": 64}, Activation: RELU, '
    "TacticName: sm80_x, TacticValue: 0x1, StreamId: 0, Metadata: "
    "[ONNX Layer: plain.conv|conv2d]\x1f[ONNX Layer: plain.conv|relu]"
)


def test_tensorrts_convolution_counts_its_weights():
    ((kernel,), unread) = parse_kernels([CASK], taken=["Reformatted Input Tensor 0 to {ForeignNode[a...b]}"])
    assert unread == []
    assert (kernel.kind, kernel.dtype) == ("CaskConvolution", "fp16")
    assert kernel.nodes == ("plain.conv|conv2d", "plain.conv|relu")
    assert [(tensor.shape, tensor.dtype) for tensor in kernel.inputs] == [((1, 32, 64, 64), "fp16")]
    assert [(tensor.name, tensor.dtype) for tensor in kernel.constants] == [("Weights", "fp16"), ("Bias", "fp32")]
    assert kernel.bytes_moved == 2 * (32 * 64 * 64 + 64 * 32 * 32 + 18432) + 4 * 64


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ("Row major linear FP32", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Channel major INT8 format where column stride % 32 == 0", "int8"),
        ("Row major linear UInt8 format", "uint8"),
        ("Row major linear BOOL", "bool"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Int64", "int64"),
    ],
)
def test_tensorrts_types_are_read_out_of_sentences(words, dtype):
    ((kernel,), _) = parse_kernels([CASK.replace("Half }]", f"{words} }}]")])
    assert [tensor.dtype for tensor in kernel.outputs] == [dtype]


def test_entries_that_compute_nothing_are_no_kernels():
    named = [CASK.replace("CaskConvolution", kind) for kind in ("NoOp", "Constant", "Reformat")]
    assert [kernel.kind for kernel in parse_kernels(named)[0]] == ["Reformat"]


def test_kernels_in_an_unknown_form_are_told_beside_the_others(log, graph):
    strange = ["Name: a, LayerType: new, Inputs: none", CASK.replace("Half }]", "Quarter }]"), "LayerType: odd"]
    table = kernel_table([*log, *strange], graph)
    assert table.kernels == kernel_table(log, graph).kernels
    assert table.unread == tuple(line[:160] for line in strange)


def test_no_product_is_lost_or_counted_twice(log, graph):
    table = kernel_table(log, graph)
    products = {node.name for node in graph.model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")}
    assert set(node_flops(graph.model)) == products  # the exporter has folded those of constants
    assert table.unplaced == ()
    assert sum(kernel.flops for kernel in table.kernels) == table.graph_flops == sum(node_flops(graph.model).values())


def test_stages_hold_what_the_graph_computes_in_them(log, graph):
    table = kernel_table(log, graph)
    found, wanted = Counter[str](), Counter[str]()
    for kernel in table.kernels:
        found[kernel.stage] += kernel.flops
    for name, flops in node_flops(graph.model).items():
        path = name.split("|")[0].removeprefix("plain.").removeprefix("denoising.").removeprefix("backbone.")
        stage = path.replace("stages.", "stage ").replace("_", " ").split(".")[0]
        wanted[stage] += flops
    assert {stage: flops for stage, flops in found.items() if flops} == wanted
    assert {kernel.stage for kernel in table.kernels} >= {"input", "stage 3", "comparison", "score"}
    assert "other" not in found and "encoders" not in found


def test_both_streams_compute_the_same_amount(log, graph):
    flops = Counter[str | None]()
    for kernel in kernel_table(log, graph).kernels:
        flops[kernel.stream] += kernel.flops
    assert flops["plain"] == flops["denoising"] > 0
    assert flops[None] > 0


@pytest.mark.slow
def test_stacked_streams_are_told_as_encoders(stacked, build_log):
    table = kernel_table(build_log(stacked.model, stacked.spec), stacked)
    assert table.unplaced == ()
    encoders = [kernel for kernel in table.kernels if kernel.stage == "encoders"]
    assert {kernel.stream for kernel in encoders} == {"both"}
    assert sum(kernel.flops for kernel in encoders) > table.graph_flops / 2


def test_attention_in_fp16_is_one_fused_kernel_and_in_fp32_none(build_log, log, graph):
    half = attention()
    kernels = kernel_table(build_log(half.model, half.spec), half).kernels
    assert sum(kernel.is_attention for kernel in kernels) == 1
    assert sum(kernel.flops for kernel in kernels) == 2 * 2 * 8 * 64 * 64 * 32
    assert not any(kernel.is_attention for kernel in kernel_table(log, graph).kernels)


@pytest.mark.parametrize("text", ["", "Engine generation completed in 3.6 seconds.\n"])
def test_log_without_kernels_is_refused(text, graph):
    with pytest.raises(EngineError, match=r"lists no kernels at all.*DETAILED"):
        kernel_table([text], graph)


@pytest.mark.parametrize(
    ("old", "new"), [("Outputs: ", "Gives: "), ("Datatype: ", "Kind: "), ("Datatype: ", "Datatype: Quarter")]
)
def test_log_in_unknown_forms_only_is_refused(graph, old, new):
    with pytest.raises(EngineError, match=r"lists only \d+ kernels in an unknown form, such as 'Name: .*TensorRT 10"):
        kernel_table([LOG.read_text().replace(old, new)], graph)


def test_log_of_another_graph_is_refused(log):
    with pytest.raises(EngineError, match="expected the log of this graph"):
        kernel_table(log, attention())


def test_dynamic_batch_is_refused(log):
    with pytest.raises(EngineError, match=r"(?s)without --max-batch"):
        kernel_table(log, attention("batch"))
    with pytest.raises(EngineError, match=r"dynamic batch.*without --max-batch"):
        kernel_table([LOG.read_text().replace("Dimensions: [1,1024", "Dimensions: [-1,1024")], attention())


def test_constants_do_not_count():
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.0] * 16)
    nodes = [
        helper.make_node("MatMul", ["w", "w"], ["ww"], name="folded"),
        helper.make_node("Gemm", ["x", "ww"], ["y"], name="kept", transA=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 4])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], initializer=[weights]))
    assert node_flops(model) == {"kept": 2 * 3 * 4 * 4}
