"""Training pictures in memory, and the batches made from them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stlm_edge.datasets import Sample
from stlm_edge.errors import ConfigError, DataError, ImageError, counted
from stlm_edge.imaging import Image, Mask, read_image, resize
from stlm_edge.seen import digest_of
from stlm_edge.spec import Size
from train.augment import AS_THEY_ARE, Variation, check_rotation, rotate
from train.pseudo_anomalies.choice import PseudoAnomalies
from train.workers import Workers

logger = logging.getLogger(__name__)

MOST_DECODERS = 8
"""Threads; OpenCV decodes outside of Python's lock."""
PROGRESS_FROM = 100
"""Pictures whose loading takes long enough for a progress bar."""


@dataclass(frozen=True)
class Batch:
    """One step's pictures.

    Attributes:
        clean: (N, H, W, 3) uint8, BGR, without pseudo anomalies; turned, mirrored or in other light where the
            training wants it.
        pseudo: the same with pseudo anomalies, where there are any.
        mask: (N, 1, H, W) float32, 1 on pseudo anomalies.
        changed: for each picture, whether `pseudo` differs from `clean`.
        keys: for each picture, a digest of its clean pixels if the very same picture comes back in later epochs, as
            pictures do that are not turned; otherwise None. What is computed from it can be kept under this key.
        folds: for each picture, see `Batches`.
        tried, empty: how many pictures were to get a pseudo anomaly, and how many of those came out without.
    """

    clean: Tensor
    pseudo: Tensor
    mask: Tensor
    changed: tuple[bool, ...]
    keys: tuple[str | None, ...]
    folds: tuple[int, ...] = ()
    tried: int = 0
    empty: int = 0

    def __len__(self) -> int:
        return len(self.clean)

    def to(self, device: torch.device | str) -> Batch:
        tensors = (self.clean, self.pseudo, self.mask)
        if torch.device(device).type == "cuda":  # from pinned memory a copy does not wait for the GPU
            clean, pseudo, mask = (tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors)
        else:
            clean, pseudo, mask = (tensor.to(device) for tensor in tensors)
        return dataclasses.replace(self, clean=clean, pseudo=pseudo, mask=mask)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A picture in memory.

    Attributes:
        image: (H, W, 3) uint8, BGR, of the network's size.
        digest: of it as it was read, see `stlm_edge.seen`.
    """

    sample: Sample
    image: Image
    digest: str


def load_images(samples: Sequence[Sample], *, size: Size, skip_corrupt: bool) -> list[Image]:
    """`load_pictures` without their samples."""
    return [picture.image for picture in load_pictures(samples, size=size, skip_corrupt=skip_corrupt)]


def load_pictures(samples: Sequence[Sample], *, size: Size, skip_corrupt: bool) -> list[Loaded]:
    """Decode and resize all pictures once, several at a time; in their order.

    Raises:
        ImageError: for a picture that cannot be read, unless `skip_corrupt`: then it is named and left out.
        DataError: if none is left.
    """
    loaded: list[Loaded] = []
    corrupt = 0
    pool = ThreadPoolExecutor(min(MOST_DECODERS, len(os.sched_getaffinity(0))))
    try:
        read = pool.map(lambda sample: _read(sample, size), samples)
        hidden = len(samples) < PROGRESS_FROM or None  # None: where nobody watches a terminal
        shown = tqdm(read, total=len(samples), unit="picture", disable=hidden, leave=False)
        for entry in shown:
            if not isinstance(entry, ImageError):
                loaded.append(entry)
            elif skip_corrupt:
                corrupt += 1
                logger.warning("skipped: %s", entry)
            else:
                raise ImageError(f"{entry}, or leave such pictures out with --skip-corrupt") from None
    finally:
        pool.shutdown(cancel_futures=True)
    if corrupt:
        logger.warning("%d of %d pictures could not be read and were skipped", corrupt, len(samples))
    if not loaded:
        raise DataError(f"none of {len(samples)} pictures can be read; replace them")
    return loaded


def split_indices(
    parts: Sequence[int], *, holdout: float, seed: int, learnt: Collection[int] = ()
) -> tuple[list[int], list[int]]:
    """Divide good pictures at random into those to train on and those to choose the threshold with.

    All pictures of a part go the same way: one that was trained on would make those held out score too low. The share
    is of parts; a part with which more than half of the pictures would be held out is trained on.

    Args:
        parts: the part of each picture, by numbers.
        holdout: 0 to less than 1; more than 0 holds one part out at least.
        learnt: numbers of pictures whose parts are not held out, as long as there are others.
    Returns:
        The numbers of the pictures of either, ascending.
    Raises:
        DataError: if there are fewer than two pictures or parts.
    """
    count = len(parts)
    if count < 2:
        raise DataError(f"found {count} good picture, expected at least 2: one to train on, one for the threshold")
    pictures_of: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        pictures_of.setdefault(part, []).append(index)
    if len(pictures_of) == 1:
        raise DataError(f"found {count} good pictures of 1 part, expected at least 2 parts; add pictures of others")
    if not holdout:
        return list(range(count)), []
    groups = list(pictures_of.values())
    wanted = min(max(1, round(holdout * len(groups))), len(groups) - 1)
    most = max(count // 2, wanted)
    free = [place for place, group in enumerate(groups) if not set(group) & set(learnt)] or range(len(groups))
    held: list[list[int]] = []
    for place in np.random.default_rng(seed).permutation(len(groups)).tolist():
        if place in free and len(held) < wanted and sum(map(len, held)) + len(groups[place]) <= most:
            held.append(groups[place])
    held_out = sorted(index for group in held for index in group)
    return sorted(set(range(count)) - set(held_out)), held_out


@dataclass(frozen=True)
class _Parts:
    """What comes out of a worker: as little as there is that the main process does not have, for the way is slow.

    Attributes:
        clean: (N, H, W, 3) uint8, None where they are the pictures as loaded.
        touched: the places in the batch of those that were to get a pseudo anomaly.
        pseudo, masks: only these, (M, H, W, 3) and (M, H, W) uint8; None if there are none.
        changed: for all N.
        tried, empty: see `Batch`.
    """

    clean: Tensor | None
    touched: tuple[int, ...]
    pseudo: Tensor | None
    masks: Tensor | None
    changed: tuple[bool, ...]
    tried: int
    empty: int


class Batches:
    """Shuffled batches, epoch after epoch, each picture with a fresh chance of a pseudo anomaly.

    What an epoch holds depends on the seed and its number alone: not on the epochs before it, and not on how many
    workers or processes share the work. A context manager, since workers have to be ended.

    Args:
        images: (H, W, 3) uint8 each, all of one size; workers see them without a copy.
        batch_size: pictures in a step, over all processes; fewer where there are not that many pictures.
        seed: not negative.
        rotation: `none`, `slight` or `full`, see `train.augment`.
        variation: of light and mirroring, before that.
        workers: processes that make the batches ahead; 0: made when asked for, in this process.
        process, processes: of a training in several processes, which gets which part of each batch.
        folds: of each picture, the number of the head that does not learn from it; empty where all learn from all.
    Attributes:
        share: pictures in a step of this process.
        varies: whether good pictures come back changed, so that nothing can be kept about them.
    Raises:
        ConfigError: if the batch cannot be shared evenly among the processes, or there is no such rotation.
        DataError: if there are fewer pictures than processes.
    """

    def __init__(
        self,
        images: Sequence[Image],
        *,
        pseudo_anomalies: PseudoAnomalies,
        batch_size: int,
        seed: int,
        rotation: str = "none",
        variation: Variation = AS_THEY_ARE,
        workers: int = 0,
        process: int = 0,
        processes: int = 1,
        folds: Sequence[int] = (),
    ) -> None:
        if batch_size % processes:
            raise ConfigError(
                f"batch_size is {batch_size}, expected a multiple of the {processes} processes that share it"
            )
        if len(images) < processes:
            raise DataError(f"found {counted(len(images), 'picture')} for {processes} processes; start fewer processes")
        self.images = images
        self.pseudo_anomalies = pseudo_anomalies
        self.batch_size = min(batch_size, len(images) // processes * processes)
        self.seed = seed
        self.folds = folds
        self.rotation = check_rotation(rotation)
        self.variation = variation
        self.varies = self.rotation != "none" or variation != AS_THEY_ARE
        self.share = self.batch_size // processes
        self._part = slice(process * self.share, (process + 1) * self.share)
        self._keys: dict[int, str] = {}
        result_bytes = self.share * (2 * images[0].nbytes + images[0][..., 0].size)
        self._workers = Workers(self._make, count=workers, result_bytes=result_bytes) if workers else None
        self._current: Generator[Batch, None, None] | None = None

    def __len__(self) -> int:
        """Steps in an epoch; pictures that fill no batch sit the epoch out."""
        return len(self.images) // self.batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 1. One at a time: it ends an earlier one that was not used up."""
        self._end_epoch()
        self._current = self._epoch(number)
        return self._current

    def close(self) -> None:
        """End the workers. They start again if another epoch is asked for."""
        self._end_epoch()
        if self._workers is not None:
            self._workers.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _epoch(self, number: int) -> Generator[Batch, None, None]:
        order = np.random.default_rng((self.seed, number)).permutation(len(self.images)).tolist()
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        steps = [order[start : start + self.batch_size][self._part] for start in starts]
        tasks = [(number, indices) for indices in steps]
        made = map(self._make, tasks) if self._workers is None else self._workers.run(tasks)
        for indices, parts in zip(steps, made, strict=True):
            yield self._batch(indices, parts)

    def _end_epoch(self) -> None:
        if self._current is not None:
            self._current.close()
        self._current = None

    def _make(self, task: tuple[int, Sequence[int]]) -> _Parts:
        """What of a batch takes time to make; runs in the workers."""
        number, indices = task
        drawn = [self._draw(number, index) for index in indices]
        touched = tuple(place for place, (clean, pseudo, _) in enumerate(drawn) if pseudo is not clean)
        return _Parts(
            clean=_stack([clean for clean, *_ in drawn]) if self.varies else None,
            touched=touched,
            pseudo=_stack([drawn[place][1] for place in touched]) if touched else None,
            masks=_stack([drawn[place][2] for place in touched]) if touched else None,
            changed=tuple(not np.array_equal(clean, pseudo) for clean, pseudo, *_ in drawn),
            tried=len(touched),
            empty=sum(not drawn[place][2].any() for place in touched),
        )

    def _batch(self, indices: Sequence[int], parts: _Parts) -> Batch:
        clean = _stack([self.images[index] for index in indices]) if parts.clean is None else parts.clean
        pseudo = clean.clone()
        mask = torch.zeros(len(clean), 1, *clean.shape[1:3])
        if parts.pseudo is not None and parts.masks is not None:
            for place, picture, where in zip(parts.touched, parts.pseudo, parts.masks, strict=True):
                pseudo[place], mask[place, 0] = picture, where
        folds = tuple(self.folds[index] for index in indices) if self.folds else ()
        keys = tuple(map(self._key, indices))
        return Batch(clean, pseudo, mask, parts.changed, keys, folds, parts.tried, parts.empty)

    def _draw(self, number: int, index: int) -> tuple[Image, Image, Mask]:
        rng = np.random.default_rng((self.seed, number, index))
        clean = rotate(rng, self.variation.draw(rng, self.images[index]), self.rotation)
        return clean, *self.pseudo_anomalies.draw(rng, clean)

    def _key(self, index: int) -> str | None:
        if self.varies:
            return None
        if index not in self._keys:
            image = np.ascontiguousarray(self.images[index])
            self._keys[index] = blake2b(repr(image.shape).encode() + image.tobytes()).hexdigest()
        return self._keys[index]


def _read(sample: Sample, size: Size) -> Loaded | ImageError:
    try:
        image = read_image(sample.path)
    except ImageError as error:
        return error
    return Loaded(sample, resize(image, size), digest_of(image))


def _stack(arrays: Sequence[Image | Mask]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
