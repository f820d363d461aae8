"""Metrics with 95 % intervals over parts, for any maps, masks and scores.

A test set of a hundred pictures leaves much to chance, and pictures of one part are not independent. So parts are drawn
again with replacement, all pictures of a part together, and the metrics are computed anew each time (a bootstrap over
groups). Draws are made within each kind of defect and within the good ones: how many of each there are was the choice
of whoever made the set. With a handful of parts of a kind, the bootstrap's interval is too narrow rather than too wide.

Sorting all pixels a thousand times would take hours. Each picture is summed up once in histograms over `BINS` bins
that all pictures share; a draw is then a weighted sum of histograms. Pixels of one bin count as tied, so values and
intervals of the pixel metrics are off by a little (`python -m benchmarks.gabor_knn` prints how much); the bins' edges
are quantiles of the scores of defective and of normal pixels, so that no stretch of the curves is left coarse. Figures
themselves come from `stlm_edge.metrics` and are exact, and so are the intervals of the image metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stlm_edge.datasets import GOOD
from stlm_edge.errors import DataError
from stlm_edge.imaging import Map, Mask
from stlm_edge.metrics import FPR_LIMIT, pixel_metrics, roc_auc

Values = NDArray[np.float64]

ALL = "all"
BINS = 4096
RESAMPLES = 1000
COVERAGE = 0.95
EDGE_SAMPLE = 1_000_000
"""Scores of either kind that the bins' edges are chosen from."""


@dataclass(frozen=True)
class Judged:
    """One picture and what a method says about it.

    Attributes:
        kind: `good`, or the kind of defect.
        group: of the part that it shows.
        anomaly_map, mask: (H, W); scores on any scale that all pictures share, and 0 or 1.
        score: of the picture, on any scale that all pictures share.
    """

    kind: str
    group: str
    anomaly_map: Map
    mask: Mask
    score: float


@dataclass(frozen=True)
class Figures:
    """The metrics of `stlm_edge.metrics`: single numbers, or one for each draw, (R,). NaN where undefined."""

    image_auroc: Any
    pixel_auroc: Any
    aupro: Any
    pixel_ap: Any


METRICS = tuple(entry.name for entry in fields(Figures))


@dataclass(frozen=True)
class Resampled:
    """Figures over some pictures.

    Attributes:
        images, groups: how many pictures and parts, good ones among them.
        exact: from all pictures.
        binned: from all pictures' histograms, to see what the bins cost.
        draws: from the histograms, for each draw.
    """

    images: int
    groups: int
    exact: Figures
    binned: Figures
    draws: Figures


def interval(draws: Values) -> tuple[float, float]:
    """The middle 95 % of the draws; NaN where a draw is undefined."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(draws, (tail, 1 - tail))
    return float(low), float(high)


def resample(
    pictures: Sequence[Judged], *, resamples: int = RESAMPLES, seed: int = 0, bins: int = BINS
) -> dict[str, Resampled]:
    """All figures for the good pictures with each kind of defect, and with all of them (`all`).

    The draws depend on seed, kinds and groups alone: those of two methods on the same pictures belong together, and
    their difference has an interval of its own.

    Raises:
        DataError: if there is no good or no defective picture.
        StlmError: as `stlm_edge.metrics`.
    """
    kinds = sorted({picture.kind for picture in pictures} - {GOOD})
    good = sum(picture.kind == GOOD for picture in pictures)
    if not kinds or not good:
        raise DataError(f"found {good} good and {len(pictures) - good} defective pictures, expected some of both")
    weights = draw_weights(pictures, resamples=resamples, seed=seed)
    histograms = _histograms(pictures, bins=bins)
    results = {}
    for name in (*kinds, ALL):
        chosen = np.array([name == ALL or picture.kind in (GOOD, name) for picture in pictures])
        subset = [picture for picture, wanted in zip(pictures, chosen, strict=True) if wanted]
        everything = histograms.figures(chosen[None].astype(np.float64))
        results[name] = Resampled(
            images=len(subset),
            groups=len({picture.group for picture in subset}),
            exact=exact_figures(subset),
            binned=Figures(*(float(getattr(everything, metric)[0]) for metric in METRICS)),
            draws=histograms.figures(weights * chosen),
        )
    return results


def draw_weights(pictures: Sequence[Judged], *, resamples: int, seed: int) -> Values:
    """(R, N): how often each picture is in each draw; all pictures of a part alike, as many parts of each kind."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(pictures)))
    for kind in sorted({picture.kind for picture in pictures}):
        members = [index for index, picture in enumerate(pictures) if picture.kind == kind]
        groups = sorted({pictures[index].group for index in members})
        counts = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)
        for index in members:
            weights[:, index] = counts[:, groups.index(pictures[index].group)]
    return weights


@dataclass(frozen=True)
class _Histograms:
    """Of each picture, highest score first: (N, bins) each, but (N,) the last.

    Attributes:
        positives, negatives: pixels; image_positives, image_negatives: 1 where the picture's own score is.
        shares: of each bin in the overlap of the picture's regions, summed over them.
        regions: how many there are.
    """

    positives: Values
    negatives: Values
    image_positives: Values
    image_negatives: Values
    shares: Values
    regions: Values

    def figures(self, weights: Values) -> Figures:
        """Args: weights: (R, N), how often each picture counts."""
        positives, negatives = weights @ self.positives, weights @ self.negatives
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN of an undefined metric
            overlap = (weights @ self.shares) / (weights @ self.regions)[:, None]
            return Figures(
                image_auroc=_auroc(weights @ self.image_positives, weights @ self.image_negatives),
                pixel_auroc=_auroc(positives, negatives),
                aupro=_aupro(overlap, negatives),
                pixel_ap=_average_precision(positives, negatives),
            )


def _histograms(pictures: Sequence[Judged], *, bins: int) -> _Histograms:
    edges = _edges(pictures, bins)
    levels = np.unique([picture.score for picture in pictures])
    positives, negatives, shares, regions = [], [], [], []
    image_levels = np.zeros((len(pictures), levels.size))
    for index, picture in enumerate(pictures):
        bin_of = np.searchsorted(edges, picture.anomaly_map.ravel(), side="right")
        count, labels = cv2.connectedComponents((picture.mask != 0).astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel(), minlength=count)
        share = np.where(labels.ravel() > 0, 1 / np.maximum(sizes, 1)[labels.ravel()], 0)
        defect = picture.mask.ravel() != 0
        positives.append(np.bincount(bin_of[defect], minlength=edges.size + 1))
        negatives.append(np.bincount(bin_of[~defect], minlength=edges.size + 1))
        shares.append(np.bincount(bin_of, weights=share, minlength=edges.size + 1))
        regions.append(count - 1)
        image_levels[index, np.searchsorted(levels, picture.score)] = 1
    defective = np.array([picture.kind != GOOD for picture in pictures])[:, None]
    descending = slice(None, None, -1)
    return _Histograms(
        positives=np.array(positives, np.float64)[:, descending],
        negatives=np.array(negatives, np.float64)[:, descending],
        image_positives=(image_levels * defective)[:, descending],
        image_negatives=(image_levels * ~defective)[:, descending],
        shares=np.array(shares, np.float64)[:, descending],
        regions=np.array(regions, np.float64),
    )


def _edges(pictures: Sequence[Judged], bins: int) -> Values:
    """At most `bins` - 1 ascending edges: quantiles of the scores of defective pixels and of normal ones, in turn."""
    quantiles = np.linspace(0, 1, bins // 2 + 1)[1:-1]
    edges = []
    for wanted in (True, False):
        scores = np.concatenate([picture.anomaly_map[(picture.mask != 0) == wanted] for picture in pictures])
        if scores.size:
            edges.append(np.quantile(scores[:: max(1, scores.size // EDGE_SAMPLE)], quantiles))
    return np.unique(np.concatenate(edges)).astype(np.float64)


def exact_figures(pictures: Sequence[Judged]) -> Figures:
    """The metrics over all pictures, NaN where undefined. Raises `StlmError` if a map or a score has a NaN."""
    pixels = pixel_metrics([picture.anomaly_map for picture in pictures], [picture.mask for picture in pictures])
    scores = np.array([picture.score for picture in pictures])
    labels = np.array([picture.kind != GOOD for picture in pictures])
    return Figures(roc_auc(scores, labels), pixels.auroc, pixels.aupro, pixels.ap)


def _auroc(positives: Values, negatives: Values) -> Values:
    """Of each row of histograms, highest bin first: (R,)."""
    recall = np.cumsum(positives, axis=1)
    area = np.sum(negatives * (recall - positives / 2), axis=1)
    return np.asarray(area / (positives.sum(axis=1) * negatives.sum(axis=1)))


def _average_precision(positives: Values, negatives: Values) -> Values:
    found = np.cumsum(positives, axis=1)
    flagged = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return np.asarray(np.sum(positives * precision, axis=1) / positives.sum(axis=1))


def _aupro(overlap: Values, negatives: Values) -> Values:
    """The trapezoid area under each row's curve up to `FPR_LIMIT`; the bin that crosses it counts in part."""
    fpr_after = np.cumsum(negatives, axis=1) / negatives.sum(axis=1, keepdims=True)
    fpr_step = np.diff(fpr_after, prepend=0, axis=1)
    before = np.cumsum(overlap, axis=1) - overlap
    part = np.divide(FPR_LIMIT - (fpr_after - fpr_step), fpr_step, out=np.zeros_like(fpr_step), where=fpr_step > 0)
    part = np.clip(part, 0, 1)
    return np.asarray(np.sum(fpr_step * part * (before + part * overlap / 2), axis=1) / FPR_LIMIT)
