"""Building a patch memory: the coreset, and pictures without what the memory has of their own part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import DataError
from stlm_edge.imaging import Image
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.spec import ModelSpec
from train import patch_memory
from train.config import TrainConfig
from train.evaluate import score_images
from train.left_out import ALL, Division, good_scores, unknown
from train.patch_memory import build, farthest, remember_good

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
    first, second = (build(Pooled(), images, SPEC, patches=20, neighbours=1, seed=4) for _ in range(2))
    assert torch.equal(first.patches, second.patches)
    assert torch.equal(first.origins, second.origins)
    other = build(Pooled(), images, SPEC, patches=20, neighbours=1, seed=5)
    assert not torch.equal(first.patches, other.patches)


def test_memory_has_fewer_patches_where_the_pictures_have():
    found = build(Pooled(), pictures(2), SPEC, patches=1000, neighbours=2, seed=0)
    assert len(found.patches) == 2 * (32 // 8) * (64 // 8)
    assert sorted(found.origins.tolist()) == [0] * 32 + [1] * 32
    assert found.patches.mean(dim=0).abs().max() < 1e-5
    assert (found.patches.std(dim=0, correction=0) - 1).abs().max() < 1e-4


def test_more_neighbours_than_patches_are_refused():
    with pytest.raises(DataError, match="found 64 patches in 2 good pictures, expected at least memory_neighbours 65"):
        build(Pooled(), pictures(2), SPEC, patches=64, neighbours=65, seed=0)


def divided(parts: Sequence[int], held: Sequence[int]) -> Division:
    learnt = [number for number in range(len(parts)) if number not in held]
    return Division(parts, learnt, held, [ALL] * len(parts))


def remembering(images: Sequence[Image], division: Division, *, epochs: int) -> InferencePath:
    config = TrainConfig(
        architecture="stlm-tiny",
        image_size=SPEC.input_size,
        epochs=epochs,
        teacher="stlm-tiny",
        teacher_weights="random",
        plain_stream="teacher",
        memory=1000,
    )
    torch.manual_seed(0)
    design = config.design if epochs == 0 else dataclasses.replace(config.design, memory=0)
    inspector = InferencePath(Stlm(ARCHITECTURES["stlm-tiny"], design, image_size=SPEC.input_size), SPEC).eval()
    assert isinstance(inspector.network.plain, Teacher)
    inspector.network.plain.settle(prepare(torch.from_numpy(np.stack(images)), SPEC))
    if inspector.network.feature_aggregation is not None:
        inspector.network.feature_aggregation.head.out.weight.data.mul_(1e4)  # an untrained one says hardly anything
    remember_good(inspector, images, config, division)
    return inspector


def test_network_without_a_head_scores_all_pictures_each_without_its_part():
    a, b, c, d = pictures(4)
    images = [a, a, b, c, d]
    inspector = remembering(images, divided(range(5), [2]), epochs=0)
    alone = good_scores(inspector, images, divided(range(5), [2]))
    assert list(alone) == [0, 1, 2, 3, 4]
    known = score_images(inspector, images)
    assert alone[0] == pytest.approx(known[0], abs=1e-3)  # each of two equal pictures finds the other
    assert all(alone[number] > known[number] + 0.1 for number in (2, 3, 4))
    grouped = good_scores(inspector, images, divided([0, 0, 1, 2, 3], [2]))
    assert grouped[0] > known[0] + 0.1
    assert {number: grouped[number] for number in (2, 3, 4)} == {number: alone[number] for number in (2, 3, 4)}
    assert inspector.network.memory is not None
    assert len(inspector.network.memory.patches) == 160  # nothing has been taken out of it for good


def test_where_all_pictures_show_one_part_each_counts_as_one():
    images = pictures(3)
    inspector = remembering(images, divided([7, 7, 7], []), epochs=0)
    each = good_scores(inspector, images, divided([0, 1, 2], []))
    assert good_scores(inspector, images, divided([7, 7, 7], [])) == each


def test_network_with_a_head_scores_those_held_out_from_it():
    images = pictures(5)
    inspector = remembering(images, divided(range(5), [1, 4]), epochs=1)
    found = good_scores(inspector, images, divided(range(5), [1, 4]))
    assert list(found) == [1, 4]
    assert inspector.network.design.memory == 160


def test_scale_makes_usual_cells_0_and_usual_scores_1():
    images = pictures(6)
    division = divided(range(6), [0, 2, 5])
    inspector = remembering(images, division, epochs=1)
    fusion = inspector.network.fusion
    assert fusion is not None
    pairs = []
    for number in (0, 2, 5):
        pixels = prepare(torch.from_numpy(images[number][None]), SPEC)
        with unknown(inspector.network, number, division), torch.no_grad():
            pairs.append(inspector.network.distances_and_logits(pixels)[:2])
    for index, (shift, scale) in enumerate(
        [(fusion.distance_shift, fusion.distance_scale), (fusion.logit_shift, fusion.logit_scale)]
    ):
        maps = (torch.cat([pair[index] for pair in pairs]) - shift) / scale
        assert float(maps.median()) == pytest.approx(0, abs=1e-4)
        assert float(inspector.finish(maps)[1].median()) == pytest.approx(1, abs=1e-4)


def test_network_without_a_memory_scores_those_held_out_as_ever():
    images = pictures(3)
    inspector = InferencePath(Stlm(ARCHITECTURES["stlm-tiny"], image_size=SPEC.input_size), SPEC).eval()
    found = good_scores(inspector, images, divided([0, 0, 1], [2]))
    assert found == {2: score_images(inspector, images[2:])[0]}
