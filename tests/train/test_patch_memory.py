"""Building a patch memory: the coreset, and pictures without what the memory has of their own part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import DataError
from stlm_edge.spec import ModelSpec
from train import patch_memory
from train.patch_memory import farthest, left_out_distances, remember

SPEC = ModelSpec(
    category="x", architecture="stlm-tiny", input_size=(32, 64), map_size=(32, 64), weights_sha256="", highest_score=1.0
)


class Pooled(nn.Module):
    """In a frozen backbone's place: the picture itself, at the strides of one."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return F.avg_pool2d(pixels, 8), F.avg_pool2d(pixels, 16)


def pictures(count: int, *, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 64, 3), dtype=np.uint8))


def naive(points: Tensor, count: int, *, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        nearest = torch.cdist(points, points[chosen]).amin(dim=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


@pytest.mark.parametrize("pool", [5, 512])
def test_farthest_points_are_those_of_the_plain_greedy_choice(pool, monkeypatch):
    monkeypatch.setattr(patch_memory, "POOL", pool)
    points = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    assert farthest(points, 60, first=17).tolist() == naive(points.double(), 60, first=17)


def test_equal_points_are_chosen_once_each():
    assert sorted(farthest(torch.ones(7, 3), 7, first=2).tolist()) == list(range(7))


def test_memory_is_the_same_for_the_same_seed():
    images = pictures(3)
    first, second = (remember(Pooled(), images, SPEC, patches=20, neighbours=1, seed=4) for _ in range(2))
    assert torch.equal(first.memory.patches, second.memory.patches)
    assert torch.equal(first.origins, second.origins)
    other = remember(Pooled(), images, SPEC, patches=20, neighbours=1, seed=5)
    assert not torch.equal(first.memory.patches, other.memory.patches)


def test_memory_has_fewer_patches_where_the_pictures_have():
    found = remember(Pooled(), pictures(2), SPEC, patches=1000, neighbours=2, seed=0)
    assert len(found.memory.patches) == 2 * (32 // 8) * (64 // 8)
    assert sorted(found.origins.tolist()) == [0] * 32 + [1] * 32
    assert found.memory.patches.mean(dim=0).abs().max() < 1e-5
    assert (found.memory.patches.std(dim=0, correction=0) - 1).abs().max() < 1e-4


def test_picture_is_scored_without_what_is_remembered_of_its_part():
    a, b, c = pictures(3)
    images = [a, a, b, c]
    found = remember(Pooled(), images, SPEC, patches=1000, neighbours=1, seed=0)
    alone = [float(d.max()) for d in left_out_distances(found, Pooled(), images, SPEC, parts=[0, 1, 2, 3])]
    assert alone[0] < 0.01 and alone[1] < 0.01  # each finds the other
    assert min(alone[2:]) > 0.5
    grouped = [float(d.max()) for d in left_out_distances(found, Pooled(), images, SPEC, parts=[0, 0, 1, 2])]
    assert min(grouped) > 0.5
    assert grouped[2:] == alone[2:]


def test_pictures_of_one_part_alone_are_refused():
    images = pictures(2)
    found = remember(Pooled(), images, SPEC, patches=10, neighbours=1, seed=0)
    with pytest.raises(DataError, match="all remembered patches are of one part, of 2 pictures; give good pictures"):
        list(left_out_distances(found, Pooled(), images, SPEC, parts=[7, 7]))


def test_more_neighbours_than_patches_are_refused():
    with pytest.raises(DataError, match="found 64 patches in 2 good pictures, expected at least memory_neighbours 65"):
        remember(Pooled(), pictures(2), SPEC, patches=64, neighbours=65, seed=0)
