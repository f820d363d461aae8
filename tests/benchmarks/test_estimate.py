"""The paper's figure is brought to another device by the roofline only, and called an estimate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.environment import Device
from benchmarks.estimate import (
    PAPER_GPU,
    Work,
    comparison,
    estimate,
    known_work,
    work_of_engine,
    work_of_network,
)
from export.graph.onnx_model import OPSET, SPEC_KEY
from export.tensorrt.kernels import Kernel, KernelTable, KernelTensor, write_kernels
from export.tensorrt.roofline import GPUS
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.stlm import Stlm

from ..runtime.conftest import SPEC

PROCESSOR = Device("AMD EPYC", ("avx2",), 2)
H100 = Device("AMD EPYC", ("avx2",), 16, "NVIDIA H100 80GB HBM3", "sm90")
RTX3090 = Device("AMD EPYC", ("avx2",), 16, "NVIDIA GeForce RTX 3090", "sm86")
ORIN = Device("ARM", (), 8, "Orin", "sm87")

COPY = Kernel("copy", "kgen", (KernelTensor("x", (1 << 20,), "fp16"),), (), (), (), "other", None, 0, "fp16", False)
"""Moves 2 MiB and computes nothing."""


def test_plan_is_scaled_by_the_floors_of_its_kernels():
    found = estimate("plan", Work(0.0, (COPY, COPY)), precision="fp16", infer_ms=2.0, device=H100, on_gpu=True)
    ratio = GPUS["h100"].memory_gb_s / PAPER_GPU.memory_gb_s
    assert found.scaled_ms == pytest.approx((2 * ratio, 2 * ratio))
    assert found.moved_mb == pytest.approx(4 * (1 << 20) / 1e6)
    assert found.floor_ms == pytest.approx(found.device_floor_ms * ratio)
    assert "scaled from h100 by data sheets" in found.assumption


def test_unknown_memory_traffic_leaves_a_range():
    found = estimate("graph", Work(174.7), precision="fp32", infer_ms=10.0, device=H100, on_gpu=True)
    low, high = found.scaled_ms
    assert low == pytest.approx(10 * 66.9 / 35.6)
    assert high == pytest.approx(10 * 3350 / 936)
    assert found.floor_ms == pytest.approx(174.7 / 35.6)
    assert found.moved_mb is None


@pytest.mark.parametrize(("device", "on_gpu"), [(PROCESSOR, False), (H100, False), (ORIN, True)])
def test_nothing_is_scaled_from_a_device_of_unknown_peaks(device, on_gpu):
    found = estimate("graph", Work(174.7), precision="fp32", infer_ms=10.0, device=device, on_gpu=on_gpu)
    assert found.scaled_ms is None
    assert found.device_floor_ms is None
    assert "not scaled" in found.assumption


@pytest.mark.parametrize(
    ("work", "precision", "said"), [("no graph", "fp32", "no graph"), (Work(1.0), "tf32", "peaks in tf32")]
)
def test_what_cannot_be_estimated_says_why(work, precision, said):
    found = estimate("engine", work, precision=precision, infer_ms=1.0, device=H100, on_gpu=True)
    assert found.floor_ms is None
    assert found.assumption.startswith("no estimate: ")
    assert said in found.assumption


@pytest.mark.parametrize(
    ("device", "size", "on_gpu", "said"),
    [
        (RTX3090, (1024, 1024), True, "the same GPU and size as here"),
        (RTX3090, (256, 256), True, "another size, so the two cannot be compared"),
        (RTX3090, (1024, 1024), False, "AMD EPYC at 1024 x 1024, another device"),
        (H100, (1024, 1024), True, "NVIDIA H100 80GB HBM3 at 1024 x 1024, another device"),
        (PROCESSOR, None, False, "AMD EPYC at several sizes, another device"),
    ],
)
def test_paper_is_compared_on_its_own_gpu_and_size_only(device, size, on_gpu, said):
    sentence = comparison(device, input_size=size, on_gpu=on_gpu)
    assert sentence.startswith("the paper has 20 ms on an RTX 3090 at 1024 x 1024")
    assert said in sentence


def test_work_of_a_plan_is_read_from_its_kernels(tmp_path):
    plan = tmp_path / "stlm.plan"
    plan.write_bytes(b"plan")
    write_kernels(plan, KernelTable((COPY,), 0, ()))
    assert work_of_engine(plan, max_batch=1).kernels == (COPY,)


def test_plan_for_batches_tells_nothing_of_one_picture(tmp_path):
    plan = tmp_path / "stlm.plan"
    plan.write_bytes(b"plan")
    write_kernels(plan, KernelTable((COPY,), 0, ()))
    assert "not known" in known_work(lambda: work_of_engine(plan, max_batch=8))


def test_work_of_a_graph_is_that_of_its_products(tmp_path):
    path = tmp_path / "stlm.onnx"
    onnx.save(convolution(), path)
    assert work_of_engine(path, max_batch=1) == Work(2 * 4 * 3 * 9 * 62 * 126 / 1e9)


def convolution() -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights"], ["out"], name="conv")],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 128])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 62, 126])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, {SPEC_KEY: SPEC.to_json()})
    return model


def test_work_of_the_papers_network_is_that_of_its_graph():
    """174.7 GFLOP in the exported graph, where what depends on constants alone has been folded."""
    with torch.device("meta"):
        network = Stlm(architecture_named("stlm")).eval()
    assert work_of_network(network, (1024, 1024)).gflop == pytest.approx(174.7, rel=0.01)


def test_engine_without_a_graph_is_not_guessed(tmp_path):
    assert "stlm.xml is not known" in known_work(lambda: work_of_engine(Path(tmp_path / "stlm.xml"), max_batch=1))
