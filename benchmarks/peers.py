"""Our network beside what people would use instead: accuracy with intervals, latency, size, on the same pictures.

    python -m benchmarks.peers --data mvtec --category bottle --textures dtd/images \
        --checkpoint runs/bottle/model.safetensors --engine bottle.xml --models kept/

Gabor filters with nearest neighbours, which learn nothing, are the bar; the other methods are anomalib's, which wants
an environment of its own. Each is trained on the good pictures for `--minutes`, unless `--models` has it; its row tells
how far it came. All are judged by one meter at the pictures' resolution and timed in turns, from pixels in memory to
map and score. One that fails says so in its row and does not stop the others; the exit code is 1 then.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.accuracy import open_inspector
from benchmarks.anomalib_methods import BACKBONES, METHODS, AnomalibInspector, Backbone, Recipe, fitted, kept_in
from benchmarks.gabor import GaborMemory
from benchmarks.intervals import METRICS, Judged, Resampled, interval, parts_of, resample
from benchmarks.record import Recorder, recording
from benchmarks.tables import INTERVALS, PEERS, to_text
from stlm_edge.cli import run
from stlm_edge.datasets import GOOD, Sample, load_category, read_truth, texture_paths
from stlm_edge.errors import ConfigError, DataError, TrainingError
from stlm_edge.imaging import Image, read_image, resize_map, to_input
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.measure import TOTAL, Schedule, Subject, measure
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.sidecar import Sidecar, weights_of

PATH = click.Path(path_type=Path)
BAR = "gabor"
TIMED = 16
"""Test pictures that are timed, in turn; each process holds them in memory."""

INSTALL = (
    "python -m venv .peers && .peers/bin/pip install -c constraints.txt -e '.[train,export,openvino]' "
    "-r benchmarks/requirements-peers.txt && .peers/bin/pip install --force-reinstall --no-deps opencv-python"
)
"""The last step, since anomalib brings another OpenCV that overwrites ours."""

Open = Callable[[], AbstractContextManager[Inspector]]
"""Picklable, to be opened in another process too."""


@click.command()
@click.option("--data", required=True, type=PATH, help="Data set, in any layout that 'train fit' knows.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option("--tiles", type=PATH, help="CSV with columns file, tile: pictures of one tile belong together.  [alone]")
@click.option("--method", "names", multiple=True, default=(BAR, *METHODS), type=click.Choice((BAR, *METHODS)))
@click.option("--checkpoint", "checkpoints", multiple=True, type=PATH, help="Our network, as trained; repeatable.")
@click.option("--engine", "engines", multiple=True, type=PATH, help="Our network, as deployed; repeatable.")
@click.option(
    "--backbone",
    default="published",
    show_default=True,
    type=click.Choice(BACKBONES),
    help="What methods start from: the weights that timm and the authors publish; EfficientNet-Lite0 with ImageNet "
    "weights from a package, where a method can take it; or random weights.",
)
@click.option("--textures", type=PATH, help="Pictures of other things, such as DTD, for efficientad and draem.")
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Per method.")
@click.option("--coreset", default=0.1, show_default=True, type=click.FloatRange(0, 1, min_open=True))
@click.option("--image-size", default=256, show_default=True, type=click.IntRange(64), help="Side of their input.")
@click.option("--seed", default=0, show_default=True, help="Of the trainings, and of the intervals' draws.")
@click.option("--models", type=PATH, help="Keep trained models there, and take those that are there.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Draws of the intervals.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1), help="Turns of each.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Pictures that count in a turn.")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    data: Path,
    category: str | None,
    tiles: Path | None,
    names: tuple[str, ...],
    checkpoints: tuple[Path, ...],
    engines: tuple[Path, ...],
    backbone: Backbone,
    textures: Path | None,
    minutes: float,
    coreset: float,
    image_size: int,
    seed: int,
    models: Path | None,
    resamples: int,
    turns: int,
    runs: int,
    json_path: Path | None,
) -> None:
    """Train, judge and time the methods on one category, and our network beside them. --coreset is the share of all
    patches that patchcore remembers; choosing them takes hours on a slow machine."""
    loaded, chosen = load_category(data, category), [name for name in METHODS if name in names]
    other = texture_paths(textures) if textures is not None else []
    require_possible(loaded.test, chosen, textures)
    parts = parts_of([sample.path for sample in loaded.test], root=data / (category or ""), tiles=tiles)
    pictures = [sample.path for sample in loaded.train]
    with tempfile.TemporaryDirectory() as scratch, recording("peers", json_path) as recorder:
        rows: list[dict[str, Any]] = []
        openers: dict[str, Open] = {}
        bar: Figures = {}

        def add(facts: Mapping[str, Any], opener: Open) -> None:
            if facts["name"] in openers:
                raise ConfigError(f"{facts['name']} is given twice, expected each name once; rename a file")
            found = resample(list(judge(opener, loaded.test, parts)), resamples=resamples, seed=seed)
            rows.append(row_of(facts, found, bar))
            openers[facts["name"]] = opener
            for metric in METRICS:
                if (value := rows[-1][metric]) is not None:
                    recorder.measure(f"{facts['name']} {metric}", [100 * value], unit="%", better="higher")
            recorder.save()
            if facts["name"] == GaborMemory.name:
                bar.update(found)

        data_words = f"{loaded.name}: {len(pictures)} good pictures to train, {len(loaded.test)} to test"
        recorder.details |= {"data": data_words, "methods": rows}
        if BAR in names:
            start_s = time.perf_counter()
            memory = GaborMemory.of(pictures, seed=seed)
            facts = {"name": memory.name, "library": "OpenCV", "model_mb": memory.patches.nbytes / 1e6}
            add(
                facts | {"train_minutes": (time.perf_counter() - start_s) / 60},
                partial(opened, GaborMemory, memory.mean, memory.deviation, memory.patches),
            )
        for path in checkpoints:
            add(about_network(path), partial(opened, NetworkInspector, path))
        for path in engines:
            add(about_engine(path), partial(open_inspector, path))
        failed = []
        for name in chosen:
            recipe = Recipe(name, backbone, image_size, seed, coreset if name == "patchcore" else None)
            output = kept_in(models or Path(scratch), recipe, pictures)
            try:
                known = fitted(recipe, pictures, other, minutes=minutes, output=output)
                add(known, partial(opened, AnomalibInspector, output, known["name"]))
            except Exception as error:  # whatever a library raises: the other methods go on
                failed.append(METHODS[name].title)
                note = f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())}"
                click.echo(f"{METHODS[name].title} {note}", err=True)
                rows.append(row_of(recipe.facts() | {"note": note}, {}, bar))
        time_all(openers, loaded.test, rows, recorder, Schedule(turns=turns, runs=runs))
        record = recorder.record(is_complete=not failed)
        for line in (*to_text(PEERS, record), "", *to_text(INTERVALS, record)):
            click.echo(line)
        if failed:
            raise TrainingError(f"{' and '.join(failed)} failed, for the reasons that stand in their rows")


Figures = dict[str, Resampled]
"""By kind of defect."""


def require_possible(samples: Sequence[Sample], chosen: Sequence[str], textures: Path | None) -> None:
    """Raises `StlmError`, where minutes of work would come to nothing."""
    good = sum(sample.label == GOOD for sample in samples)
    if good in (0, len(samples)):
        raise DataError(f"found {good} good and {len(samples) - good} defective pictures, expected some of both")
    if needing := [name for name in chosen if METHODS[name].needs_textures and textures is None]:
        raise ConfigError(f"{' and '.join(needing)} train with pictures of other things; give --textures, such as DTD")
    if chosen and importlib.util.find_spec("anomalib") is None:
        raise ConfigError(f"anomalib is not installed here; it wants an environment of its own: {INSTALL}")


def judge(opener: Open, samples: Sequence[Sample], parts: Sequence[str]) -> Iterator[Judged]:
    """What an inspector says of each picture. Raises `StlmError`."""
    with opener() as inspector:
        for sample, part in zip(samples, parts, strict=True):
            image = read_image(sample.path)
            size, answer = (image.shape[0], image.shape[1]), inspector.inspect(image)
            full = Answer(resize_map(answer.anomaly_map, size), answer.score)
            yield Judged(sample.label, part, full, read_truth(sample, size=size))


def time_all(
    openers: Mapping[str, Open],
    samples: Sequence[Sample],
    rows: Sequence[dict[str, Any]],
    recorder: Recorder,
    schedule: Schedule,
) -> None:
    """Time everything in turns and complete its rows. Raises `EngineError` if one fails."""
    by_name, paths = {row["name"]: row for row in rows}, [sample.path for sample in samples]
    timed = paths[:: -(-len(paths) // TIMED)]
    subjects = [Subject(name, partial(open_timing, opener, timed)) for name, opener in openers.items()]
    for one in measure(subjects, schedule):
        p50, p95 = np.quantile(one.pooled(), (0.5, 0.95))
        by_name[one.name] |= {"p50_ms": float(p50), "p95_ms": float(p95), "running_mb": one.running_mb}
        recorder.measure(f"{one.name} total p50", one.quantiles(0.5), unit="ms", better="lower")


def row_of(facts: Mapping[str, Any], found: Figures, bar: Figures) -> dict[str, Any]:
    """As `benchmarks.tables.PEERS` takes it, with intervals by kind of defect, and of the gain over the bar."""
    names = ("backbone", "pretrained", "input_size", "parameters", "train_minutes", "model_mb", *METRICS)
    row = {**dict.fromkeys((*names, "p50_ms", "p95_ms", "running_mb")), "note": "", **facts}
    row["kinds"] = {kind: estimates(one) for kind, one in found.items()}
    row |= {metric: entry["value"] for metric, entry in row["kinds"].get("all", {}).items()}
    row["gain"] = {kind: estimates(found[kind], minus=one) for kind, one in bar.items() if kind in found}
    return row


def estimates(found: Resampled, *, minus: Resampled | None = None) -> dict[str, dict[str, float | None]]:
    """Each metric with its interval over parts; None where undefined.

    Args:
        minus: of the same pictures; then it is of the difference, which is known better than either figure.
    """
    entries = {}
    for metric in METRICS:
        value, draws = found.exact[metric], found.draws[metric]
        if minus is not None:
            value, draws = value - minus.exact[metric], draws - minus.draws[metric]
        figures = zip(("value", "low", "high"), (value, *interval(draws)), strict=True)
        entries[metric] = {name: None if math.isnan(figure) else round(figure, 4) for name, figure in figures}
    return entries


@dataclass(frozen=True)
class Timing:
    """An opened method with its pictures."""

    inspector: Inspector
    pictures: Sequence[Image]
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self, index: int) -> Mapping[str, float]:
        """From its pixels to map and score."""
        image, start_s = self.pictures[index % len(self.pictures)], time.perf_counter()
        self.inspector.inspect(image)
        return {TOTAL: 1e3 * (time.perf_counter() - start_s)}


@contextmanager
def open_timing(opener: Open, paths: Sequence[Path]) -> Iterator[Timing]:
    """Raises what `opener` raises."""
    with opener() as inspector:
        yield Timing(inspector, [read_image(path) for path in paths])


class NetworkInspector:
    """Our network in eager PyTorch."""

    name = "STLM (PyTorch)"

    def __init__(self, path: Path) -> None:
        loaded, self._device = load(path), choose_device("auto")
        self._path = InferencePath(loaded.network, loaded.spec).eval().to(self._device)

    def inspect(self, image: Image) -> Answer:
        pixels = torch.from_numpy(to_input(image, spec=self._path.spec))
        with torch.inference_mode():
            anomaly_map, score = self._path(pixels.to(self._device))
        return Answer(np.asarray(anomaly_map[0].cpu().numpy(), np.float32), float(score))


@contextmanager
def opened(make: Callable[..., Inspector], *arguments: Any) -> Iterator[Inspector]:
    """What only has to be made. Raises what `make` raises."""
    yield make(*arguments)


def about_network(path: Path) -> dict[str, Any]:
    """Facts of a checkpoint's row. Raises `CheckpointError`."""
    loaded = load(path)
    initial = loaded.config.get("initial_weights")
    return {
        "name": f"STLM ({path.parent.name}/{path.name})",
        "library": "PyTorch",
        "backbone": loaded.spec.architecture,
        "pretrained": None if initial in (None, "random") else str(initial),
        "input_size": list(loaded.spec.input_size),
        "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
        "model_mb": path.stat().st_size / 1e6,
    }


def about_engine(path: Path) -> dict[str, Any]:
    """Facts of an engine's row. Raises `SpecError`."""
    sidecar = Sidecar.read(path)
    record = sidecar.engine
    return {
        "name": f"STLM ({path.name}, {record.precision})",
        "library": f"{record.product} {record.version.split('-')[0]}",
        "backbone": sidecar.spec.architecture,
        "input_size": list(sidecar.spec.input_size),
        "model_mb": sum(file.stat().st_size for file in (path, weights_of(path)) if file is not None) / 1e6,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
