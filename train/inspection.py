"""Running a trained network on pictures, in batches and with the reading of pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from stlm_edge.datasets import Sample, read_truth
from stlm_edge.imaging import Image, Input, Map, Mask, read_image, resize_map, to_input
from stlm_edge.inspection import Answer
from stlm_edge.network.comparison import tlm_map
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.spec import ModelSpec, Size

READERS = 4
CPU_BATCH, GPU_BATCH = 2, 16
"""Pictures in one pass; on a CPU more of them gain little and take memory."""

T = TypeVar("T")


@dataclass(frozen=True)
class Inspected:
    """One picture, what is true about it and what the model says, with and without feature aggregation.

    Attributes:
        mask: (H, W) in the picture's own pixels.
        answer: map at the network's input size, and score.
        tlm_answer: the same without feature aggregation, on another scale.
    """

    sample: Sample
    mask: Mask
    answer: Answer
    tlm_answer: Answer

    @property
    def size(self) -> Size:
        """(height, width) of the picture."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def anomaly_map(self) -> Map:
        """In the picture's own pixels."""
        return resize_map(self.answer.anomaly_map, self.size)

    @property
    def tlm_map(self) -> Map:
        """In the picture's own pixels."""
        return resize_map(self.tlm_answer.anomaly_map, self.size)


@torch.no_grad()
def inspect(inspector: InferencePath, samples: Sequence[Sample]) -> Iterator[Inspected]:
    """Run the whole inference path on pictures of any size, in their order. Raises `ImageError`."""
    device = _device(inspector)
    inspector.eval()
    with ThreadPoolExecutor(READERS) as readers:
        chunks = (
            readers.map(lambda sample: _read(sample, inspector.spec), chunk)
            for chunk in _chunks(samples, _batch_size(device))
        )
        for chunk in _one_ahead(chunks):
            batch = list(chunk)
            pixels = torch.from_numpy(np.concatenate([picture.pixels for picture in batch])).to(device)
            maps, scores, tlm_maps, tlm_scores = (result.cpu().numpy() for result in both_maps(inspector, pixels))
            for index, picture in enumerate(batch):
                yield Inspected(
                    sample=picture.sample,
                    mask=picture.mask,
                    # Copies, since a view of one map would keep the whole batch's.
                    answer=Answer(maps[index].copy(), float(scores[index])),
                    tlm_answer=Answer(tlm_maps[index].copy(), float(tlm_scores[index])),
                )


def both_maps(inspector: InferencePath, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `inspector(images)` answers and the same without feature aggregation, from one pass of the streams.

    Returns:
        anomaly_map (N, H, W), score (N,), and both again of the map without feature aggregation.
    """
    network = inspector.network
    features = network.features(prepare(images, inspector.spec))
    distance = tlm_map(features)
    aggregated = distance if network.feature_aggregation is None else torch.sigmoid(network.aggregate(features))
    return *inspector.finish(aggregated), *inspector.finish(distance)


@torch.no_grad()
def score_images(inspector: InferencePath, images: Iterable[Image]) -> list[float]:
    """Image scores of pictures that have the network's input size already."""
    device = _device(inspector)
    inspector.eval()
    scores: list[float] = []
    for chunk in _chunks(images, _batch_size(device)):
        scores += inspector(torch.from_numpy(np.stack(chunk)).to(device))[1].tolist()
    return scores


@dataclass(frozen=True)
class _Picture:
    sample: Sample
    pixels: Input
    mask: Mask


def _read(sample: Sample, spec: ModelSpec) -> _Picture:
    image = read_image(sample.path)
    size = (image.shape[0], image.shape[1])
    return _Picture(sample, to_input(image, spec=spec), read_truth(sample, size=size))


def _device(inspector: InferencePath) -> torch.device:
    return next(inspector.parameters()).device


def _batch_size(device: torch.device) -> int:
    return CPU_BATCH if device.type == "cpu" else GPU_BATCH


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one always begun: while one batch is computed the next one is read."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current
        current = following
