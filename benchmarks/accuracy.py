"""How good engines are on labelled pictures, and how far each is from its network.

    python -m benchmarks.accuracy --data mvtec --category bottle --reference runs/bottle/model.safetensors \
        --engine bottle.xml --engine bottle-int8.xml --engine bottle.plan

Each engine is run as the camera program runs it, and judged at the pictures' own resolution. Maps are enlarged at once,
where `train evaluate` goes over the network's input size, so that pixel figures of the two differ by some hundredths of
a point and those of whole pictures by nothing. Drift is what `export verify` calls so, over all test pictures.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.cells import AREAS
from benchmarks.record import Recorder, recording
from benchmarks.subjects import require_different
from benchmarks.tables import to_text
from export.gate.examine import DriftMeter
from export.gate.pictures import choose, read_with_progress
from runtime.backends import BACKEND_CHOICES, BackendChoice, open_engine, vouched
from runtime.detector import Detector
from runtime.verification import warn_unless_verified
from stlm_edge.cli import run
from stlm_edge.datasets import GOOD, Sample, check_masks, load_category
from stlm_edge.errors import DataError, VerificationError
from stlm_edge.imaging import Image
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.metrics import Quality, QualityMeter
from stlm_edge.peaks import peak_in_mask
from stlm_edge.scoring import is_anomalous
from stlm_edge.seen import SeenPictures, digest_of
from stlm_edge.spec import ModelSpec, Size, Threshold

PATH = click.Path(path_type=Path)

FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
"""Of a record, in 0 … 1."""

DRIFTING = ("image_auroc", "pixel_auroc", "aupro")
"""Those whose distance from the reference's is told."""

NETWORK = ("weights_sha256", "input_size", "map_size", "frame_size", "top_k")
"""What two engines must share for drift to tell of them and not of two networks."""


@dataclass(frozen=True)
class LabelledSet:
    """Test pictures, good and defective ones. Attributes: words: which and how many, for people."""

    samples: tuple[Sample, ...]
    good: int
    defective: int
    words: str


def labelled_set(data: Path, category: str | None, *, images: int | None = None) -> LabelledSet:
    """The test pictures of a data set in a known layout, at most so many, each kind with its share; none is opened.

    Raises `DataError` if there are not both good and defective ones.
    """
    loaded = load_category(data, category)
    samples = choose(loaded.test, images)
    good = sum(sample.label == GOOD for sample in samples)
    defective = len(samples) - good
    if not good or not defective:
        found = f"{good} good and {defective} defective test pictures"
        if not loaded.test:
            found = f"{len(loaded.train)} pictures without labels"
        raise DataError(
            f"found {found} in {data}, expected good and defective ones, since AUROC needs both; give the folder of a "
            "category, which has test/good and test/<defect>, or more --images"
        )
    count = str(len(samples)) if len(samples) == len(loaded.test) else f"{len(samples)} of {len(loaded.test)}"
    check_masks(samples)
    words = f"{loaded.name}, {count} test pictures, {good} good and {defective} defective"
    return LabelledSet(samples, good, defective, words)


@dataclass(frozen=True, eq=False)
class Judged:
    """What an inspector answers to each picture, and how good that is.

    Attributes:
        peaks: whether the map of each picture is highest in the defect's mask, see `stlm_edge.peaks`; None without one.
    """

    answers: tuple[Answer, ...]
    quality: Quality
    peaks: tuple[bool | None, ...]

    def mistakes(self, pictures: LabelledSet, threshold: Threshold) -> dict[str, int]:
        """How many defective pictures score below the threshold, and how many good ones from it on.

        And of those defects that are found and have a mask, `found_marked`, how many have the peak of their map in it.
        """
        wrong = [
            sample.label
            for sample, answer in zip(pictures.samples, self.answers, strict=True)
            if is_anomalous(answer.score, threshold) != (sample.label != GOOD)
        ]
        false_alarms = wrong.count(GOOD)
        found = [
            peak
            for peak, answer in zip(self.peaks, self.answers, strict=True)
            if peak is not None and is_anomalous(answer.score, threshold)
        ]
        return {
            "missed": len(wrong) - false_alarms,
            "false_alarms": false_alarms,
            "found_marked": len(found),
            "peak_in_mask": sum(found),
        }

    def record_as(self, name: str, recorder: Recorder) -> dict[str, float | None]:
        """Make measures of the quality, and return it by `FIGURES` for a record's table: None where undefined."""
        values = {metric: getattr(self.quality, metric) for metric in FIGURES}
        figures = {metric: None if math.isnan(value) else round(value, 6) for metric, value in values.items()}
        for metric, value in figures.items():
            if value is not None:
                recorder.measure(f"{name} {metric}", [100 * value], unit="%", better="higher")
        return figures


def judge(inspector: Inspector, pictures: LabelledSet, *, input_size: Size, seen: SeenPictures | None = None) -> Judged:
    """Have all pictures inspected; of each the map as it is answered is kept.

    Args:
        seen: is shown the good ones.
    Raises:
        ImageError, EngineError: for one that cannot be inspected.
    """
    meter, answers, peaks = QualityMeter(), [], []
    for picture in read_with_progress(pictures.samples):
        if seen is not None and picture.label == GOOD:
            seen.add(digest_of(picture.image), name=picture.name)
        answer = inspector.inspect(picture.image)
        size = (picture.image.shape[0], picture.image.shape[1])
        meter.add(answer, label=picture.label, size=size, mask=picture.mask)
        answers.append(answer)
        peaks.append(peak_in_mask(answer.anomaly_map, picture.mask, input_size=input_size))
    quality = meter.quality()
    assert quality is not None  # all were answered
    return Judged(tuple(answers), quality, tuple(peaks))


@dataclass(frozen=True)
class EngineInspector:
    """An engine as the camera program runs it; the name is the library's, such as `openvino`."""

    name: str
    detector: Detector

    def inspect(self, image: Image) -> Answer:
        anomaly = self.detector.inspect(image)
        return Answer(anomaly.network_map, anomaly.score)


@contextmanager
def open_inspector(path: Path, *, backend: BackendChoice = "auto") -> Iterator[EngineInspector]:
    """Open an engine as the runtime does; see `runtime.backends.open_engine` for what is raised."""
    runner, sidecar = open_engine(path, backend=backend)
    with Detector(runner, sidecar=sidecar, threshold=sidecar.spec.require_threshold()) as detector:
        yield EngineInspector(runner.name, detector)


def drift_between(reference: Judged, found: Judged, *, name: str) -> dict[str, Any]:
    """How far answers are from those of a reference, `name`, on the same pictures, by the figures of `export verify`.

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
    "--reference",
    type=PATH,
    help="Checkpoint or fp32 graph that drift is from.  [default: the first engine of a network]",
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
    files = Counter(path.name for path in engines)
    given = [
        (f"{path.name if files[path.name] == 1 else path}{f' on {backend}' if backends[1:] else ''}", path, backend)
        for path in engines
        for backend in backends
    ]
    require_different(name for name, _, _ in given)
    with recording("accuracy", json_path) as recorder:
        for _, path, backend in given:  # all that can go wrong does so before minutes of work
            with open_inspector(path, backend=backend) as opened:
                warn_unless_verified(path, opened.detector.sidecar)
            if reference is not None:
                with _open_reference(reference, path, opened.detector.spec):
                    pass
        _judge_all(given, reference, pictures, recorder)
    click.echo(to_text(recorder.record(is_complete=True), "accuracy"))
    for row in recorder.details["engines"]:
        if row["threshold"] is not None:
            click.echo(
                f"{row['name']}: {row['missed']} of {pictures.defective} defective pictures missed and "
                f"{row['false_alarms']} of {pictures.good} good ones called anomalous at {row['threshold']:.4g}"
            )
            if row["found_marked"]:
                click.echo(
                    f"{row['name']}: {row['peak_in_mask']} of {row['found_marked']} found ones with a mask have "
                    "the peak of their map in it, the others were found for something else"
                )
        if row["drift"] is not None:
            moved = {AREAS[name]: row["drift"][name] for name in DRIFTING if row["drift"][name] is not None}
            said = ", ".join(f"{title} {points:+.3f}" for title, points in moved.items())
            click.echo(f"{row['name']}: {said} points from {row['drift']['reference']}")


@contextmanager
def _open_reference(reference: Path, engine: Path, spec: ModelSpec) -> Iterator[Inspector]:
    """Raises as `export.gate.inspectors.open_reference`; of another network's engine with both names."""
    from export.gate.inspectors import open_reference  # needs onnx, which a Jetson that runs engines has not

    try:
        with open_reference(reference, spec=spec) as opened:
            yield opened.inspector
    except VerificationError as error:
        raise VerificationError(f"{engine}: {error}") from None


def _judge_all(
    engines: Sequence[tuple[str, Path, BackendChoice]],
    reference: Path | None,
    pictures: LabelledSet,
    recorder: Recorder,
) -> None:
    """Fill the record, which is saved after each. A reference is judged for each network, and size of its frames."""
    rows: list[dict[str, Any]] = []
    recorder.details |= {"data": pictures.words, "images": len(pictures.samples)}
    recorder.details |= {"good": pictures.good, "defective": pictures.defective, "engines": rows}
    origins: dict[tuple[Any, ...], tuple[str, Judged]] = {}
    for name, path, backend in engines:
        sidecar = vouched(path)
        spec, record, threshold = sidecar.spec, sidecar.engine, sidecar.spec.require_threshold()
        network = tuple(getattr(spec, key) for key in NETWORK)
        if reference is not None and network not in origins:
            with _open_reference(reference, path, spec) as inspector:
                judged = judge(inspector, pictures, input_size=spec.input_size)
            resizing = "" if spec.frame_size is None else " with frames of {} x {}".format(*spec.frame_size)
            origin = f"{reference.name}{resizing}"
            origins[network] = origin, judged
            library = "onnxruntime" if reference.suffix == ".onnx" else "pytorch"
            rows.append(
                {
                    **{"name": origin, "library": library, "precision": "fp32", "input_size": list(spec.input_size)},
                    **dict.fromkeys(("verified", "threshold", "drift", "missed", "false_alarms")),
                    **dict.fromkeys(("found_marked", "peak_in_mask")),
                    **judged.record_as(origin, recorder),
                }
            )
            recorder.save()
        seen = SeenPictures(spec)
        with open_inspector(path, backend=backend) as opened:
            judged = judge(opened, pictures, input_size=spec.input_size, seen=seen)
        seen.warn(name)
        origin, wanted = origins.setdefault(network, (name, judged))
        rows.append(
            {
                "name": name,
                "library": opened.name,
                "precision": record.precision,
                "input_size": list(spec.input_size),
                "verified": None if record.gate is None else record.gate.verified,
                "threshold": threshold.value,
                "drift": None if wanted is judged else drift_between(wanted, judged, name=origin),
                **judged.mistakes(pictures, threshold),
                **judged.record_as(name, recorder),
            }
        )
        recorder.save()


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
