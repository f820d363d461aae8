"""The gate: compare what runs an engine's graph with the network, and verify the engine or not."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.gate.limits import objections
from export.gate.pictures import Picture
from stlm_edge.errors import DataError, EngineError, VerificationError
from stlm_edge.imaging import Map
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.metrics import Quality, QualityMeter
from stlm_edge.sidecar import Drift, Gate, Limits

logger = logging.getLogger(__name__)

FLAT = 0.01
"""Standard deviation of the network's maps or scores below which their correlation would tell of rounding only."""

FEWEST_FOR_QUALITY = 30
"""Good pictures, and defective ones, from which on an AUROC is told.

The standard error of an AUROC of 90 is then 4 points, that of the 8 and 8 of an export 8 (Hanley and McNeil, 1982): by
so few a model looks perfect or useless by luck. How far it moved between two sides on the same pictures is exact with
any number of them.
"""

_SMALLEST = 1e-9
_STEP = 1.01
_BUCKETS = math.ceil(math.log(16 / _SMALLEST, _STEP))
"""Map errors are counted in buckets 1 % wide, from 1e-9 to above the 4 that a map without aggregation may reach."""


@dataclass(frozen=True)
class GateMetrics:
    """What is judged of a side's quality, in 0 … 1; None where the labels or masks for it are missing."""

    image_auroc: float | None
    pixel_auroc: float | None
    aupro: float | None

    @classmethod
    def of(cls, quality: Quality) -> GateMetrics:
        figures = (quality.image_auroc, quality.pixel_auroc, quality.aupro)
        return cls(*(None if math.isnan(figure) else figure for figure in figures))


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The picture with the largest map error, and both coarse maps of it."""

    picture: Picture
    wanted: Map
    found: Map
    error: float


@dataclass(frozen=True, eq=False)
class Row:
    """What was found of one backend.

    Attributes:
        drift, metrics, worst: None if it failed.
        objections: what is beyond the limits, or how it failed; empty if it may pass.
    """

    name: str
    drift: Drift | None
    metrics: GateMetrics | None
    worst: WorstCase | None
    objections: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Examination:
    """All that a comparison has found.

    Attributes:
        metrics: of the reference.
        good, defective: how many pictures the sides were compared on; what nobody has labelled counts as good.
        resize: the reference against the network with pictures that the host resized; None where the graph takes
            such pictures. It is measured and not judged: it changes pixels by less than a grey level, which is nothing
            that the engine does wrong, though a network may answer to it more than to FP16.
    """

    reference: str
    metrics: GateMetrics
    limits: Limits
    rows: tuple[Row, ...]
    good: int
    defective: int
    resize: Row | None

    @property
    def pairs(self) -> int:
        """Of a good and a defective picture."""
        return self.good * self.defective

    @property
    def tells_quality(self) -> bool:
        """Whether there are pictures enough to say how good the model is; with fewer, only how far the sides differ."""
        return min(self.good, self.defective) >= FEWEST_FOR_QUALITY

    def gate(self, *, executed: bool) -> Gate:
        """The verdict, for the sidecar."""
        objections = tuple(objection for row in self.rows for objection in row.objections)
        return Gate(
            verified=not objections,
            executed=executed,
            reference=self.reference,
            limits=self.limits,
            drifts=tuple(row.drift for row in self.rows if row.drift is not None),
            objections=objections,
            resize=None if self.resize is None else self.resize.drift,
        )


def examine(
    reference: Inspector,
    subjects: Sequence[Inspector],
    pictures: Iterable[Picture],
    *,
    limits: Limits,
    host_resized: Inspector | None = None,
) -> Examination:
    """Have all sides inspect the same pictures, one after the other, and compare.

    Args:
        subjects: what runs the engine's graph, at least one.
        host_resized: the network on pictures that the host resized, where `reference` resizes as the graph does.
    Raises:
        DataError: if there is no picture, or one cannot be used.
        EngineError: if the reference fails; a subject that does is reported in its row.
        VerificationError: if maps are of different sizes.
    """
    compared = [_Compared(subject.name) for subject in subjects]
    resized = _Compared("resize in the graph")
    meter = QualityMeter(len(subjects) + 2)
    for picture in pictures:
        wanted = reference.inspect(picture.image)
        found = [side.add(picture, wanted, subject) for side, subject in zip(compared, subjects, strict=True)]
        before = None if host_resized is None else host_resized.inspect(picture.image)
        if before is not None:
            resized.compare(picture, before, wanted)
        size = (picture.image.shape[0], picture.image.shape[1])
        meter.add(wanted, before, *found, label=picture.label, size=size, mask=picture.mask)
    if not meter.images:
        raise DataError("found no picture to compare on, expected at least one; give another --data")
    qualities = [meter.quality(side) for side in range(len(subjects) + 2)]
    metrics, host, *found_metrics = (None if quality is None else GateMetrics.of(quality) for quality in qualities)
    assert metrics is not None  # the reference has answered all pictures
    good, defective = meter.images - meter.defective, meter.defective
    pairs = good * defective
    rows = [side.row(metrics, its, limits, pairs=pairs) for side, its in zip(compared, found_metrics, strict=True)]
    return Examination(
        reference=reference.name,
        metrics=metrics,
        limits=limits,
        rows=tuple(rows),
        good=good,
        defective=defective,
        resize=None if host is None else resized.row(host, metrics, None, pairs=pairs),
    )


class _Compared:
    """One backend's drift so far, its worst case, and whether it has failed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._meter = DriftMeter()
        self._worst: WorstCase | None = None
        self._failure: str | None = None

    def add(self, picture: Picture, wanted: Answer, subject: Inspector) -> Answer | None:
        """Have `subject` answer; None from the first failure on."""
        if self._failure is not None:
            return None
        try:
            found = subject.inspect(picture.image)
        except EngineError as error:
            # The record travels with the engine, so it does not get the message, which has this machine's paths.
            logger.warning("%s FAILED on %s: %s", self._name, picture.name, error)
            self._failure = f"{self._name}: failed on {picture.name}"
            return None
        self.compare(picture, wanted, found)
        return found

    def compare(self, picture: Picture, wanted: Answer, found: Answer) -> None:
        error = self._meter.add(wanted, found)
        if self._worst is None or error > self._worst.error:
            self._worst = WorstCase(picture, wanted.anomaly_map, found.anomaly_map, error)

    def row(self, wanted: GateMetrics, found: GateMetrics | None, limits: Limits | None, *, pairs: int) -> Row:
        """What was found, judged by `limits` if there are some."""
        if self._failure is not None:
            return Row(self._name, None, None, None, (self._failure,))
        drift = self._meter.drift(self._name)
        if found is not None:
            drift = dataclasses.replace(
                drift,
                image_auroc_drift=_points(wanted.image_auroc, found.image_auroc),
                pixel_auroc_drift=_points(wanted.pixel_auroc, found.pixel_auroc),
                aupro_drift=_points(wanted.aupro, found.aupro),
            )
        found_wanting = [] if limits is None else objections(drift, limits, pairs=pairs)
        return Row(self._name, drift, found, self._worst, tuple(found_wanting))


def _points(wanted: float | None, found: float | None) -> float | None:
    return None if wanted is None or found is None else 100 * (found - wanted)


class DriftMeter:
    """Collects the differences between what was wanted and what was found."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS + 1, np.int64)
        self._largest = 0.0
        self._moments = _Moments()
        self._scores: list[tuple[float, float]] = []

    def add(self, wanted: Answer, found: Answer) -> float:
        """Count one picture; returns its largest map error.

        Raises:
            VerificationError: if the maps are of different sizes, so come from different networks.
        """
        if wanted.anomaly_map.shape != found.anomaly_map.shape:
            raise VerificationError(
                f"found a map of {found.anomaly_map.shape}, the reference's is {wanted.anomaly_map.shape}; "
                "give the checkpoint that the engine was exported from"
            )
        errors = np.abs(found.anomaly_map.astype(np.float64) - wanted.anomaly_map).ravel()
        places = np.ceil(np.log(np.maximum(errors, _SMALLEST) / _SMALLEST) / math.log(_STEP)).astype(np.int64)
        self._counts += np.bincount(places.clip(0, _BUCKETS), minlength=_BUCKETS + 1)
        self._moments.add(wanted.anomaly_map.ravel().astype(np.float64), found.anomaly_map.ravel().astype(np.float64))
        self._scores.append((wanted.score, found.score))
        largest = float(errors.max())
        self._largest = max(self._largest, largest)
        return largest

    def drift(self, backend: str) -> Drift:
        """Of all pictures so far, at least one, without the metrics."""
        wanted, found = np.array(self._scores, np.float64).T
        return Drift(
            backend=backend,
            images=len(self._scores),
            max_map_error=self._largest,
            p99_map_error=self._percentile(0.99),
            map_correlation=self._moments.correlation(),
            max_score_error=float(np.abs(found - wanted).max()),
            score_rank_correlation=rank_correlation(wanted, found),
        )

    def _percentile(self, share: float) -> float:
        """By nearest rank; at most 1 % above the true one."""
        rank = math.ceil(share * int(self._counts.sum()))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_SMALLEST * _STEP**place, self._largest) if place else 0.0


class _Moments:
    """Means and products of deviations of pairs that come in blocks, joined as by Chan, Golub and LeVeque (1979)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros(2)
        self._products = np.zeros((2, 2))

    def add(self, wanted: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        pairs = np.stack([wanted, found])
        mean = pairs.mean(axis=1)
        deviations = pairs - mean[:, None]
        shift = mean - self._mean
        total = self._count + wanted.size
        self._products += deviations @ deviations.T + np.outer(shift, shift) * self._count * wanted.size / total
        self._mean += shift * wanted.size / total
        self._count = total

    def correlation(self) -> float | None:
        """Pearson's; 0 if only what was found is flat."""
        return _correlation(self._products, self._count)


def rank_correlation(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float | None:
    """Spearman's: Pearson's of the ranks, equal values sharing theirs; None where `wanted` is flat."""
    if wanted.std() < FLAT:
        return None
    moments = _Moments()
    moments.add(_ranks(wanted), _ranks(found))
    return moments.correlation()


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return ranks


def _correlation(products: NDArray[np.float64], count: int) -> float | None:
    wanted, found = float(products[0, 0]), float(products[1, 1])
    if math.sqrt(wanted / count) < FLAT:
        return None
    return float(products[0, 1]) / math.sqrt(wanted * found) if found > 0 else 0.0
