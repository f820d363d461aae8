"""The pooling branch has one value for each channel and picture; its batch normalisation has to do with one picture."""

from __future__ import annotations

import copy

import pytest
import torch

from stlm_edge.network.feature_aggregation import FeatureAggregation, PooledBatchNorm2d
from train.distributed import SharedBatchNorm2d, share_batch_norms


@pytest.fixture
def aggregation() -> FeatureAggregation:
    torch.manual_seed(0)
    module = FeatureAggregation(inputs=8, channels=8)
    norm = module.aspp.pool.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return module.train()


def test_two_pictures_and_more_are_normalised_as_by_torchs_own_to_the_bit(aggregation):
    plain = copy.deepcopy(aggregation)
    plain.aspp.pool.norm.__class__ = torch.nn.BatchNorm2d
    for count in (2, 3):
        products = torch.randn(count, 8, 4, 4)
        ours, theirs = aggregation(products), plain(products)
        assert torch.equal(ours, theirs)
        ours.sum().backward()
        theirs.sum().backward()
    for (name, ours), theirs in zip(aggregation.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    for ours, theirs in zip(aggregation.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("mixed", [False, True])
def test_pooled_branch_of_one_picture_is_that_of_the_finished_network(aggregation, mixed):
    branch = aggregation.aspp.pool
    before = copy.deepcopy(branch.norm.state_dict())
    pooled = torch.randn(1, 8, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        learning = branch(pooled)
        finished = copy.deepcopy(branch).eval()(pooled)
    assert torch.equal(learning, finished)
    assert learning.std() > 0.1
    for name, value in branch.norm.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_all_of_the_aggregation_learns_from_one_picture(aggregation):
    (aggregation(torch.randn(1, 8, 2, 2)) ** 2).sum().backward()
    still = {name for name, parameter in aggregation.named_parameters() if not parameter.grad.any()}
    assert still == set()
    assert all(value.isfinite().all() for value in aggregation.state_dict().values())


def test_pooled_values_of_several_processes_are_normalised_together(aggregation):
    assert type(aggregation.aspp.pool.norm) is PooledBatchNorm2d
    share_batch_norms(aggregation)
    assert type(aggregation.aspp.pool.norm) is SharedBatchNorm2d
