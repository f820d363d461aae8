"""The patch memory against plain formulas."""

from __future__ import annotations

import pytest
import torch

from stlm_edge.errors import DataError
from stlm_edge.network import patch_memory
from stlm_edge.network.patch_memory import Fusion, PatchMemory, describe


def filled(patches: int, channels: int, *, neighbours: int = 1, offset: float = 0.0) -> PatchMemory:
    generator = torch.Generator().manual_seed(patches)
    return PatchMemory.filled(
        torch.randn(patches, channels, generator=generator),
        mean=torch.full((channels,), offset),
        deviation=torch.rand(channels, generator=generator) + 0.5,
        origins=torch.arange(patches) % 3,
        neighbours=neighbours,
    )


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("at_once", [4096, 7])
def test_distance_is_the_mean_to_the_nearest(neighbours, at_once, monkeypatch):
    monkeypatch.setattr(patch_memory, "AT_ONCE", at_once)
    memory = filled(50, 12, neighbours=neighbours)
    rows = torch.randn(40, 12)
    expected = torch.cdist(rows.double(), memory.patches.double()).topk(neighbours, largest=False).values.mean(dim=1)
    torch.testing.assert_close(memory.distances(rows).double(), expected, atol=1e-5, rtol=1e-5)


def test_more_neighbours_than_fit_into_the_last_part_are_all_counted(monkeypatch):
    monkeypatch.setattr(patch_memory, "AT_ONCE", 4)
    memory = filled(9, 5, neighbours=6)
    rows = torch.randn(8, 5)
    expected = torch.cdist(rows, memory.patches).topk(6, largest=False).values.mean(dim=1)
    torch.testing.assert_close(memory.distances(rows), expected, atol=1e-5, rtol=1e-5)


def test_distances_of_features_far_from_zero_keep_their_digits():
    """What |a|² - 2ab + |b|² loses by cancelling, unless the channels are centred."""
    memory = filled(200, 24, offset=1000.0)
    fine, coarse = 1000 + torch.randn(1, 16, 6, 8), 1000 + torch.randn(1, 8, 3, 4)
    rows = describe(fine, coarse).permute(0, 2, 3, 1).reshape(-1, 24).double()
    raw = memory.patches.double() * memory.deviation.double() + memory.mean.double()
    scaled = memory.deviation.double()
    expected = torch.cdist(rows / scaled, raw / scaled).amin(dim=1).reshape(1, 1, 6, 8)
    torch.testing.assert_close(memory(fine, coarse).double(), expected, atol=1e-3, rtol=1e-3)


def test_remembered_patch_has_the_smallest_distance_whatever_rounding_leaves():
    memory = filled(30, 16)
    assert torch.equal(memory.distances(memory.patches), torch.full((30,), 0.5))


def test_what_is_left_without_some_pictures_is_what_others_showed():
    memory = filled(30, 16, neighbours=2)
    left = memory.without([0, 2])
    assert torch.equal(left.patches, memory.patches[1::3])
    assert set(left.origins.tolist()) == {1}
    rows = torch.randn(4, 16)
    expected = torch.cdist(rows, memory.patches[1::3]).topk(2, largest=False).values.mean(dim=1)
    torch.testing.assert_close(left.distances(rows), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("patches", "neighbours", "pictures", "words"),
    [
        (30, 2, [0, 1, 2], "of 3 pictures of one part, 0 of 30 patches are left to score them by, expected at least 2"),
        (1, 1, [0], "of 1 picture of one part, 0 of 1 patch are left to score them by, expected at least 1"),
        (40, 30, [1], "of 1 picture of one part, 27 of 40 patches are left to score them by, expected at least 30"),
    ],
)
def test_memory_that_is_too_small_for_its_parts_says_what_to_give(patches, neighbours, pictures, words):
    with pytest.raises(DataError, match=words + "; give a larger --memory or fewer --memory-neighbours, or good pict"):
        filled(patches, 16, neighbours=neighbours).without(pictures)


def test_flat_features_stay_flat_up_to_the_border():
    described = describe(torch.full((1, 2, 4, 4), 3.0), torch.full((1, 1, 2, 2), 5.0))
    assert torch.equal(described, torch.tensor([3.0, 3.0, 5.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4))


def test_checkpoint_of_a_memory_is_loaded_into_an_empty_one():
    memory, empty = filled(30, 16, neighbours=2), PatchMemory(30, 16, neighbours=2)
    empty.load_state_dict(memory.state_dict())
    rows = torch.randn(5, 16)
    assert torch.equal(empty.distances(rows), memory.distances(rows))


def test_fused_map_of_usual_cells_and_of_usual_peaks():
    fusion = Fusion()
    fusion.distance_shift.fill_(4.0)
    fusion.distance_scale.fill_(2.0)
    fusion.logit_shift.fill_(-8.0)
    fusion.logit_scale.fill_(5.0)
    distances, logits = torch.full((1, 1, 4, 4), 4.0), torch.full((1, 1, 2, 2), -8.0)
    usual, peak = torch.sigmoid(torch.tensor(-2.0)), torch.sigmoid(torch.tensor(-1.0))
    for given in (None, logits):
        torch.testing.assert_close(fusion(distances, given), usual.expand(1, 1, 4, 4))
        torch.testing.assert_close(fusion(distances + 2, given), peak.expand(1, 1, 4, 4))
    torch.testing.assert_close(fusion(distances, logits + 5), peak.expand(1, 1, 4, 4))


def test_squash_tells_anomalies_apart_in_float32():
    distances = torch.linspace(0, 17, 50).reshape(1, 1, 5, 10)
    fused = Fusion()(distances, None).flatten()
    assert (fused.diff() > 0).all()
    assert fused[-1] < 1
