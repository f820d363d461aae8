"""A memory of good patches: how far each patch of a picture is from the most similar ones that were remembered.

After PatchCore (Roth et al., CVPR 2022): features of a frozen backbone, each averaged over its neighbours, a coreset of
those of the good pictures, and the distance to the nearest. Without its image score's weight by the neighbourhood: the
score is, as everywhere here, the mean of the map's highest pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import DataError, counted

STRIDE = 8
"""Pixels of the input for one cell of the distances, hence of the whole map where there is a memory."""

AT_ONCE = 4096
"""Patches that are compared at a time: distances of all cells to these are what lives in memory, once."""

SMALLEST_SQUARE = 0.25
"""Of a distance: below, over dozens of channels of deviation 1, it says no more, and the root of what rounding leaves
of a patch that is remembered itself would be larger than what runtimes may differ by."""

GOOD = 2.0
"""What is taken from the standardised sum before the sigmoid: see `Fusion`."""


class PatchMemory(nn.Module):
    """Remembered patches of good pictures, in channels that have mean 0 and deviation 1 over them.

    |a - b|² is computed as |a|² - 2 (a·b - |b|² / 2), so that the search is one matrix product with a bias and a
    maximum. Where a is near b, large numbers cancel: the centred channels keep them small, and the precisions that an
    export writes leave all of this in float32.

    Attributes:
        neighbours: how many of the nearest patches the distance is the mean to.
        mean, deviation: of each channel, (C,).
        patches: (M, C), standardised.
        bias: (M,), minus half of their squared lengths.
        origins: (M,), the good picture of each, by its place among those of the training; what a part is scored
            without, and no part of a graph.
    """

    mean: Tensor
    deviation: Tensor
    patches: Tensor
    bias: Tensor
    origins: Tensor

    def __init__(self, patches: int, channels: int, *, neighbours: int = 1) -> None:
        """An empty one, to load a checkpoint into; `filled` makes one that knows something."""
        super().__init__()
        self.neighbours = neighbours
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.register_buffer("patches", torch.zeros(patches, channels))
        self.register_buffer("bias", torch.zeros(patches))
        self.register_buffer("origins", torch.zeros(patches, dtype=torch.int32))

    @classmethod
    def filled(
        cls, patches: Tensor, *, mean: Tensor, deviation: Tensor, origins: Tensor, neighbours: int = 1
    ) -> PatchMemory:
        """
        Args:
            patches: (M, C), standardised by `mean` and `deviation`; M at least `neighbours`.
        """
        memory = cls(*patches.shape, neighbours=neighbours).to(patches.device)
        memory.mean.copy_(mean)
        memory.deviation.copy_(deviation)
        memory.patches.copy_(patches)
        memory.bias.copy_(-patches.square().sum(dim=1) / 2)
        memory.origins.copy_(origins)
        return memory

    def without(self, pictures: Iterable[int]) -> PatchMemory:
        """What is left if nothing had been remembered of these pictures; `neighbours` patches at least.

        Raises:
            DataError: if fewer are left.
        """
        left_out = torch.tensor(sorted(pictures), device=self.origins.device)
        kept = ~torch.isin(self.origins, left_out)
        if int(kept.sum()) < self.neighbours:
            raise DataError(
                f"without what is remembered of {counted(len(left_out), 'picture')} of one part, {int(kept.sum())} of "
                f"{counted(len(kept), 'patch', 'patches')} are left to score them by, expected at least "
                f"{self.neighbours}; give a larger --memory or fewer --memory-neighbours, or good pictures of more "
                "parts where the memory holds all that there is"
            )
        return PatchMemory.filled(
            self.patches[kept],
            mean=self.mean,
            deviation=self.deviation,
            origins=self.origins[kept],
            neighbours=self.neighbours,
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """
        Args:
            fine: (N, C1, H / 8, W / 8), the backbone's features.
            coarse: (N, C2, H / 16, W / 16).
        Returns:
            (N, 1, H / 8, W / 8) float32, mean distance to the nearest patches; 0.5 or more.
        """
        batch, _, height, width = fine.shape
        rows = describe(fine, coarse).permute(0, 2, 3, 1).flatten(0, 2)
        return self.distances((rows - self.mean) / self.deviation).reshape(batch, 1, height, width)

    def distances(self, rows: Tensor) -> Tensor:
        """Of standardised descriptors (R, C), as `forward`: (R,)."""
        nearest = self._nearest(rows)
        squares = rows.square().sum(dim=1, keepdim=True) - 2 * nearest
        return squares.clamp_min(SMALLEST_SQUARE).sqrt().mean(dim=1)

    def _nearest(self, rows: Tensor) -> Tensor:
        """a·b - |b|² / 2 of the nearest patches b, (R, neighbours)."""
        parts = [(self.patches, self.bias)]
        if len(self.bias) > AT_ONCE:
            parts = list(zip(torch.split(self.patches, AT_ONCE), torch.split(self.bias, AT_ONCE), strict=True))
        products = (F.linear(rows, patches, bias) for patches, bias in parts)
        if self.neighbours == 1:  # a maximum is much cheaper than the sorting of one
            return reduce(torch.maximum, (product.amax(dim=1, keepdim=True) for product in products))
        best = torch.cat([_highest(product, self.neighbours) for product in products], dim=1)
        return _highest(best, self.neighbours)


class Fusion(nn.Module):
    """From the head's logits and the memory's distances to one map.

    Either is shifted and scaled such that on good pictures 0 is a usual cell, and 1 the usual score of a picture, which
    is the mean of its highest cells. They are added, and a sigmoid of the sum less 2 squashes them: a usual cell has
    0.12, good pictures score between 0.25 and 0.5 as a rule, and 1.0 in float32 is first reached by a cell that lies
    18 times as far from the usual as the highest of good pictures do.

    Attributes:
        distance_shift, distance_scale, logit_shift, logit_scale: scalars.
    """

    distance_shift: Tensor
    distance_scale: Tensor
    logit_shift: Tensor
    logit_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("distance", "logit"):
            self.register_buffer(f"{name}_shift", torch.zeros(()))
            self.register_buffer(f"{name}_scale", torch.ones(()))

    def forward(self, distances: Tensor, logits: Tensor | None) -> Tensor:
        """
        Args:
            distances: (N, 1, h, w).
            logits: (N, 1, h, w), or half of that; None where there is no head.
        Returns:
            (N, 1, h, w) in 0 … 1.
        """
        total = (distances - self.distance_shift) / self.distance_scale
        if logits is not None:
            size = (distances.shape[2], distances.shape[3])
            standardised = (logits.float() - self.logit_shift) / self.logit_scale
            if (logits.shape[2], logits.shape[3]) != size:
                standardised = F.interpolate(standardised, size=size, mode="bilinear", align_corners=False)
            total = total + standardised
        return torch.sigmoid(total - GOOD)


def without_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a network's tensors by name, what it has learnt before it remembered anything."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(("memory.", "fusion."))}


def describe(fine: Tensor, coarse: Tensor) -> Tensor:
    """What is remembered of each patch: features at both strides, averaged over 3 x 3 cells.

    Args:
        fine, coarse: see `PatchMemory.forward`.
    Returns:
        (N, C1 + C2, H / 8, W / 8) float32.
    """
    size = (fine.shape[2], fine.shape[3])
    wide = F.interpolate(_smoothed(coarse), size=size, mode="bilinear", align_corners=False)
    return torch.cat([_smoothed(fine), wide], dim=1)


def _smoothed(features: Tensor) -> Tensor:
    """The mean over each cell and those around it that are there; zeros beyond the border would make it an anomaly."""
    return F.avg_pool2d(features.float(), 3, stride=1, padding=1, count_include_pad=False)


def _highest(values: Tensor, count: int) -> Tensor:
    return values.topk(min(count, values.shape[1]), dim=1).values
