"""What a new network's random weights are."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor

from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.initial import draw_start
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import mobile_sam_encoder_tensors


def network_of(design: Design | None = None, *, architecture: str = "stlm-tiny") -> Stlm:
    torch.manual_seed(0)
    return Stlm(ARCHITECTURES[architecture], design, image_size=(64, 64))


def changed(network: Stlm, **start: str) -> set[str]:
    """Names of the tensors that drawing the start gives other values."""
    before = copy.deepcopy(network.state_dict())
    draw_start(network, **{"aggregation": "torch", "encoders": "identity"} | start)
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("aggregation", ["light", "original"])
def test_residual_blocks_of_the_aggregation_start_as_in_the_authors_code(aggregation):
    network = network_of(Design(aggregation=aggregation))
    names = changed(network, aggregation="kaiming")
    convolutions = ("0.conv1", "0.conv2", "0.shortcut.conv", "1.conv1", "1.conv2")
    assert names == {f"feature_aggregation.res.{name}.weight" for name in convolutions}
    for name in names:
        weight = network.get_parameter(name)
        outputs, _, height, width = weight.shape
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (outputs * height * width)), rel=0.05), name
        assert abs(weight.mean().item()) < 0.05 * weight.std().item(), name
        assert weight.abs().max() > 3 * weight.std(), f"{name} is not normal"


def test_torchs_start_of_the_first_convolution_has_a_fifth_of_that_deviation():
    first = network_of(architecture="stlm").feature_aggregation.res[0].conv1.weight
    assert first.std().item() == pytest.approx(1 / math.sqrt(3 * 512 * 9), rel=0.01)
    assert math.sqrt(2 / (128 * 9)) / first.std().item() == pytest.approx(4.9, rel=0.01)


def test_each_head_of_a_committee_has_a_start_of_its_own():
    network = network_of(Design(plain_stream="stlm-tiny", comparison="plain", heads=2))
    names = changed(network, aggregation="kaiming")
    assert {name.split(".")[2] for name in names} == {"0", "1"}
    first, second = (member.res[0].conv1.weight for member in network.feature_aggregation.members)
    assert not torch.equal(first, second)


def test_start_of_before_draws_nothing_so_that_older_runs_have_the_same_teacher():
    network = network_of()
    drawn = torch.random.get_rng_state()
    assert changed(network, aggregation="torch", encoders="identity") == set()
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_network_without_aggregation_has_none_to_start():
    assert changed(network_of(Design(aggregation="none")), aggregation="kaiming") == set()


@pytest.fixture(scope="module")
def mobile_sams() -> dict[str, Tensor]:
    """What MobileSAM's own code starts an image encoder with, under our names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses timm's old module names
        from mobile_sam.modeling import TinyViT

        torch.manual_seed(1)
        encoder = TinyViT(
            img_size=1024,
            embed_dims=[64, 128, 160, 320],
            depths=[2, 2, 6, 2],
            num_heads=[2, 4, 5, 10],
            window_sizes=[7, 7, 14, 7],
            drop_path_rate=0.0,
        )
    return mobile_sam_encoder_tensors({f"image_encoder.{name}": t for name, t in encoder.state_dict().items()})


def kind_of(tensor: Tensor) -> tuple[float, float, float]:
    """Mean, deviation and kurtosis, which is 3 of normal and 1.8 of uniform numbers."""
    values = tensor.double()
    centred = values - values.mean()
    variance = centred.square().mean()
    kurtosis = centred.pow(4).mean() / variance.square() if variance > 0 else torch.tensor(0.0)
    return values.mean().item(), variance.sqrt().item(), kurtosis.item()


@pytest.mark.heavy
def test_encoders_start_as_in_mobile_sams_code(mobile_sams):
    network = network_of(architecture="stlm")
    changed(network, encoders="mobile-sam")
    for encoder in (network.plain, network.denoising):
        ours = encoder.state_dict()
        assert {name for name in ours if not name.endswith("num_batches_tracked")} <= set(mobile_sams)
        for name, tensor in ours.items():
            (mean, deviation, kurtosis), wanted = kind_of(tensor), kind_of(mobile_sams[name])
            if wanted[1] == 0:
                assert torch.equal(tensor, mobile_sams[name]), name
            else:
                few = 6 / math.sqrt(tensor.numel())
                assert abs(mean - wanted[0]) < few * wanted[1], name
                assert deviation == pytest.approx(wanted[1], rel=few), name
                assert kurtosis == pytest.approx(wanted[2], abs=max(0.3, 5 * few)), name
    assert not torch.equal(network.plain.neck[0].weight, network.denoising.neck[0].weight)


def test_encoders_of_an_own_start_differ_from_mobile_sams():
    names = changed(network_of(), encoders="mobile-sam")
    assert {name.split(".")[0] for name in names} == {"plain", "denoising"}
    attention = [name for name in names if name.endswith((".attn.proj.weight", ".mlp.fc2.weight"))]
    assert attention
    assert all(network_of().get_parameter(name).count_nonzero() == 0 for name in attention)


def test_frozen_teacher_in_the_plain_streams_place_has_no_start_of_a_student():
    names = changed(network_of(Design(plain_stream="stlm-tiny")), encoders="mobile-sam")
    assert {name.split(".")[0] for name in names} == {"denoising"}
