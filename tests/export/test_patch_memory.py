"""A network with a patch memory, and one that is nothing but it, give the same answers on everything that runs them."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
import torch

from export.gate.inspectors import exact_inspector, open_inspector
from export.graph.deployment import DeploymentGraph
from export.graph.graph import Graph
from export.graph.parts import PRODUCTS, layer_class
from export.graph.to_onnx import to_onnx
from export.openvino import quantise
from export.precision.apply import in_precision
from export.precision.int8 import quantisable
from export.tensorrt.build import PlanBuilder
from stlm_edge.imaging import to_input
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import fingerprint
from stlm_edge.plate.part import render_part
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec, Threshold
from train.patch_memory import build

SIZE = (64, 96)
DESIGNS = {
    "beside a head": Design(plain_stream="stlm-tiny", memory=100),
    "beside what is seen": Design(plain_stream="stlm-tiny", comparison="plain", memory=100),
    "a committee": Design(plain_stream="stlm-tiny", comparison="plain", memory=100, heads=3),
    "alone, three neighbours": Design(plain_stream="stlm-tiny", aggregation="memory", memory=100, memory_neighbours=3),
}


def pictures(first: int, *, defect: str | None = None) -> list[np.ndarray]:
    return [
        to_input(render_part(np.random.default_rng(first + i), size=SIZE, defect=defect).image, spec=spec_of())[0]
        for i in range(4)
    ]


def spec_of(weights: str = "") -> ModelSpec:
    return ModelSpec("plate", "stlm-tiny", SIZE, SIZE, weights, Threshold(0.5, "manual", 0), highest_score=1.0)


@torch.no_grad()
def inspector_of(design: Design) -> InferencePath:
    """An untrained network with batch statistics of real pictures and a memory of these."""
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"], design, image_size=SIZE)
    good = pictures(0)
    pixels = prepare(torch.from_numpy(np.stack(good)), spec_of())
    assert isinstance(network.plain, Teacher)
    network.plain.settle(pixels)
    network.remember(build(network.plain, good, spec_of(), patches=100, neighbours=design.memory_neighbours, seed=0))
    if network.feature_aggregation is not None:
        network.train()
        for _ in range(3):
            network(pixels)
    network.eval()
    assert network.fusion is not None
    distances, logits, _ = network.distances_and_logits(pixels)
    for name, found in (("distance", distances), ("logit", logits)):
        if found is not None:
            getattr(network.fusion, f"{name}_shift").copy_(found.median())
            getattr(network.fusion, f"{name}_scale").copy_(found.max() - found.median() + 0.1)
    return InferencePath(network, spec_of(fingerprint(network.state_dict()))).eval()


@pytest.fixture(scope="module", params=DESIGNS)
def inspector(request) -> InferencePath:
    return inspector_of(DESIGNS[request.param])


@pytest.fixture(scope="module")
def graph(inspector) -> Graph:
    return to_onnx(DeploymentGraph(inspector))


@pytest.fixture(scope="module")
def half(graph, good) -> Graph:
    return in_precision(graph, "fp16", good=good)


@torch.no_grad()
def test_deployment_graph_gives_the_networks_answers(inspector):
    images = torch.from_numpy(np.stack(pictures(50, defect="missing_hole")))
    full, score = inspector(images)
    coarse, found_score, found_full = DeploymentGraph(inspector, full_map=True)(images)
    assert full.std() > 0.01  # or nothing would be compared
    assert coarse.shape == (4, SIZE[0] // 8, SIZE[1] // 8)
    assert (found_full - full).abs().max() < 1e-4
    assert (found_score - score).abs().max() < 1e-4


@torch.no_grad()
def test_plain_stream_is_run_once_for_both_ways(inspector):
    network = inspector.network
    assert isinstance(network.plain, Teacher)
    pixels = prepare(torch.from_numpy(np.stack(pictures(50))), inspector.spec)
    for shared, own in zip(network.plain.features_of(network.plain.maps(pixels)), network.plain(pixels), strict=True):
        assert torch.equal(shared, own)


@pytest.mark.heavy
@torch.no_grad()
def test_graph_gives_the_networks_answers_on_every_runtime(inspector, graph, half, tmp_path):
    """Within rounding; in FP16, which a processor rounds as a GPU does, within the gate's limits of FP16."""
    path = tmp_path / "graph.onnx"
    graph.save(path)
    with (
        exact_inspector(graph) as onnxruntime,
        open_inspector(path, spec=graph.spec, backend="openvino", name="openvino") as vino,
        exact_inspector(half) as in_half,
    ):
        for image in (*pictures(20), *pictures(50, defect="missing_hole")):
            coarse = inspector.network(prepare(torch.from_numpy(image[None]), inspector.spec))
            score = float(inspector.finish(coarse)[1])
            for subject, most in ((onnxruntime, 1e-4), (vino, 1e-4), (in_half, 0.02)):
                found = subject.inspect(image)
                assert np.abs(found.anomaly_map - coarse[0, 0].numpy()).max() < most, subject.name
                assert abs(found.score - score) < most, subject.name


@pytest.mark.heavy
def test_memory_stays_in_float32_and_out_of_int8(graph, half):
    memory = {node.name for node in graph.model.graph.node if layer_class(node) == "patch memory"}
    products = [node for node in graph.model.graph.node if node.name in memory and node.op_type in PRODUCTS]
    assert products
    assert half.record.by_class["patch memory"] == "fp32"
    assert memory.isdisjoint(node.name for node in quantisable(graph.model, kept=()))


@pytest.mark.heavy
def test_int8_for_openvino_leaves_the_memory_alone(graph, good):
    model = openvino.Core().read_model(graph.to_bytes())
    quantised = quantise(model, sorted(good.iterdir()), spec=graph.spec)
    operations = {operation.get_friendly_name(): operation for operation in quantised.get_ordered_ops()}
    products = [name for name, found in operations.items() if found.get_type_name() == "MatMul" and "memory" in name]
    assert products
    for name in products:
        sources = [port.get_source_output().get_node().get_type_name() for port in operations[name].inputs()]
        assert "FakeQuantize" not in sources


@pytest.mark.heavy
def test_plan_is_built_of_it(graph, half, tmp_path):
    plan = tmp_path / "plate.plan"
    PlanBuilder(targets=("sm86",)).build(half, plan)
    assert plan.stat().st_size > 0
    assert Sidecar.read(plan).spec.memory == graph.spec.memory
