"""What a new network's random weights are."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from stlm_edge.network.design import Design
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.initial import draw_start
from stlm_edge.network.stlm import Stlm


def network_of(design: Design | None = None, *, architecture: str = "stlm-tiny") -> Stlm:
    torch.manual_seed(0)
    return Stlm(ARCHITECTURES[architecture], design, image_size=(64, 64))


def changed(network: Stlm, **start: str) -> set[str]:
    """Names of the tensors that drawing the start gives other values."""
    before = copy.deepcopy(network.state_dict())
    draw_start(network, **{"aggregation": "torch"} | start)
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


def test_torchs_start_draws_nothing_so_that_older_runs_have_the_same_teacher():
    network = network_of()
    drawn = torch.random.get_rng_state()
    assert changed(network, aggregation="torch") == set()
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_network_without_aggregation_has_none_to_start():
    assert changed(network_of(Design(aggregation="none")), aggregation="kaiming") == set()
