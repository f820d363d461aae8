"""What an evaluation says: figures, verdicts, and what pictures and plots of it are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stlm_edge.curves import Line, thinned
from stlm_edge.datasets import Sample
from stlm_edge.metrics import QualityCurves, missed_share
from stlm_edge.spec import Size

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

    @classmethod
    def of(cls, curves: QualityCurves, *, at_half: bool) -> Scores:
        """Args: at_half: whether 0.5 means something as a threshold."""
        quality = curves.quality()
        return cls(
            images=quality.images,
            image_auroc=quality.image_auroc,
            image_ap=quality.image_ap,
            pixel_auroc=quality.pixel_auroc,
            pixel_ap=quality.pixel_ap,
            aupro=quality.aupro,
            pixel_fnr=quality.pixel_best_f1.fnr,
            pixel_fnr_at_half=missed_share(curves.pixel, 0.5) if at_half else math.nan,
        )


@dataclass(frozen=True)
class Measured:
    """Metrics over all test pictures and over good ones with each kind of defect."""

    overall: Scores
    kinds: dict[str, Scores]


@dataclass(frozen=True)
class Scored:
    """One picture's scores, without its map.

    Attributes:
        tlm_score: without feature aggregation; None of a network without two streams.
        peak_in_mask: whether the map is highest in the defect's mask, see `stlm_edge.peaks`; None without a mask.
    """

    sample: Sample
    score: float
    tlm_score: float | None
    peak_in_mask: bool | None = None


@dataclass(frozen=True)
class DefectVerdicts:
    """What the threshold makes of defective pictures, of one kind or of all.

    Attributes:
        missed: how many of them are called good.
        found_marked: how many of those that are found have a mask.
        peak_in_mask: how many of these have the peak of their map in it, see `stlm_edge.peaks`; the others were found
            for something beside the defect.
    """

    defective: int
    missed: int
    found_marked: int
    peak_in_mask: int

    @classmethod
    def of(cls, pictures: Sequence[Scored], *, threshold: float) -> DefectVerdicts:
        """Args: pictures: defective ones."""
        found = [picture.peak_in_mask for picture in pictures if picture.score >= threshold]
        return cls(len(pictures), len(pictures) - len(found), len(found) - found.count(None), found.count(True))


@dataclass(frozen=True)
class Intervals:
    """Between which values figures lie with 95 % confidence, as far as other parts would differ from these.

    Attributes:
        parts: how many the pictures show.
        figures: lowest and highest of those of `Scores` that are areas, over all pictures, and of the shares of defects
            that are missed, of good pictures that are called anomalous, and of found defects whose peak is in the mask;
            without those that are undefined.
    """

    parts: int
    figures: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class BestOnTest:
    """The epoch of a training in which the test pictures were detected best: chosen by them, so it flatters.

    Attributes:
        every: so many epochs lay between those that were measured.
        metrics: as `Evaluation.overall`, of the network as it was then, which nobody keeps.
    """

    epoch: int
    every: int
    metrics: Scores


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one category; `train.report` writes it.

    Attributes:
        overall, kinds: with feature aggregation, as deployed.
        tlm_only: without: the product of the streams' distances (TLM only); None of a network without two streams.
        threshold: of the specification; verdicts below are by it.
        f1_optimal_threshold: of the image score on these pictures, to compare; NaN without good or defective ones.
        missed: defective pictures called good; false_alarms: good ones called anomalous.
        verdicts: of each kind of defect, and of `all` together.
        intervals: None where nobody said which pictures show the same part.
        weights_sha256: of the network that was measured.
        metric_size: (height, width) at which figures over pixels were measured; None: each picture's own.
        best_on_test: None where the training did not look at these test pictures, see `train.on_test`.
    """

    category: str
    overall: Scores
    kinds: dict[str, Scores]
    tlm_only: Measured | None
    threshold: float
    threshold_method: str
    f1_optimal_threshold: float
    good: int
    defective: int
    missed: int
    false_alarms: int
    verdicts: dict[str, DefectVerdicts]
    intervals: Intervals | None
    weights_sha256: str
    metric_size: Size | None = None
    best_on_test: BestOnTest | None = None


@dataclass(frozen=True)
class Curves:
    """Curves over some pictures, thinned for drawing; empty where they are undefined."""

    image_roc: Line
    pixel_roc: Line
    pro: Line
    pixel_precision_recall: Line

    @classmethod
    def of(cls, curves: QualityCurves) -> Curves:
        return cls(
            image_roc=curves.image.roc(),
            pixel_roc=thinned(curves.pixel.roc(), points=POINTS),
            pro=thinned(curves.pixel.pro(), points=POINTS),
            pixel_precision_recall=thinned(curves.pixel.precision_recall(), points=POINTS),
        )


@dataclass(frozen=True)
class Results:
    """An evaluation with what pictures and plots are made from.

    Attributes:
        curves: by kind, `all` for all together.
        tlm_curves: over all together, without feature aggregation; None of a network without two streams.
        pictures_sha256: tells the pictures from others, see `train.evaluate.LabelledDigest`.
    """

    evaluation: Evaluation
    pictures: tuple[Scored, ...]
    curves: dict[str, Curves]
    tlm_curves: Curves | None
    pictures_sha256: str
