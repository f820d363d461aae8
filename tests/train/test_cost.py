"""What a training costs: counted on shapes as a real step computes and keeps it, and added up over its epochs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from stlm_edge.errors import ConfigError
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import GPU_PEAKS
from train.config import from_dict, load_preset
from train.cost import UTILISATION, LiveBytes, _count_step, _counted, cost_of
from train.data import Batch, split_indices
from train.objective import Objective
from train.paper.methods import METHODS
from train.start import network_of
from train.teaching.teacher import Taught, bare_teacher
from train.training import Stage

MVTEC_GOOD = {
    **{"carpet": 280, "grid": 264, "leather": 245, "tile": 230, "wood": 247},
    **{"bottle": 209, "cable": 224, "capsule": 219, "hazelnut": 391, "metal_nut": 220},
    **{"pill": 267, "screw": 320, "toothbrush": 60, "transistor": 213, "zipper": 240},
}
"""Good training pictures, as MVTec AD's paper (CVPR 2019, table 1) lists them."""


def test_backward_of_a_depthwise_convolution_is_twice_its_forward():
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    pixels = torch.zeros(1, 8, 4, 4, requires_grad=True)
    with _counted() as forward:
        result = layer(pixels).sum()
    with _counted() as backward:
        result.backward()
    assert forward.flops == 2 * 8 * 4 * 4 * 9
    assert backward.flops == 2 * forward.flops


def test_live_bytes_are_those_at_the_same_time():
    with LiveBytes() as live:
        first = torch.zeros(1000)
        view = first[:10]
        view += 1
        del first, view
        second = torch.ones(500)
        third = second * 2
    assert live.most == 4000
    assert third.sum() == 1000


@pytest.mark.parametrize("changes", [{}, {"teacher": "none"}, {"decoder": "separate", "precision": "bf16"}])
def test_count_is_that_of_a_real_step(quick, changes):
    config = dataclasses.replace(quick, **changes)
    step = _count_step(config, 2)
    torch.manual_seed(0)
    network = network_of(config)
    channels = network.architecture.embedding_channels
    teacher = bare_teacher(config, channels=channels)
    spec = ModelSpec("none", config.architecture, config.image_size, config.image_size, weights_sha256="")
    objective = Objective(network, config, spec=spec, teacher_channels=channels)
    pictures = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    batch = Batch(pictures, pictures.clone(), torch.zeros(2, 1, 64, 64), (False,) * 2, (None,) * 2)
    layers = None if teacher is None else teacher(torch.zeros(2, 3, 64, 64), config.layers)
    objective.train()
    with _counted() as real:
        objective(batch, None if layers is None else Taught(layers, layers)).total.backward()
    given = sum(tensor.nbytes for tensor in (batch.clean, batch.pseudo, batch.mask))
    assert step.network_flops == {Stage.ALL: real.flops}
    assert step.memory.work == pytest.approx(given + real.most_bytes, rel=0.02)
    learnt = sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    assert step.memory.optimiser == 2 * 4 * learnt  # the demo's head learns by Adam
    frozen = 0 if teacher is None else sum(tensor.nbytes for tensor in teacher.state_dict().values())
    assert step.memory.weights <= sum(tensor.nbytes for tensor in objective.state_dict().values()) + frozen


def test_teacher_is_asked_once_about_what_is_kept(quick):
    config = dataclasses.replace(quick, epochs=10, anomaly_probability=0.5, brightness=0.0)
    told = {"pictures": 8, "steps": 4, "share": 2}
    kept = cost_of(config, **told, varies=False)
    assert kept.steps == 40
    assert kept.asked == pytest.approx(2 * (0.5 + 0.1))
    for changed in (
        cost_of(config, **told, varies=True),
        cost_of(dataclasses.replace(config, teacher_cache_gb=1e-9), **told, varies=False),
    ):
        assert changed.asked == pytest.approx(2 * 1.5)
        assert changed.teacher_flops == pytest.approx(kept.teacher_flops * 1.5 / 0.6)
        assert changed.network_flops == kept.network_flops
    assert cost_of(dataclasses.replace(config, teacher="none"), **told, varies=False).teacher_flops == 0
    folds = cost_of(dataclasses.replace(config, folds=3), **told, varies=False)
    assert (folds.steps, folds.flops) == (4 * kept.steps, pytest.approx(4 * kept.flops))
    staged = cost_of(dataclasses.replace(config, streams_first=0.2), **told, varies=False)
    assert staged.asked == pytest.approx(2 * (2 * 0.5 + 1) / 10)  # in two epochs of ten
    assert 0 < staged.network_flops < kept.network_flops
    nothing = cost_of(from_dict(load_preset("cpu") | {"epochs": 0}), pictures=8, steps=4, share=2, varies=False)
    assert (nothing.steps, nothing.flops, nothing.memory.total) == (0, 0, 0)


@pytest.mark.heavy
def test_backbone_that_cannot_take_the_size_is_refused(quick):
    config = dataclasses.replace(quick, teacher="timm:swin_tiny_patch4_window7_224", image_size=(64, 64))
    with pytest.raises(ConfigError, match="cannot take pictures of 64 x 64"):
        cost_of(config, pictures=8, steps=4, share=2, varies=False)


def test_a_preset_on_mvtec_has_the_steps_that_are_told():
    config = from_dict(load_preset("paper"))
    learnt = [len(split_indices(range(n), holdout=config.holdout, seed=0)[0]) for n in MVTEC_GOOD.values()]
    assert sum(MVTEC_GOOD.values()) == 3629
    assert sum(config.epochs * (count // config.batch_size) for count in learnt) == 326_400


@pytest.mark.heavy
def test_assumed_utilisation_is_the_papers_own():
    stlm = next(method for method in METHODS if method.name == "STLM")
    with torch.device("meta"):
        network = Stlm(ARCHITECTURES["stlm"]).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to_empty(device="cpu")(torch.zeros(1, 3, 1024, 1024))
    reached = counter.get_total_flops() / (stlm.inference_ms / 1e3) / GPU_PEAKS["rtx3090"].peak_flops_s("fp32")
    assert reached == pytest.approx(UTILISATION, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["table4-no-plain-stream", "table5-two-stage", "figure5-separate-decoders"])
def test_presets_of_other_designs_are_counted(preset):
    config = from_dict(load_preset(preset) | {"image_size": 256})
    cost = cost_of(config, pictures=100, steps=50, share=config.batch_size, varies=False)
    assert cost.network_flops > 0
    assert (cost.teacher_flops > 0) is (config.teacher != "none" and config.comparison != "plain")
    assert min(cost.memory.weights, cost.memory.optimiser, cost.memory.work) > 0
    assert cost.hours(GPU_PEAKS["rtx3090"]) > cost.hours(GPU_PEAKS["h100"])
