"""The score without the up-sampled map is the score of the up-sampled map."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from export.graph.deployment import Scoring
from stlm_edge.spec import ModelSpec


@pytest.mark.parametrize("size, k", [((256, 256), 100), ((64, 96), 100), ((32, 32), 1024), ((512, 64), 1)])
@pytest.mark.parametrize("levels", [2, 3, 1 << 20], ids=lambda levels: f"{levels} levels")
@pytest.mark.parametrize("stride", [16, 8])
def test_mean_of_the_highest_pixels_is_exact(size, k, levels, stride):
    """Also where many cells are equal, and many pixels with them."""
    spec = ModelSpec("plate", "stlm", size, size, "0", top_k=k)
    grid = (size[0] // stride, size[1] // stride)
    coarse = torch.randint(levels, (3, 1, *grid), generator=torch.Generator().manual_seed(0)) / (levels - 1)
    wanted = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False).squeeze(1)
    full, score = Scoring(spec, stride=stride)(coarse)
    assert torch.equal(full, wanted)
    torch.testing.assert_close(score, wanted.flatten(1).topk(k).values.mean(dim=1), atol=1e-6, rtol=0)


def test_one_high_cell_at_the_border_counts_with_all_its_pixels():
    spec = ModelSpec("plate", "stlm", (64, 64), (64, 64), "0", top_k=256)
    coarse = torch.zeros(1, 1, 4, 4)
    coarse[0, 0, 0, 3] = 1
    wanted = (
        F.interpolate(coarse, size=(64, 64), mode="bilinear", align_corners=False).flatten().topk(256).values.mean()
    )
    torch.testing.assert_close(Scoring(spec)(coarse)[1], wanted.unsqueeze(0), atol=1e-6, rtol=0)
