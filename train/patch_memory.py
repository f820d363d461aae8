"""Building a patch memory from good pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stlm_edge.errors import DataError, counted
from stlm_edge.imaging import Image
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.patch_memory import PatchMemory, describe
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.spec import ModelSpec
from train.config import TrainConfig
from train.left_out import Division, unknown

logger = logging.getLogger(__name__)

MOST_CANDIDATES = 2**18
"""Patches from which those to keep are chosen: all of 256 pictures of 256 x 256; of more, as many drawn at random."""

POOL = 512
"""Farthest patches among which the next ones are looked for before all distances are computed again."""

SMALLEST_DEVIATION = 1e-3
"""Of a channel: one that says the same of all patches stays without influence."""

SCALED = 64
"""Pictures that the scale is of, at most."""

SMALLEST_SCALE = 1e-3
"""Of distances and logits: what hardly varies on good pictures is not blown up."""


def remember_good(
    inspector: InferencePath,
    images: Sequence[Image],
    config: TrainConfig,
    division: Division,
) -> None:
    """Give a trained network its memory of good pictures, and bring distances and logits to one scale.

    The scale is that of pictures from which nothing was learnt, see `Division.unlearnt`.

    Args:
        inspector: its network has a frozen plain stream with maps.
        images: all good pictures, also those held out: they are scored without what is remembered of their part.
    Raises:
        ConfigError: if the plain stream has no maps.
        DataError: if there is too little to remember.
    """
    network = inspector.network
    assert isinstance(network.plain, Teacher)  # or the settings would have been refused
    logger.info("remembering up to %d patches of %s", config.memory, counted(len(images), "good picture"))
    found = build(
        network.plain,
        images,
        inspector.spec,
        patches=config.memory,
        neighbours=config.memory_neighbours,
        seed=config.seed,
    )
    network.remember(found)
    assert network.fusion is not None
    inspector.eval()
    numbers = division.unlearnt(network)
    pairs = []
    for number in numbers[:: -(-len(numbers) // SCALED)]:
        pixels = _prepared(images[number], inspector.spec, next(network.parameters()).device)
        with unknown(network, number, division), torch.no_grad():
            distances, logits, _ = network.distances_and_logits(pixels)
        pairs.append((distances, logits))
    for name, maps in zip(("distance", "logit"), zip(*pairs, strict=True), strict=True):
        given = [single for single in maps if single is not None]
        if given:
            shift, scale = usual(inspector, torch.cat(given))
            getattr(network.fusion, f"{name}_shift").fill_(shift)
            getattr(network.fusion, f"{name}_scale").fill_(scale)


@torch.no_grad()
def build(
    backbone: Teacher, images: Sequence[Image], spec: ModelSpec, *, patches: int, neighbours: int, seed: int
) -> PatchMemory:
    """A memory of good pictures.

    Args:
        backbone: frozen, with maps at strides 8 and 16.
        images: (H, W, 3) uint8, BGR, of the network's input size.
        patches: how many to keep, or all where there are fewer.
        seed: of the choice; the same pictures and seed give the same memory.
    Raises:
        DataError: if there are fewer patches than `neighbours`.
    """
    rng = np.random.default_rng(seed)
    rows, origins = _drawn(backbone, images, spec, count=-(-MOST_CANDIDATES // len(images)), rng=rng)
    if len(rows) < neighbours:
        raise DataError(
            f"found {len(rows)} patches in {counted(len(images), 'good picture')}, expected at least memory_neighbours "
            f"{neighbours}; give more pictures, or less of it"
        )
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0).clamp_min(SMALLEST_DEVIATION)
    rows = (rows - mean) / deviation
    kept = farthest(rows, min(patches, len(rows)), first=int(rng.integers(len(rows))))
    return PatchMemory.filled(rows[kept], mean=mean, deviation=deviation, origins=origins[kept], neighbours=neighbours)


def usual(inspector: InferencePath, maps: Tensor) -> tuple[float, float]:
    """What of maps (N, 1, h, w) is to be 0 and how far above it is to be 1, see `Fusion`."""
    shift = float(maps.median())
    score = float(inspector.finish(maps)[1].median())
    return shift, max(score - shift, SMALLEST_SCALE)


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
    device = next(backbone.parameters()).device
    for number, image in enumerate(images):
        cells = describe(*backbone.maps(_prepared(image, spec, device)))[0].flatten(1).T
        drawn = np.sort(rng.permutation(len(cells))[:count])
        rows.append(cells[torch.from_numpy(drawn).to(device)])
        origins.append(torch.full((len(drawn),), number, device=device))
    return torch.cat(rows), torch.cat(origins)


def _prepared(image: Image, spec: ModelSpec, device: torch.device) -> Tensor:
    return prepare(torch.from_numpy(image[None]).to(device), spec)
