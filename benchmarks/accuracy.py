"""How good engines are on labelled pictures, and how far each is from its network.

    python -m benchmarks.accuracy --data mvtec --category bottle --reference runs/bottle/model.safetensors \
        --engine bottle.xml --engine bottle-int8.xml --engine bottle.plan

Each engine is run as the camera program runs it. AUROC, average precision and AUPRO are taken at the pictures' own
resolution, from maps enlarged as the runtime enlarges them: from the network's map at once, where `train evaluate` goes
over the network's input size, so that pixel figures of the two differ by some hundredths of a point and those of whole
pictures by nothing. Drift is what `export verify` calls so, here over all test pictures and without a verdict.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.record import Recorder, recording
from benchmarks.tables import ACCURACY, to_text
from export.gate.examine import DriftMeter
from export.gate.pictures import choose, read_with_progress
from runtime.backends import BACKEND_CHOICES, BackendChoice, open_engine, vouched
from runtime.detector import Detector
from runtime.verification import warn_unless_verified
from stlm_edge.cli import run
from stlm_edge.datasets import GOOD, Sample, load_category
from stlm_edge.errors import ConfigError, DataError, VerificationError
from stlm_edge.imaging import Image
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.metrics import Quality, QualityMeter
from stlm_edge.scoring import is_anomalous
from stlm_edge.spec import ModelSpec, Size, Threshold

PATH = click.Path(path_type=Path)

TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
}
"""The figures of a record, in 0 … 1."""

DRIFTING = ("image_auroc", "pixel_auroc", "aupro")
"""Those whose distance from the reference's is told."""


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


@dataclass(frozen=True, eq=False)
class Judged:
    """What an inspector answers, and how good that is.

    Attributes:
        missed, false_alarms: defective pictures below the threshold and good ones from it on; None without one.
    """

    answers: tuple[Answer, ...]
    quality: Quality
    missed: int | None
    false_alarms: int | None

    def figures(self) -> dict[str, float | None]:
        """Those of `TITLES`, rounded for a record; undefined ones are None."""
        values = {name: getattr(self.quality, name) for name in TITLES}
        return {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}


def judge(inspector: Inspector, pictures: LabelledSet, *, threshold: Threshold | None) -> Judged:
    """Have all pictures inspected; of each the map as it is answered is kept.

    Raises:
        ImageError: if a picture or a mask cannot be used.
        EngineError: if the inspector fails.
    """
    meter, answers, wrong = QualityMeter(), [], {True: 0, False: 0}
    for picture in read_with_progress(pictures.samples):
        answer = inspector.inspect(picture.image)
        size = (picture.image.shape[0], picture.image.shape[1])
        meter.add(answer, label=picture.label, size=size, mask=picture.mask)
        answers.append(answer)
        if threshold is not None:
            is_defective = picture.label != GOOD
            wrong[is_defective] += is_anomalous(answer.score, threshold) != is_defective
    quality = meter.quality()
    assert quality is not None  # all were answered
    missed, false_alarms = (None, None) if threshold is None else (wrong[True], wrong[False])
    return Judged(tuple(answers), quality, missed, false_alarms)


class EngineInspector:
    """An engine as the camera program runs it.

    Attributes:
        name: the library's: `openvino`, `onnxruntime` or `tensorrt`.
    """

    def __init__(self, detector: Detector, *, name: str) -> None:
        self.name = name
        self.detector = detector

    def inspect(self, image: Image) -> Answer:
        anomaly = self.detector.inspect(image)
        return Answer(anomaly.network_map, anomaly.score)


@contextmanager
def open_inspector(path: Path, *, backend: BackendChoice = "auto") -> Iterator[EngineInspector]:
    """Open an engine as the runtime does; see `runtime.backends.open_engine` for what is raised."""
    runner, sidecar = open_engine(path, backend=backend)
    with Detector(runner, sidecar=sidecar, threshold=sidecar.spec.require_threshold()) as detector:
        yield EngineInspector(detector, name=runner.name)


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
    drift = meter.drift(name)
    moved = {metric: 100 * (getattr(found.quality, metric) - getattr(reference.quality, metric)) for metric in DRIFTING}
    return {
        "reference": name,
        "map_max": drift.max_map_error,
        "map_p99": drift.p99_map_error,
        "score_max": drift.max_score_error,
        "rank": drift.score_rank_correlation,
        **{metric: None if math.isnan(points) else round(points, 4) + 0.0 for metric, points in moved.items()},
    }


@dataclass(frozen=True)
class EngineOn:
    """An engine and what runs it. Attributes: name: for the table and the record; spec: of its sidecar."""

    name: str
    path: Path
    backend: BackendChoice
    spec: ModelSpec


@click.command()
@click.option("--engine", "engines", multiple=True, required=True, type=PATH, help="To be judged; repeatable.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("auto",),
    show_default=True,
    type=click.Choice(BACKEND_CHOICES),
    help="What runs the engines; repeatable, then each engine runs on each.",
)
@click.option(
    "--reference", type=PATH, help="Checkpoint or fp32 graph that drift is from.  [default: the first engine]"
)
@click.option("--data", required=True, type=PATH, help="Data set in the layout of MVTec AD, VisA or DAGM.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option("--images", type=click.IntRange(2), help="Judge by so many test pictures at most.  [default: all]")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    engines: tuple[Path, ...],
    backends: tuple[BackendChoice, ...],
    reference: Path | None,
    data: Path,
    category: str | None,
    images: int | None,
    json_path: Path | None,
) -> None:
    """Judge engines by labelled pictures, and by the network that they were made from."""
    logging.getLogger("runtime").setLevel(logging.WARNING)  # it would tell of each engine twice what runs it
    pictures = labelled_set(data, category, images=images)
    given = _engines(engines, backends)
    with recording("accuracy", json_path) as recorder:
        _check(given, reference)
        _judge_all(given, reference, pictures, recorder)
    for line in (
        *to_text(ACCURACY, recorder.record(is_complete=True)),
        *_verdicts(recorder.details["engines"], pictures),
    ):
        click.echo(line)


def _verdicts(rows: Sequence[dict[str, Any]], pictures: LabelledSet) -> Iterator[str]:
    """What the thresholds do, and by how much the areas differ from the reference's."""
    for row in rows:
        if row["threshold"] is not None:
            yield (
                f"{row['name']}: {row['missed']} of {pictures.defective} defective pictures missed and "
                f"{row['false_alarms']} of {pictures.good} good ones called anomalous at {row['threshold']:.4g}"
            )
        if row["drift"] is not None:
            moved = {TITLES[name]: row["drift"][name] for name in DRIFTING if row["drift"][name] is not None}
            said = ", ".join(f"{title} {points:+.3f}" for title, points in moved.items())
            yield f"{row['name']}: {said} points from {row['drift']['reference']}"


def _engines(engines: Sequence[Path], backends: Sequence[BackendChoice]) -> list[EngineOn]:
    """Raises `StlmError` if an engine is missing or not the one that its sidecar was written for, or given twice."""
    for given in (Counter(map(str, engines)), Counter(backends)):
        if twice := [name for name, count in given.items() if count > 1]:
            raise ConfigError(f"{twice[0]} is given twice, expected each engine and backend once; leave one out")
    files = Counter(path.name for path in engines)
    return [
        EngineOn(
            name=(path.name if files[path.name] == 1 else str(path)) + (f" on {backend}" if backends[1:] else ""),
            path=path,
            backend=backend,
            spec=vouched(path).spec,
        )
        for path in engines
        for backend in backends
    ]


def _check(engines: Sequence[EngineOn], reference: Path | None) -> None:
    """Open everything once before minutes of work. Raises `StlmError`, of another network's engine with both names."""
    for engine in engines:
        with open_inspector(engine.path, backend=engine.backend) as opened:
            warn_unless_verified(engine.path, opened.detector.sidecar)
        if reference is not None:
            try:
                with _open_reference(reference, engine.spec):
                    pass
            except VerificationError as error:
                raise VerificationError(f"{engine.path}: {error}") from None


@contextmanager
def _open_reference(reference: Path, spec: ModelSpec) -> Iterator[Inspector]:
    """Raises as `export.gate.inspectors.open_reference`."""
    from export.gate.inspectors import open_reference  # needs onnx, which a Jetson that runs engines has not

    with open_reference(reference, spec=spec) as opened:
        yield opened.inspector


def _judge_all(engines: Sequence[EngineOn], reference: Path | None, pictures: LabelledSet, recorder: Recorder) -> None:
    """Fill the record, which is saved after each."""
    rows: list[dict[str, Any]] = []
    recorder.details |= {
        "data": str(pictures),
        "images": len(pictures.samples),
        "good": pictures.good,
        "defective": pictures.defective,
        "engines": rows,
    }

    def add(row: dict[str, Any], judged: Judged) -> None:
        figures = judged.figures()
        rows.append(row | figures | {"missed": judged.missed, "false_alarms": judged.false_alarms})
        for metric, value in figures.items():
            if value is not None:
                recorder.measure(f"{row['name']} {metric}", [100 * value], unit="%", better="higher")
        recorder.save()

    origins: dict[Size | None, tuple[str, Judged]] = {}
    if reference is not None:
        # An entry of the reference for each size of frames that an engine's graph resizes itself.
        for spec in {engine.spec.frame_size: engine.spec for engine in engines}.values():
            with _open_reference(reference, spec) as inspector:
                judged = judge(inspector, pictures, threshold=None)
            resizing = "" if spec.frame_size is None else " with frames of {} x {}".format(*spec.frame_size)
            name, library = f"{reference.name}{resizing}", "onnxruntime" if reference.suffix == ".onnx" else "pytorch"
            origins[spec.frame_size] = name, judged
            row: dict[str, Any] = {
                "name": name,
                "library": library,
                "precision": "fp32",
                "input_size": list(spec.input_size),
            }
            add(row | {"verified": None, "threshold": None, "drift": None}, judged)
    first: tuple[EngineOn, Judged] | None = None
    for engine in engines:
        with open_inspector(engine.path, backend=engine.backend) as inspector:
            threshold, record = inspector.detector.threshold, inspector.detector.sidecar.engine
            judged = judge(inspector, pictures, threshold=threshold)
        origin = origins.get(engine.spec.frame_size)
        if first is None:
            first = engine, judged
        elif reference is None and _same_network(first[0].spec, engine.spec):
            origin = first[0].name, first[1]
        row = {
            "name": engine.name,
            "library": inspector.name,
            "precision": record.precision,
            "input_size": list(engine.spec.input_size),
            "verified": None if record.gate is None else record.gate.verified,
            "threshold": threshold.value,
            "drift": None if origin is None else drift_between(origin[1], judged, name=origin[0]),
        }
        add(row, judged)


def _same_network(first: ModelSpec, other: ModelSpec) -> bool:
    """Whether drift between two engines would tell of them and not of two networks."""
    keys = ("weights_sha256", "input_size", "map_size", "frame_size", "top_k")
    return all(getattr(first, key) == getattr(other, key) for key in keys)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
