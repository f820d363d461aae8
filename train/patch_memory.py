"""Building a patch memory from good pictures: which patches are kept, and how far pictures are from those of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stlm_edge.errors import DataError, counted
from stlm_edge.imaging import Image
from stlm_edge.network.inference import prepare
from stlm_edge.network.patch_memory import PatchMemory, describe
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.spec import ModelSpec

DRAWN = 10
"""Patches that are drawn at random for each one that is kept: the choice among all would take as many times longer."""

POOL = 512
"""Farthest patches among which the next ones are looked for before all distances are computed again."""

SMALLEST_DEVIATION = 1e-3
"""Of a channel: one that says the same of all patches stays without influence."""

AT_ONCE = 2
"""Pictures in one pass of the backbone."""

Maps = tuple[Tensor, Tensor]
"""The backbone's features of one picture, (1, C1, H / 8, W / 8) and (1, C2, H / 16, W / 16)."""


@dataclass(frozen=True)
class Remembered:
    """A memory, and where it has its patches from.

    Attributes:
        origins: (M,), the picture of each patch, by its place among those that it was built from.
    """

    memory: PatchMemory
    origins: Tensor

    def without(self, pictures: Sequence[int]) -> PatchMemory:
        """The memory without what it has from some pictures.

        Raises:
            DataError: if fewer than `neighbours` patches are left.
        """
        kept = ~torch.isin(self.origins, torch.tensor(pictures, device=self.origins.device))
        memory = self.memory
        if int(kept.sum()) < memory.neighbours:
            raise DataError(
                f"all remembered patches are of one part, of {counted(len(pictures), 'picture')}; give good pictures "
                "of several parts"
            )
        return PatchMemory.filled(
            memory.patches[kept], mean=memory.mean, deviation=memory.deviation, neighbours=memory.neighbours
        )


def remember(
    backbone: Teacher, images: Sequence[Image], spec: ModelSpec, *, patches: int, neighbours: int, seed: int
) -> Remembered:
    """Build a memory of good pictures.

    Args:
        backbone: frozen, with maps at strides 8 and 16.
        images: (H, W, 3) uint8, BGR, of the network's input size.
        patches: how many to keep, or all where there are fewer.
        seed: of the choice; the same pictures and seed give the same memory.
    Raises:
        DataError: if there are fewer patches than `neighbours`.
    """
    rng = np.random.default_rng(seed)
    rows, origins = _drawn(backbone, images, spec, count=-(-DRAWN * patches // len(images)), rng=rng)
    if len(rows) < neighbours:
        raise DataError(
            f"found {len(rows)} patches in {counted(len(images), 'good picture')}, expected at least memory_neighbours "
            f"{neighbours}; give more pictures, or less of it"
        )
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp_min(SMALLEST_DEVIATION)
    standardised = (rows - mean) / deviation
    kept = farthest(standardised, min(patches, len(rows)), first=int(rng.integers(len(rows))))
    memory = PatchMemory.filled(standardised[kept], mean=mean, deviation=deviation, neighbours=neighbours)
    return Remembered(memory, origins[kept])


@torch.no_grad()
def left_out_distances(
    remembered: Remembered, backbone: Teacher, images: Sequence[Image], spec: ModelSpec, *, parts: Sequence[int]
) -> Iterator[Tensor]:
    """How far each picture that a memory was built from is from what the memory has of other parts.

    So a picture that was remembered is scored as one that was not, or a little higher: another patch would have been
    chosen in the place of each that is left out.

    Args:
        images: those that `remembered` was built from, in their order.
        parts: for each picture, the number of the part that it shows.
    Returns:
        For each picture (1, 1, H / 8, W / 8).
    Raises:
        DataError: if all patches are of one part.
    """
    without: dict[int, PatchMemory] = {}
    for part in set(parts):
        without[part] = remembered.without([index for index, other in enumerate(parts) if other == part])
    for part, maps in zip(parts, backbone_maps(backbone, images, spec), strict=True):
        yield without[part](*maps)


@torch.no_grad()
def backbone_maps(backbone: Teacher, images: Sequence[Image], spec: ModelSpec) -> Iterator[Maps]:
    """The features of each picture, on the backbone's device."""
    device = next(backbone.parameters()).device
    for start in range(0, len(images), AT_ONCE):
        pixels = prepare(torch.from_numpy(np.stack(images[start : start + AT_ONCE])).to(device), spec)
        fine, coarse = backbone.maps(pixels)
        yield from zip(fine.split(1), coarse.split(1), strict=True)


def farthest(points: Tensor, count: int, *, first: int) -> Tensor:
    """Choose points that cover all: each next one is the farthest from those that were chosen (k-centre, greedily).

    Exact, and yet as few passes over all points as there are rounds: the farthest `POOL` of them are looked at alone
    until one of the others may be farther than what is left of them, since distances only fall.

    Args:
        points: (N, C).
        count: 1 to N.
        first: number of the first one.
    Returns:
        (count,), their numbers in the order of the choice.
    """
    squares = points.square().sum(dim=1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = round_ = [first]
    while True:
        added = torch.tensor(round_, device=points.device)
        found = torch.addmm(squares[added].unsqueeze(0), points, points[added].T, alpha=-2).amin(dim=1) + squares
        nearest = torch.minimum(nearest, found)
        nearest[added] = -torch.inf  # also where points are equal, none is chosen twice
        if len(chosen) == count:
            return torch.tensor(chosen, device=points.device)
        round_ = _round(points, squares, nearest, most=count - len(chosen))
        chosen = chosen + round_


def _round(points: Tensor, squares: Tensor, nearest: Tensor, *, most: int) -> list[int]:
    """The next points in the order of the choice, as many as one look at the pool tells; at least one."""
    pool = nearest.topk(min(POOL, len(nearest)))
    floor = -torch.inf if len(pool.indices) == len(nearest) else float(pool.values[-1])
    candidates, left = points[pool.indices].cpu(), pool.values.cpu().clone()
    lengths, numbers = squares[pool.indices].cpu(), pool.indices.tolist()
    mutual = lengths.unsqueeze(0) + lengths.unsqueeze(1) - 2 * candidates @ candidates.T
    found: list[int] = []
    while len(found) < most:
        best = int(left.argmax())
        if found and left[best] < floor:
            break
        found.append(numbers[best])
        left = torch.minimum(left, mutual[best])
        left[best] = -torch.inf
    return found


def _drawn(
    backbone: Teacher, images: Sequence[Image], spec: ModelSpec, *, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Descriptors of `count` cells of each picture, or of all: (N, C), and the picture of each, (N,)."""
    rows, origins = [], []
    for index, maps in enumerate(backbone_maps(backbone, images, spec)):
        cells = describe(*maps)[0].flatten(1).T
        drawn = np.sort(rng.permutation(len(cells))[:count])
        rows.append(cells[torch.from_numpy(drawn).to(cells.device)])
        origins.append(torch.full((len(drawn),), index, device=cells.device))
    return torch.cat(rows), torch.cat(origins)
