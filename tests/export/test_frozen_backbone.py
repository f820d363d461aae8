"""A backbone of timm in the plain stream's place gives the same answers on everything that runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export.__main__ import main
from export.graph.graph import Graph, read_graph
from export.precision.apply import in_precision
from export.precision.rounded import rounded
from runtime.backends import open_engine
from stlm_edge.files import sha256
from stlm_edge.imaging import Input
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.sidecar import Sidecar

from .conftest import SIZE, BuildOnce, Run
from .graph.test_deployment import PLATE, pictures, settled

pytestmark = pytest.mark.heavy

BACKBONE = "timm:test_efficientnet"
"""Of the kind of EfficientNet-Lite, and the smallest of it."""

MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="module")
def frozen(make_once: MakeOnce) -> Path:
    """A checkpoint with a settled backbone as its plain stream, and maps that are not flat."""

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        spec = dataclasses.replace(load(PLATE).spec, input_size=SIZE, map_size=SIZE)
        network = Stlm(ARCHITECTURES["stlm-tiny"], Design(plain_stream=BACKBONE), image_size=SIZE)
        assert isinstance(network.plain, Teacher)
        network.plain.settle(prepare(pictures(spec, 8), spec))
        inspector = settled(network, spec)
        save(folder / "model.safetensors", Checkpoint(inspector.network, inspector.spec, {}))

    return make_once("frozen_checkpoint", write) / "model.safetensors"


@pytest.fixture(scope="module")
def exported(frozen: Path, plate_data: Path, make_once: MakeOnce) -> Path:
    """Its graph, let through by the gate."""

    def export(folder: Path) -> None:
        assert main(["onnx", str(frozen), "-o", str(folder / "plate.onnx"), "--data", str(plate_data)]) == 0

    return make_once("frozen_engine", export) / "plate.onnx"


@pytest.fixture(scope="module")
def in_half(exported: Path, good: Path) -> Graph:
    return in_precision(read_graph(exported), "fp16", good=good)


@torch.no_grad()
def wanted(checkpoint: Path, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Map and score of PyTorch's network."""
    loaded = load(checkpoint)
    inspector = InferencePath(loaded.network, loaded.spec).eval()
    coarse = loaded.network(prepare(images, loaded.spec))
    assert coarse.std() > 1e-3  # or nothing would be compared
    return coarse.squeeze(1).numpy(), inspector.finish(coarse)[1].numpy()


def each(checkpoint: Path) -> list[tuple[Input, np.ndarray, np.ndarray]]:
    images = pictures(load(checkpoint).spec, 3)
    maps, scores = wanted(checkpoint, images)
    return [(images[index : index + 1].numpy(), maps[index], scores[index]) for index in range(len(images))]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_runtime_gives_pytorchs_map_and_score(exported: Path, frozen: Path, backend: str) -> None:
    with open_engine(exported, backend=backend)[0] as opened:
        for image, wanted_map, wanted_score in each(frozen):
            found_map, found_score = opened.infer(image)
            assert np.abs(found_map[0] - wanted_map).max() < 1e-4
            assert found_score[0] == pytest.approx(wanted_score, abs=1e-4)


def test_gate_verified_it_on_each_backend(exported: Path) -> None:
    gate = Sidecar.read(exported).engine.gate
    assert gate is not None
    assert gate.verified
    assert {drift.backend for drift in gate.drifts} >= {"onnxruntime", "openvino"}


def test_rounded_to_half_it_hardly_moves(in_half: Graph, frozen: Path, run: Run) -> None:
    for image, wanted_map, wanted_score in each(frozen):
        found_map, found_score = run(rounded(in_half.model), image)
        assert 0 < np.abs(found_map[0] - wanted_map).max() < 0.02
        assert found_score[0] == pytest.approx(wanted_score, abs=0.01)


def test_its_batch_normalisations_are_folded(exported: Path) -> None:
    operations = {node.op_type for node in read_graph(exported).model.graph.node}
    assert "BatchNormalization" not in operations
    assert {"If", "Loop", "Shape"} & operations == set()


def test_tensorrt_builds_a_plan_of_it(in_half: Graph, build_once: BuildOnce) -> None:
    plan = build_once("frozen_half", in_half).path
    record = Sidecar.read(plan).engine
    assert (record.product, record.precision) == ("tensorrt-rtx", "fp16")
    assert record.engine_sha256 == sha256(plan)


def test_checkpoint_carries_the_backbone_once(frozen: Path) -> None:
    names = [name for name in load(frozen).network.state_dict() if "conv_stem" in name]
    assert names == ["plain.encoder.conv_stem.weight"]
