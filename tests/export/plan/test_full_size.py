"""What the compiler makes of the paper's network at 1024 x 1024: figures that must not grow unnoticed.

Lower them when the graph gets better. No GPU is needed: they stand in the log of the build.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import train
from export.graph.deployment import DeploymentGraph
from export.graph.to_onnx import to_onnx
from export.plan.kernels import KernelTable
from export.plan.log import kernel_table
from export.plan.roofline import GPUS
from export.precision.apply import with_precision
from stlm_edge.network.checkpoint import load
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inspector import Inspector
from stlm_edge.network.stlm import Stlm

pytest.importorskip("tensorrt_rtx")

PLATE = Path(train.__file__).parent / "pretrained/plate/model.safetensors"


@pytest.fixture(scope="module")
def table(build_plan) -> KernelTable:
    """Of the network in FP16; its weights do not matter for the kernels."""
    torch.manual_seed(0)
    spec = dataclasses.replace(load(PLATE).spec, architecture="stlm", input_size=(1024, 1024))
    model = to_onnx(DeploymentGraph(Inspector(Stlm(ARCHITECTURES["stlm"]), spec).eval()))
    half, _ = with_precision(model, "fp16")
    return kernel_table(build_plan(half)[1], half)


@pytest.mark.slow
def test_kernels_attentions_and_bytes_stay_low(table):
    assert sum(kernel.is_attention for kernel in table.kernels) == 25
    assert len(table.kernels) <= 286
    assert sum(kernel.bytes_moved for kernel in table.kernels) <= 2.61e9
    assert sum(kernel.flops for kernel in table.kernels) == table.graph_flops == pytest.approx(174.7e9, rel=0.01)
    assert table.unplaced == ()


@pytest.mark.slow
def test_floor_on_the_papers_gpu(table):
    """The paper's 20 ms on an RTX 3090 in PyTorch leave room for a factor of five."""
    assert sum(GPUS["rtx3090"].floor_ms(kernel) for kernel in table.kernels) < 3.8
