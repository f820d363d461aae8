"""How good a model is on labelled pictures, at their own resolution, with and without its feature aggregation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from stlm_edge.curves import Line, ScoreCurve, ScorePool, pixel_pool, thinned
from stlm_edge.datasets import GOOD, Sample
from stlm_edge.errors import DataError
from stlm_edge.metrics import average_precision, best_f1, image_curve, measure_pixels, roc_auc
from stlm_edge.network.inference import InferencePath
from train.inspection import Inspected, inspect

POINTS = 1000
"""Of a curve that is kept for drawing."""


@dataclass(frozen=True)
class Scores:
    """Metrics over some pictures; NaN where they are undefined, for instance without a good picture.

    Attributes:
        aupro: area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3.
        pixel_fnr: false negative rate (equation 9) at the F1-optimal pixel threshold; the paper states neither its
            threshold nor that it counts pixels, but its figures fit nothing else.
        pixel_fnr_at_half: the same at 0.5; NaN without feature aggregation, where 0.5 means nothing.
    """

    images: int
    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_ap: float
    aupro: float
    pixel_fnr: float
    pixel_fnr_at_half: float


@dataclass(frozen=True)
class Measured:
    """Metrics over all test pictures and over good ones with each kind of defect."""

    overall: Scores
    kinds: dict[str, Scores]


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one category; `train.report` writes it.

    Attributes:
        overall, kinds: with feature aggregation, as deployed.
        tlm_only: without: the product of the streams' distances (TLM only).
        threshold: of the specification; verdicts below are by it.
        f1_optimal_threshold: of the image score on these pictures, to compare; NaN without good or defective ones.
        missed: defective pictures called good; false_alarms: good ones called anomalous.
        weights_sha256: of the network that was measured.
    """

    category: str
    overall: Scores
    kinds: dict[str, Scores]
    tlm_only: Measured
    threshold: float
    threshold_method: str
    f1_optimal_threshold: float
    good: int
    defective: int
    missed: int
    false_alarms: int
    weights_sha256: str


@dataclass(frozen=True)
class Scored:
    """One picture's scores, without its map."""

    sample: Sample
    score: float
    tlm_score: float


@dataclass(frozen=True)
class Curves:
    """Curves over some pictures, thinned for drawing; empty where they are undefined."""

    image_roc: Line
    pixel_roc: Line
    pro: Line
    pixel_precision_recall: Line


@dataclass(frozen=True)
class Results:
    """An evaluation with what pictures and plots are made from.

    Attributes:
        curves: by kind, `all` for all together.
        tlm_curves: over all together, without feature aggregation.
    """

    evaluation: Evaluation
    pictures: tuple[Scored, ...]
    curves: dict[str, Curves]
    tlm_curves: Curves


def evaluate(inspector: InferencePath, samples: Sequence[Sample]) -> Results:
    """Inspect labelled pictures and measure.

    Maps are kept for one label at a time; of all others only the pixels' scores, 8 bytes a pixel.

    Raises:
        DataError: if there are none.
        SpecError: if the model has no threshold.
    """
    if not samples:
        raise DataError("found no test pictures, expected test/good and test/<defect> beside train/good")
    threshold = inspector.spec.require_threshold()
    pictures: list[Scored] = []
    pools: dict[str, ScorePool] = {}
    tlm_pools: dict[str, ScorePool] = {}
    ordered = sorted(samples, key=lambda sample: sample.label)
    for label, group in groupby(inspect(inspector, ordered), key=lambda result: result.sample.label):
        results = list(group)
        pictures += [Scored(result.sample, result.score, result.tlm_score) for result in results]
        pools[label], tlm_pools[label] = _pools(results)
    measured, curves = _measure(pools, [(p.sample.label, p.score) for p in pictures], half=0.5)
    tlm_only, tlm_curves = _measure(tlm_pools, [(p.sample.label, p.tlm_score) for p in pictures], half=math.nan)
    labels = np.array([picture.sample.label != GOOD for picture in pictures])
    scores = np.array([picture.score for picture in pictures])
    anomalous = scores >= threshold.value
    evaluation = Evaluation(
        category=inspector.spec.category,
        overall=measured.overall,
        kinds=measured.kinds,
        tlm_only=tlm_only,
        threshold=threshold.value,
        threshold_method=threshold.method,
        f1_optimal_threshold=math.nan if labels.all() else best_f1(scores, labels).threshold,
        good=int(np.count_nonzero(~labels)),
        defective=int(np.count_nonzero(labels)),
        missed=int(np.count_nonzero(labels & ~anomalous)),
        false_alarms=int(np.count_nonzero(~labels & anomalous)),
        weights_sha256=inspector.spec.weights_sha256,
    )
    return Results(evaluation, tuple(pictures), curves, tlm_curves["all"])


def _pools(results: Sequence[Inspected]) -> tuple[ScorePool, ScorePool]:
    masks = [result.mask for result in results]
    return (
        pixel_pool([result.anomaly_map for result in results], masks),
        pixel_pool([result.tlm_map for result in results], masks),
    )


def _measure(
    pools: dict[str, ScorePool], pictures: Sequence[tuple[str, float]], *, half: float
) -> tuple[Measured, dict[str, Curves]]:
    """Over everything ("all"), and over the good pictures with each kind of defect."""
    kinds = sorted(set(pools) - {GOOD})
    groups = {kind: [label for label in (GOOD, kind) if label in pools] for kind in kinds} | {"all": list(pools)}
    scores: dict[str, Scores] = {}
    curves: dict[str, Curves] = {}
    for name, labels in groups.items():
        chosen = [(label != GOOD, score) for label, score in pictures if label in labels]
        defective, values = np.array([bad for bad, _ in chosen]), np.array([score for _, score in chosen])
        pixels = ScoreCurve.over([pools[label] for label in labels])
        metrics = measure_pixels(pixels)
        scores[name] = Scores(
            images=len(chosen),
            image_auroc=roc_auc(values, defective),
            image_ap=average_precision(values, defective),
            pixel_auroc=metrics.auroc,
            pixel_ap=metrics.ap,
            aupro=metrics.aupro,
            pixel_fnr=metrics.best_f1.fnr,
            pixel_fnr_at_half=_missed_share(pixels, half),
        )
        curves[name] = Curves(
            image_roc=image_curve(values, defective).roc(),
            pixel_roc=thinned(pixels.roc(), points=POINTS),
            pro=thinned(pixels.pro(), points=POINTS),
            pixel_precision_recall=thinned(pixels.precision_recall(), points=POINTS),
        )
    overall = scores.pop("all")
    return Measured(overall, scores), curves


def _missed_share(curve: ScoreCurve, threshold: float) -> float:
    if not curve.positives or math.isnan(threshold):
        return math.nan
    reached = int(np.count_nonzero(curve.thresholds >= threshold))
    return 1 - (int(curve.tp[reached - 1]) if reached else 0) / curve.positives
