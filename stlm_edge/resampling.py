"""How sure figures are: the same ones over pictures that are drawn again, part by part.

Parts are drawn again with replacement, all pictures of a part together, as many of each kind as there are (a bootstrap
over groups). Sorting all pixels a thousand times would take hours, so each picture is summed up once in histograms that
all pictures share, and a draw is a weighted sum of those. Pixels of one bin count as tied, so intervals of pixel
metrics are off by some thousandths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.datasets import GOOD
from stlm_edge.imaging import Mask
from stlm_edge.inspection import Answer
from stlm_edge.metrics import FPR_LIMIT

Values = NDArray[np.float64]

BINS = 4096
EDGE_SAMPLE = 1_000_000
"""Scores of either kind that the bins' edges are chosen from."""


@dataclass(frozen=True)
class Judged:
    """What a method answers to one picture of a part, (H, W) as its mask, on a scale that all pictures share."""

    kind: str
    part: str
    answer: Answer
    mask: Mask


def draw_weights(kinds: Sequence[str], parts: Sequence[str], *, resamples: int, seed: int = 0) -> Values:
    """(R, N): how often each picture is in each draw; all pictures of a part alike, as many parts of each kind.

    Args:
        kinds, parts: of each picture.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(kinds)))
    for kind in sorted(set(kinds)):
        members = [index for index, own in enumerate(kinds) if own == kind]
        drawn = sorted({parts[index] for index in members})
        counts = rng.multinomial(len(drawn), np.full(len(drawn), 1 / len(drawn)), size=resamples)
        for index in members:
            weights[:, index] = counts[:, drawn.index(parts[index])]
    return weights


class JudgedPictures(Protocol):
    """Pictures that can be gone through several times; they need not all be in memory."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Judged]: ...


class Histograms:
    """Of each picture over bins of falling scores, (N, bins): its pixels, shares of its regions, and its own score."""

    def __init__(self, pictures: JudgedPictures) -> None:
        edges, levels = _edges(pictures), np.unique([picture.answer.score for picture in pictures])
        bins = edges.size + 1
        self._positives, self._negatives, self._overlap = np.zeros((3, len(pictures), bins))
        self._image_positives, self._image_negatives = np.zeros((2, len(pictures), levels.size))
        self._regions = np.zeros((len(pictures), 1))
        for index, picture in enumerate(pictures):
            bin_of = edges.size - np.searchsorted(edges, picture.answer.anomaly_map.ravel(), side="right")
            count, labels = cv2.connectedComponents((picture.mask != 0).astype(np.uint8), connectivity=8)
            region = labels.ravel()
            share = (region > 0) / np.bincount(region, minlength=count)[region]
            self._positives[index] = np.bincount(bin_of[region > 0], minlength=bins)
            self._negatives[index] = np.bincount(bin_of[region == 0], minlength=bins)
            self._overlap[index] = np.bincount(bin_of, weights=share, minlength=bins)
            self._regions[index] = count - 1
            own = self._image_negatives if picture.kind == GOOD else self._image_positives
            own[index, levels.size - 1 - np.searchsorted(levels, picture.answer.score)] = 1

    def figures(self, weights: Values) -> dict[str, Values]:
        """(R,) of each metric. Args: weights: (R, N), how often each picture counts."""
        positives, negatives = weights @ self._positives, weights @ self._negatives
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN of an undefined metric
            return {
                "image_auroc": _auroc(weights @ self._image_positives, weights @ self._image_negatives),
                "pixel_auroc": _auroc(positives, negatives),
                "aupro": _aupro((weights @ self._overlap) / (weights @ self._regions), negatives),
                "pixel_ap": _average_precision(positives, negatives),
            }


def _edges(pictures: JudgedPictures) -> Values:
    """Ascending: quantiles of the scores of defective pixels and of normal ones, so that no stretch is left coarse."""
    counts = np.array([(np.count_nonzero(picture.mask), np.count_nonzero(picture.mask == 0)) for picture in pictures])
    marked, normal = np.maximum(1, counts.sum(axis=0) // EDGE_SAMPLE)
    steps = {True: int(marked), False: int(normal)}
    samples: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
    for picture in pictures:
        for wanted, step in steps.items():
            samples[wanted].append(picture.answer.anomaly_map[(picture.mask != 0) == wanted][::step])
    quantiles = np.linspace(0, 1, BINS // 2 + 1)[1:-1]
    scores = [np.concatenate(found) for found in samples.values()]
    return np.unique(np.concatenate([np.quantile(found, quantiles) for found in scores if found.size])).astype(float)


def _auroc(positives: Values, negatives: Values) -> Values:
    """Of each row of histograms, highest bin first: (R,)."""
    area = np.sum(negatives * (np.cumsum(positives, axis=1) - positives / 2), axis=1)
    return np.asarray(area / (positives.sum(axis=1) * negatives.sum(axis=1)))


def _average_precision(positives: Values, negatives: Values) -> Values:
    found = np.cumsum(positives, axis=1)
    precision = found / np.maximum(found + np.cumsum(negatives, axis=1), 1)  # they are whole numbers
    return np.asarray(np.sum(positives * precision, axis=1) / positives.sum(axis=1))


def _aupro(overlap: Values, negatives: Values) -> Values:
    """The trapezoid area under each row's curve up to `FPR_LIMIT`; the bin that crosses it counts in part."""
    steps = negatives / negatives.sum(axis=1, keepdims=True)
    left = FPR_LIMIT - (np.cumsum(steps, axis=1) - steps)
    part = np.where(steps > 0, np.clip(left / np.maximum(steps, np.finfo(float).tiny), 0, 1), 0)
    before = np.cumsum(overlap, axis=1) - overlap
    return np.asarray(np.sum(steps * part * (before + part * overlap / 2), axis=1) / FPR_LIMIT)
