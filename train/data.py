"""Training pictures in memory, and the batches made from them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stlm_edge.datasets import Sample
from stlm_edge.errors import DataError, ImageError
from stlm_edge.imaging import Image, read_image, resize
from stlm_edge.spec import Size
from train.exposure import AS_THEY_ARE, Variation
from train.pseudo import PseudoAnomalies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One step's pictures.

    Attributes:
        clean: (N, H, W, 3) uint8, BGR, as they came or varied.
        pseudo: the same with pseudo anomalies, where there are any.
        mask: (N, 1, H, W) float32, 1 on pseudo anomalies.
    """

    clean: Tensor
    pseudo: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.clean.to(device), self.pseudo.to(device), self.mask.to(device))


def load_images(samples: Sequence[Sample], *, size: Size, skip_corrupt: bool) -> list[Image]:
    """Decode and resize all pictures once.

    Raises:
        ImageError: for a picture that cannot be read, unless `skip_corrupt`: then it is named and left out.
        DataError: if none is left.
    """
    images: list[Image] = []
    corrupt = 0
    for sample in samples:
        try:
            images.append(resize(read_image(sample.path), size))
        except ImageError as error:
            if not skip_corrupt:
                raise ImageError(f"{error}, or leave such pictures out with --skip-corrupt") from None
            corrupt += 1
            logger.warning("skipped: %s", error)
    if corrupt:
        logger.warning("%d of %d pictures could not be read and were skipped", corrupt, len(samples))
    if not images:
        raise DataError(f"none of {len(samples)} pictures can be read; replace them")
    return images


def split(images: Sequence[Image], *, holdout: float, seed: int) -> tuple[list[Image], list[Image]]:
    """Divide good pictures at random into those to train on and those to choose the threshold with.

    Raises:
        DataError: if there are fewer than two.
    """
    if len(images) < 2:
        raise DataError(
            f"found {len(images)} good picture, expected at least 2: one to train on, one for the threshold"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    count = min(max(1, round(holdout * len(images))), len(images) - 1)
    held = set(order[:count].tolist())
    return (
        [image for index, image in enumerate(images) if index not in held],
        [image for index, image in enumerate(images) if index in held],
    )


class Batches:
    """Shuffled batches, epoch after epoch, each picture with a fresh chance of a pseudo anomaly."""

    def __init__(
        self,
        images: Sequence[Image],
        *,
        pseudo_anomalies: PseudoAnomalies,
        batch_size: int,
        seed: int,
        variation: Variation = AS_THEY_ARE,
    ) -> None:
        self.images = images
        self.pseudo_anomalies = pseudo_anomalies
        self.variation = variation
        self.batch_size = min(batch_size, len(images))
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Steps in an epoch; pictures that fill no batch sit the epoch out."""
        return len(self.images) // self.batch_size

    def epoch(self) -> Iterator[Batch]:
        order = self.rng.permutation(len(self.images))
        for step in range(len(self)):
            yield self._batch([self.images[i] for i in order[step * self.batch_size : (step + 1) * self.batch_size]])

    def _batch(self, clean: Sequence[Image]) -> Batch:
        clean = [self.variation.draw(self.rng, image) for image in clean]
        pairs = [self.pseudo_anomalies.draw(self.rng, image) for image in clean]
        return Batch(
            clean=torch.from_numpy(np.stack(clean)),
            pseudo=torch.from_numpy(np.stack([image for image, _ in pairs])),
            mask=torch.from_numpy(np.stack([mask for _, mask in pairs])).unsqueeze(1).float(),
        )
