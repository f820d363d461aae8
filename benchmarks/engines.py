"""Engines as a user runs them, asked for their verdicts on labelled pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from export.gate.drift import DriftMeter
from export.gate.pictures import Picture, choose, read_with_progress
from runtime.backends import BackendChoice, open_engine
from runtime.detector import Detector
from stlm_edge.curves import ScoreCurve, ScorePool, pixel_pool
from stlm_edge.datasets import GOOD, Sample, load_category
from stlm_edge.errors import DataError
from stlm_edge.imaging import Image, resize_map
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.metrics import average_precision, measure_pixels, roc_auc
from stlm_edge.scoring import is_anomalous
from stlm_edge.sidecar import Drift, Sidecar
from stlm_edge.spec import Threshold

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
DRIFTING = ("image_auroc", "pixel_auroc", "aupro")
"""Those that `stlm_edge.sidecar.Drift` has too."""

_TOGETHER = 64
"""Pictures whose full maps are in memory at once."""


@dataclass(frozen=True)
class LabelledSet:
    """Test pictures, good and defective ones.

    Attributes:
        name: of the category.
        samples: those that are judged.
        available: how many the data set has.
    """

    name: str
    samples: tuple[Sample, ...]
    available: int

    @property
    def defective(self) -> int:
        return sum(sample.label != GOOD for sample in self.samples)

    @property
    def good(self) -> int:
        return len(self.samples) - self.defective

    def __str__(self) -> str:
        share = "" if self.available == len(self.samples) else f" of {self.available}"
        return f"{self.name}, {len(self.samples)}{share} test pictures, {self.good} good and {self.defective} defective"


def labelled_set(data: Path, category: str | None, *, images: int | None = None) -> LabelledSet:
    """The test pictures of a data set in the layout of MVTec AD, VisA or DAGM; none is opened.

    Args:
        images: at most so many, each kind with its share.
    Raises:
        DataError: if there are none, or not both good and defective ones: without either, AUROC is undefined.
    """
    loaded = load_category(data, category)
    chosen = LabelledSet(loaded.name, choose(loaded.test, images), len(loaded.test))
    if not chosen.good or not chosen.defective:
        raise DataError(
            f"{data} has {chosen.good} good and {chosen.defective} defective pictures to judge by, expected some of "
            "both: without either, AUROC is undefined; give a data set with labels (test/good and test/<defect> with "
            "masks), or more --images"
        )
    return chosen


@dataclass(frozen=True)
class Quality:
    """Figures over labelled pictures at their own resolution, in 0 … 1; NaN where the masks leave one undefined.

    Attributes:
        missed, false_alarms: defective pictures below the threshold and good ones from it on; None without one.
    """

    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_ap: float
    aupro: float
    missed: int | None
    false_alarms: int | None

    def figures(self) -> dict[str, float | None]:
        """By name, rounded for a record; undefined ones are None."""
        values = {name: getattr(self, name) for name in METRICS}
        return {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class Judged:
    """What one side answers, and how good that is."""

    answers: tuple[Answer, ...]
    quality: Quality


def judge(side: Inspector, pictures: LabelledSet, *, threshold: Threshold | None) -> Judged:
    """Have one side inspect all pictures.

    Maps are enlarged to each picture's own pixels as the runtime does. Of all pictures, 4 bytes a pixel are kept.

    Raises:
        ImageError: if a picture or a mask cannot be used.
        EngineError: if the side fails.
    """
    answers: list[Answer] = []
    labels: list[bool] = []
    pools: list[ScorePool] = []
    stream = read_with_progress(pictures.samples)
    while chunk := list(islice(stream, _TOGETHER)):
        found = [side.inspect(picture.image) for picture in chunk]
        answers += found
        labels += [picture.label != GOOD for picture in chunk]
        pools.append(_pool(chunk, found))
    pixels = measure_pixels(ScoreCurve.over(pools))
    scores, defective = np.array([answer.score for answer in answers]), np.array(labels)
    called = np.array([threshold is not None and is_anomalous(answer.score, threshold) for answer in answers])
    quality = Quality(
        image_auroc=roc_auc(scores, defective),
        image_ap=average_precision(scores, defective),
        pixel_auroc=pixels.auroc,
        pixel_ap=pixels.ap,
        aupro=pixels.aupro,
        missed=None if threshold is None else int(np.count_nonzero(defective & ~called)),
        false_alarms=None if threshold is None else int(np.count_nonzero(~defective & called)),
    )
    return Judged(tuple(answers), quality)


def _pool(pictures: Sequence[Picture], answers: Sequence[Answer]) -> ScorePool:
    maps, masks = [], []
    for picture, answer in zip(pictures, answers, strict=True):
        size = (picture.image.shape[0], picture.image.shape[1])
        maps.append(resize_map(answer.anomaly_map, size))
        masks.append(np.zeros(size, np.uint8) if picture.mask is None else picture.mask)
    return pixel_pool(maps, masks)


def drift_between(reference: Judged, found: Judged, *, name: str) -> dict[str, Any]:
    """How far one side's answers are from another's on the same pictures, by the figures of `export verify`.

    Args:
        name: of the reference.
    Returns:
        Of maps and scores on their scale of 0 … 1, of the metrics in points of 100; None where undefined.
    Raises:
        VerificationError: if the maps are of different sizes.
    """
    meter = DriftMeter()
    for wanted, answer in zip(reference.answers, found.answers, strict=True):
        meter.add(wanted, answer)
    drift: Drift = meter.drift(name)
    moved = {metric: 100 * (getattr(found.quality, metric) - getattr(reference.quality, metric)) for metric in DRIFTING}
    return {
        "reference": name,
        "map_max": drift.max_map_error,
        "map_p99": drift.p99_map_error,
        "score_max": drift.max_score_error,
        "rank": drift.score_rank_correlation,
        **{metric: None if math.isnan(points) else round(points, 4) + 0.0 for metric, points in moved.items()},
    }


class DetectorInspector:
    """A detector in the words of the gate. It stays its owner's."""

    def __init__(self, detector: Detector, *, library: str) -> None:
        self.name = library
        self._detector = detector

    def inspect(self, image: Image) -> Answer:
        anomaly = self._detector.inspect(image)
        return Answer(anomaly.network_map, anomaly.score)


@dataclass(frozen=True, eq=False)
class Opened:
    """An engine that is open.

    Attributes:
        library: what runs it: `openvino`, `onnxruntime` or `tensorrt`.
    """

    detector: Detector
    sidecar: Sidecar
    library: str

    @property
    def inspector(self) -> DetectorInspector:
        return DetectorInspector(self.detector, library=self.library)


@contextmanager
def opened(path: Path, *, backend: BackendChoice = "auto") -> Iterator[Opened]:
    """Open an engine as the runtime does; see `runtime.backends.open_engine` for what is raised."""
    runner, sidecar = open_engine(path, backend=backend)
    with Detector(runner, sidecar=sidecar, threshold=sidecar.spec.require_threshold()) as detector:
        yield Opened(detector, sidecar, runner.name)
