"""The score of a map that need not be up-sampled for it.

Between the centres of four cells of the coarse map, the up-sampled one is linear in each direction. So each of the
16 x 16 blocks that lie over the cells consists of four quarters, each of which is highest in one of its corners: a
block's maximum is known from 16 of its 256 pixels, and only the blocks that can hold the highest pixels are made.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.network.encoder import STRIDE
from stlm_edge.spec import ModelSpec

_CORNERS = (0.5 - 0.5 / STRIDE, 0.5 / STRIDE)
"""Share of the neighbouring cell in the outermost and in the innermost pixel of a quarter, along one axis."""


class Scoring(nn.Module):
    """The coarse map up-sampled, and the score."""

    shares: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.size = spec.input_size
        self.top_k = spec.top_k
        offsets = (torch.arange(STRIDE, dtype=torch.float64) + 0.5) / STRIDE - 0.5
        # How much of the cell before, of a cell itself and of the one behind is in each pixel of its block.
        axis = torch.stack([(-offsets).clamp(min=0), 1 - offsets.abs(), offsets.clamp(min=0)])
        self.register_buffer("shares", torch.einsum("ip,jq->ijpq", axis, axis).reshape(9, STRIDE * STRIDE).float())

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, h, w) → (N, *input_size), which costs nothing where nobody asks for it, and (N,)."""
        full = F.interpolate(coarse, size=self.size, mode="bilinear", align_corners=False).squeeze(1)
        return full, self.top_k_mean(coarse.squeeze(1))

    def top_k_mean(self, coarse: Tensor) -> Tensor:
        """Mean of the `top_k` highest pixels of the up-sampled map.

        They lie in the `top_k` blocks with the highest maxima: a block that is not among those has as many above it,
        each with a pixel at least as high.

        Args:
            coarse: (N, h, w).
        Returns:
            (N,)
        """
        height, width = coarse.shape[1:]
        tall = torch.cat([coarse[:, :1], coarse, coarse[:, -1:]], dim=1)
        bordered = torch.cat([tall[:, :, :1], tall, tall[:, :, -1:]], dim=2)
        maxima = _block_maxima(bordered).flatten(1)
        best = maxima.topk(min(self.top_k, height * width), dim=1).indices
        around = [bordered[:, row : row + height, column : column + width] for row in range(3) for column in range(3)]
        chosen = torch.stack([cells.flatten(1).gather(1, best) for cells in around], dim=2)
        pixels = (chosen.unsqueeze(3) * self.shares.to(chosen.dtype)).sum(dim=2).flatten(1)
        mean: Tensor = pixels.topk(self.top_k, dim=1).values.mean(dim=1)
        return mean


def _block_maxima(bordered: Tensor) -> Tensor:
    """(N, h + 2, w + 2), with a border of repeated cells → (N, h, w): the highest pixel over each cell."""
    rows = [_mixed(bordered[:, 1:-1], far, s) for far in (bordered[:, :-2], bordered[:, 2:]) for s in _CORNERS]
    corners = [
        _mixed(row[:, :, 1:-1], far, s) for row in rows for far in (row[:, :, :-2], row[:, :, 2:]) for s in _CORNERS
    ]
    return reduce(torch.maximum, corners)


def _mixed(near: Tensor, far: Tensor, share: float) -> Tensor:
    return near + share * (far - near)
