"""The deployment graph computes what the network computes."""

from __future__ import annotations

import dataclasses
from itertools import cycle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import train
from export.graph.deployment import Comparison, DeploymentGraph, halve_linear
from export.graph.folding import ShiftedSum
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import resize, to_input
from stlm_edge.network.checkpoint import load
from stlm_edge.network.comparison import StreamFeatures
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.plate.part import DEFECT_KINDS, render_part
from stlm_edge.spec import ModelSpec

from ..tiny import DESIGNS

TOLERANCE = 1e-4
PLATE = Path(train.__file__).parent / "pretrained/plate/model.safetensors"
STREAMS = ("branched", "stacked")


@pytest.fixture(scope="module")
def trained():
    """The trained checkpoint that the demo starts from."""
    return load(PLATE)


def pictures(spec: ModelSpec, count: int) -> torch.Tensor:
    """Defective parts, at the network's size."""
    parts = [
        render_part(np.random.default_rng(index), size=(300, 280), defect=kind).image
        for index, kind in zip(range(count), cycle(reversed(DEFECT_KINDS)))
    ]
    return torch.from_numpy(np.concatenate([to_input(part, spec=spec) for part in parts]))


def settled(network: Stlm, spec: ModelSpec) -> InferencePath:
    """An untrained network with batch statistics of its own, so that its maps are not flat."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, *spec.input_size))
        if network.feature_aggregation is not None:
            network.feature_aggregation.head.out.weight.mul_(30)
    spec = dataclasses.replace(spec, weights_sha256=fingerprint(network.state_dict()))
    return InferencePath(network.eval(), spec).eval()


@torch.no_grad()
def assert_same_answers(inspector: InferencePath, graph: DeploymentGraph, images: torch.Tensor) -> None:
    full, score = inspector(images)
    coarse, found_score, found_full = graph(images)
    assert full.std() > 1e-3  # or nothing would be compared
    assert coarse.shape == (images.shape[0], *graph.grid)
    assert (found_full - full).abs().max() < TOLERANCE
    assert (found_score - score).abs().max() < TOLERANCE


@pytest.mark.heavy
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize(("size", "batch"), [((256, 256), 1), ((256, 256), 3), ((160, 224), 2), ((512, 320), 1)])
def test_trained_network_and_graph_agree(trained, streams, size, batch):
    inspector = InferencePath(trained.network, dataclasses.replace(trained.spec, input_size=size)).eval()
    graph = DeploymentGraph(inspector, streams=streams, full_map=True)
    assert_same_answers(inspector, graph, pictures(inspector.spec, batch))


@pytest.mark.heavy
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("size", [(64, 64), pytest.param((96, 224), marks=pytest.mark.slow)])
def test_papers_architecture_with_its_padded_windows_agrees(trained, streams, size):
    torch.manual_seed(0)
    spec = dataclasses.replace(trained.spec, architecture="stlm", input_size=size)
    inspector = settled(Stlm(ARCHITECTURES["stlm"]), spec)
    assert_same_answers(inspector, DeploymentGraph(inspector, streams=streams, full_map=True), pictures(spec, 2))


@pytest.mark.heavy
def test_local_convolutions_as_sums_agree(trained):
    graph = DeploymentGraph(InferencePath(trained.network, trained.spec), local_conv="sums", full_map=True)
    sums = [module for module in graph.modules() if isinstance(module, ShiftedSum)]
    assert len(sums) == 2 * sum(ARCHITECTURES["stlm-tiny"].depths[1:])
    assert_same_answers(InferencePath(trained.network, trained.spec).eval(), graph, pictures(trained.spec, 2))


@torch.no_grad()
def test_features_of_zero_are_compared_without_dividing_by_it():
    compared = Comparison(Design())(StreamFeatures((torch.zeros(1, 4, 2, 2),) * 2, (torch.randn(1, 4, 2, 2),) * 2))
    assert torch.equal(compared, torch.zeros(1, 8, 2, 2))


@pytest.mark.heavy
@pytest.mark.parametrize(
    "design",
    DESIGNS,
    ids=lambda design: design.differences.strip(", "),
)
def test_every_ablation_agrees(trained, design):
    torch.manual_seed(0)
    spec = dataclasses.replace(trained.spec, input_size=(64, 96))
    inspector = settled(Stlm(ARCHITECTURES["stlm-tiny"], design, image_size=(64, 96)), spec)
    assert_same_answers(inspector, DeploymentGraph(inspector, full_map=True), pictures(spec, 2))


def test_other_network_in_the_plain_streams_place_cannot_be_stacked(trained):
    network = Stlm(ARCHITECTURES["stlm-tiny"], Design(plain_stream="stlm-tiny"))
    with pytest.raises(ConfigError, match="--streams branched"):
        DeploymentGraph(InferencePath(network, trained.spec), streams="stacked")


def test_network_itself_is_left_alone(trained):
    before = fingerprint(trained.network.state_dict())
    for streams in STREAMS:
        DeploymentGraph(InferencePath(trained.network, trained.spec), streams=streams)
    assert fingerprint(trained.network.state_dict()) == before


def test_nothing_is_left_to_fold(trained, model):
    """No batch normalisation, one decoder call for both streams, and no attention that only tokens depend on."""
    graph = DeploymentGraph(InferencePath(trained.network, trained.spec))
    assert not [module for module in graph.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    operations = [node.op_type for node in model.graph.node]
    blocks = sum(ARCHITECTURES["stlm-tiny"].depths[1:])
    assert operations.count("Softmax") == 2 * blocks + 5
    assert {"BatchNormalization", "If", "Loop", "Shape", "Gather"} & set(operations) == set()


@torch.no_grad()
@pytest.mark.parametrize("frame", [(300, 280), (512, 512), (600, 1032), (256, 256), (100, 90)])
def test_frames_are_resized_in_the_graph_as_on_the_host(trained, frame):
    inspector = InferencePath(trained.network, trained.spec).eval()
    graph = DeploymentGraph(inspector, frame_size=frame)
    picture = render_part(np.random.default_rng(3), size=frame, defect="stain").image
    pixels = halve_linear(torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float(), trained.spec.input_size)
    on_host = resize(picture, trained.spec.input_size)
    # The host rounds to whole grey levels at each step.
    assert np.abs(pixels[0].permute(1, 2, 0).numpy() - on_host.astype(np.float32)).mean() < 0.5
    coarse, score = graph(torch.from_numpy(picture)[None])
    wanted, wanted_score = DeploymentGraph(inspector)(torch.from_numpy(on_host)[None])
    assert (score - wanted_score).abs().max() < 0.02
    assert (coarse - wanted).abs().mean() < 0.02


def test_frame_that_would_be_halved_by_fractions_of_pixels_is_refused(trained):
    with pytest.raises(ConfigError, match="601 x 700"):
        DeploymentGraph(InferencePath(trained.network, trained.spec), frame_size=(601, 700))


@pytest.mark.heavy
@torch.no_grad()
def test_one_file_takes_batches_up_to_its_limit(trained, batched):
    spec = dataclasses.replace(trained.spec, input_size=(64, 96))
    inspector = InferencePath(trained.network, spec).eval()
    session = onnxruntime.InferenceSession(batched.to_bytes(), providers=["CPUExecutionProvider"])
    images = pictures(spec, 4)
    for batch in (1, 2, 4):
        maps, scores = session.run(["anomaly_map", "score"], {"image": images[:batch].numpy()})
        wanted = inspector.network(prepare(images[:batch], spec))
        assert np.abs(maps - wanted.squeeze(1).numpy()).max() < TOLERANCE
        assert np.abs(scores - inspector.finish(wanted)[1].numpy()).max() < TOLERANCE


def assert_named_after_modules(graph: DeploymentGraph, model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in graph.named_modules()}
    assert {name.split("|")[0] for name in names} - {"graph"} <= modules
    assert sum(name.startswith("graph|") for name in names) < 10


def test_bytes_go_into_the_cast_alone_since_tensorrt_takes_them_nowhere_else(model, batched):
    for made in (model, batched.model):
        takers = [node.op_type for node in made.graph.node if "image" in node.input]
        assert takers == ["Cast"]
    assert any(node.op_type == "Shape" for node in batched.model.graph.node), "of the batch, which is dynamic"


def test_nodes_are_named_after_modules(trained, model):
    assert_named_after_modules(DeploymentGraph(InferencePath(trained.network, trained.spec)), model)


@pytest.mark.slow
def test_nodes_of_stacked_streams_are_named_after_modules(trained, stacked):
    graph = DeploymentGraph(InferencePath(trained.network, trained.spec), streams="stacked")
    assert_named_after_modules(graph, stacked.model)
