"""Our network beside what people would use instead: accuracy with intervals, latency, size, on the same pictures.

    python -m benchmarks.peers --data mvtec --category bottle --textures dtd/images \
        --checkpoint runs/bottle/model.safetensors --engine bottle.xml --models kept/

Gabor filters with nearest neighbours, which learn nothing, are the bar; the other methods are anomalib's, which wants
an environment of its own. Each is trained on the good pictures for `--minutes`, unless `--models` has it; its row tells
how far it came. All are judged by one meter at the pictures' resolution and timed in turns, from pixels in memory to
map and score. Several checkpoints are taken for seeds of one recipe, whose mean is given. A method that fails says so
in its row and does not stop the others; the exit code is 1 then.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import anomalib_methods
from benchmarks.accuracy import open_inspector
from benchmarks.anomalib_methods import BACKBONES, METHODS, AnomalibInspector, Backbone, Recipe
from benchmarks.gabor import GaborMemory
from benchmarks.intervals import METRICS, Judged, Resampled, interval, parts_of, resample
from benchmarks.record import Recorder, recording
from benchmarks.tables import PEERS, to_text
from stlm_edge.cli import run
from stlm_edge.datasets import GOOD, Sample, load_category, read_truth, texture_paths
from stlm_edge.errors import ConfigError, DataError, TrainingError
from stlm_edge.imaging import Image, read_image, resize_map, to_input
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.measure import TOTAL, Schedule, Subject, measure
from stlm_edge.metrics import ALL
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.sidecar import Sidecar, weights_of

PATH = click.Path(path_type=Path)
BAR = "gabor"
TIMED = 16
"""Test pictures that are timed, in turn; each process holds them in memory."""

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
    loaded = load_category(data, category)
    good = sum(sample.label == GOOD for sample in loaded.test)
    if good in (0, len(loaded.test)):
        raise DataError(f"found {good} good and {len(loaded.test) - good} defective pictures, expected some of both")
    parts = parts_of([sample.path for sample in loaded.test], root=data / (category or ""), tiles=tiles)
    chosen = [name for name in METHODS if name in names]
    needing = [name for name in chosen if METHODS[name].needs_textures]
    if needing and textures is None:
        raise ConfigError(f"{' and '.join(needing)} train with pictures of other things; give --textures, such as DTD")
    other = texture_paths(textures) if textures is not None else []
    if chosen:
        anomalib_methods.require_anomalib()
    pictures = [sample.path for sample in loaded.train]
    with tempfile.TemporaryDirectory() as scratch, recording("peers", json_path) as recorder:
        recorder.details["data"] = f"{loaded.name}: {len(pictures)} good pictures to train, {len(loaded.test)} to test"
        comparison = Comparison(loaded.test, parts, recorder, resamples=resamples, seed=seed)
        if BAR in names:
            start_s = time.perf_counter()
            memory = GaborMemory.of(pictures, seed=seed)
            minutes_taken = (time.perf_counter() - start_s) / 60
            facts = {"name": memory.name, "library": "OpenCV, NumPy", "train_minutes": minutes_taken}
            comparison.add(facts | {"model_mb": memory.patches.nbytes / 1e6}, partial(nullcontext, memory))
        if checkpoints:
            comparison.add(about_network(checkpoints), *(partial(open_network, path) for path in checkpoints))
        for path in engines:
            comparison.add(about_engine(path, checkpoints), partial(open_inspector, path))
        for name in chosen:
            share = coreset if name == "patchcore" else None
            recipe = Recipe(name, backbone, image_size, share, seed, anomalib_methods.digest(pictures))
            output = (models or Path(scratch)) / name
            facts = about_method(recipe)
            try:
                kept = anomalib_methods.fitted(recipe, pictures, other, minutes=minutes, output=output)
                comparison.add(facts | about_fit(recipe, kept), partial(open_kept, output, facts["name"]))
            except Exception as error:  # whatever a library raises: the other methods go on
                comparison.fail(facts, f"failed: {' '.join(f'{type(error).__name__}: {error}'.split())}")
        comparison.time(Schedule(turns=turns, runs=runs))
        for line in (*to_text(PEERS, recorder.record(is_complete=True)), *interval_lines(comparison.rows)):
            click.echo(line)
        if comparison.failed:
            raise TrainingError(f"{' and '.join(comparison.failed)} failed, for the reasons that stand in their rows")


class Comparison:
    """What there is so far, and where it is written.

    Attributes:
        rows: as `benchmarks.tables.PEERS` takes them, with intervals by kind of defect, and of the gain over the bar.
        failed: names of what could not be trained or asked.
    """

    def __init__(
        self, samples: Sequence[Sample], parts: Sequence[str], recorder: Recorder, *, resamples: int, seed: int
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self._samples, self._parts, self._recorder = samples, parts, recorder
        self._resample = partial(resample, resamples=resamples, seed=seed)
        self._bar: dict[str, Resampled] | None = None
        self._subjects: list[Subject] = []
        recorder.details["methods"] = self.rows

    def add(self, facts: Mapping[str, Any], *openers: Open) -> None:
        """Judge something, on several seeds where there are several openers, of which the first is timed later."""
        found = [self._resample(list(self._judge(opener))) for opener in openers]
        kinds = {kind: estimates([one[kind] for one in found]) for kind in found[0]}
        row = {**_UNKNOWN, **facts, **{metric: _rounded(kinds[ALL][metric]["value"]) for metric in METRICS}}
        row["kinds"] = kinds
        if self._bar is not None:
            bar = self._bar
            row["gain"] = {kind: estimates([one[kind] for one in found], minus=bar[kind]) for kind in bar}
        elif facts["name"] == GaborMemory.name:
            self._bar = found[0]
        self.rows.append(row)
        paths = [sample.path for sample in self._samples[:: -(-len(self._samples) // TIMED)]]
        self._subjects.append(Subject(str(facts["name"]), partial(open_timed, openers[0], paths)))
        for metric in METRICS:
            if row[metric] is not None:
                self._recorder.measure(f"{facts['name']} {metric}", [100 * row[metric]], unit="%", better="higher")
        self._recorder.save()

    def fail(self, facts: Mapping[str, Any], reason: str) -> None:
        """Write down what could not be added."""
        click.echo(f"{facts['name']} {reason}", err=True)
        self.failed.append(str(facts["name"]))
        self.rows.append({**_UNKNOWN, **facts, "note": reason})

    def time(self, schedule: Schedule) -> None:
        """Time all that was judged, in turns. Raises `EngineError`, if one of them fails."""
        rows = {row["name"]: row for row in self.rows}
        for one in measure(self._subjects, schedule):
            p50, p95 = np.quantile(one.pooled(), (0.5, 0.95))
            rows[one.name] |= {"p50_ms": float(p50), "p95_ms": float(p95), "running_mb": one.running_mb}
            self._recorder.measure(f"{one.name} total p50", one.quantiles(0.5), unit="ms", better="lower")

    def _judge(self, opener: Open) -> Iterator[Judged]:
        with opener() as inspector:
            for sample, part in zip(self._samples, self._parts, strict=True):
                image = read_image(sample.path)
                size = (image.shape[0], image.shape[1])
                answer = inspector.inspect(image)
                full = Answer(resize_map(answer.anomaly_map, size), answer.score)
                yield Judged(sample.label, part, full, read_truth(sample, size=size))


_AREAS = ("backbone", "pretrained", "input_size", "parameters", "train_minutes", "model_mb", *METRICS)
_UNKNOWN: dict[str, Any] = dict.fromkeys((*_AREAS, "p50_ms", "p95_ms", "running_mb")) | {"note": ""}


def estimates(found: Sequence[Resampled], *, minus: Resampled | None = None) -> dict[str, dict[str, float | None]]:
    """The mean over seeds of each metric with its interval over parts, and its deviation over seeds; None if undefined.

    Args:
        minus: of the same pictures; then it is of the difference, which is known better than either figure.
    """
    entries = {}
    for metric in METRICS:
        values = np.array([one.exact[metric] for one in found])
        draws = np.mean([one.draws[metric] for one in found], axis=0)
        value = float(values.mean())
        if minus is not None:
            value, draws = value - minus.exact[metric], draws - minus.draws[metric]
        low, high = interval(draws)
        spread = float(values.std(ddof=1)) if len(found) > 1 else math.nan
        entry = {"value": value, "low": low, "high": high, "spread": spread}
        entries[metric] = {name: _rounded(figure) for name, figure in entry.items()}
    return entries


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)


def interval_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """For people: the figures of each kind of defect with their intervals, and the gain over the bar."""
    for row in rows:
        for title, signed, by_kind in ((row["name"], "", row.get("kinds", {})), ("gain", "+", row.get("gain", {}))):
            for kind, entry in by_kind.items():
                cells = [
                    f"{metric} {100 * e['value']:{signed}.1f} "
                    f"[{100 * e['low']:{signed}.1f}, {100 * e['high']:{signed}.1f}]"
                    + ("" if e["spread"] is None or signed else f" ± {100 * e['spread']:.1f}")
                    for metric, e in entry.items()
                    if None not in (e["value"], e["low"], e["high"])
                ]
                yield f"{title}, {kind}: {', '.join(cells) or 'undefined'}"


class Timing:
    """An opened method with its pictures."""

    def __init__(self, inspector: Inspector, paths: Sequence[Path]) -> None:
        self.facts: dict[str, Any] = {}
        self._inspector, self._pictures = inspector, [read_image(path) for path in paths]

    def run(self, index: int) -> Mapping[str, float]:
        """From its pixels to map and score."""
        image, start_s = self._pictures[index % len(self._pictures)], time.perf_counter()
        self._inspector.inspect(image)
        return {TOTAL: 1e3 * (time.perf_counter() - start_s)}


@contextmanager
def open_timed(opener: Open, paths: Sequence[Path]) -> Iterator[Timing]:
    """Raises what `opener` raises."""
    with opener() as inspector:
        yield Timing(inspector, paths)


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
def open_network(path: Path) -> Iterator[NetworkInspector]:
    """Raises `CheckpointError`."""
    yield NetworkInspector(path)


@contextmanager
def open_kept(output: Path, name: str) -> Iterator[AnomalibInspector]:
    """The model that `anomalib_methods.fitted` keeps."""
    yield AnomalibInspector(output, name)


def about_network(paths: Sequence[Path]) -> dict[str, Any]:
    """Facts of a row, of checkpoints of one recipe. Raises `CheckpointError`."""
    loaded = load(paths[0])
    initial = loaded.config.get("initial_weights")
    return {
        "name": NetworkInspector.name,
        "library": "PyTorch",
        "backbone": loaded.spec.architecture,
        "pretrained": None if initial in (None, "random") else str(initial),
        "input_size": list(loaded.spec.input_size),
        "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
        "model_mb": paths[0].stat().st_size / 1e6,
        "note": f"the mean of {len(paths)} trainings" if paths[1:] else "",
    }


def about_engine(path: Path, checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Facts of a row; what only the checkpoint knows if it is among those given. Raises `SpecError`."""
    sidecar = Sidecar.read(path)
    record, spec = sidecar.engine, sidecar.spec
    made_from = [one for one in checkpoints if load(one).spec.weights_sha256 == spec.weights_sha256]
    known = {name: about_network(made_from)[name] for name in ("parameters", "pretrained")} if made_from else {}
    return {
        "name": f"STLM ({path.name}, {record.precision})",
        "library": f"{record.product} {record.version.split('-')[0]}",
        "backbone": spec.architecture,
        "input_size": list(spec.input_size),
        "model_mb": sum(file.stat().st_size for file in (path, weights_of(path)) if file is not None) / 1e6,
        **known,
    }


def about_method(recipe: Recipe) -> dict[str, Any]:
    """Facts of a row before the training."""
    method = METHODS[recipe.method]
    backbone, pretrained = method.start(recipe.backbone)
    return {
        "name": method.title,
        "library": "anomalib",
        "backbone": backbone,
        "pretrained": pretrained,
        "input_size": [recipe.image_size] * 2,
    }


def about_fit(recipe: Recipe, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a row after the training, with what its figures must be read with."""
    method = METHODS[recipe.method]
    notes = []
    if recipe.method == "efficientad":
        notes.append("textures in place of ImageNette")
    if recipe.backbone != "published" and method.start(recipe.backbone)[1] is None and recipe.method != "draem":
        notes.append("it starts from random weights, so its accuracy means little")
    if method.epochs != 1:
        far = f" of {method.steps}" if method.epochs < 0 else f", to epoch {kept['epochs']} of {method.epochs}"
        notes.append(f"{kept['steps']} steps{far}")
    if recipe.coreset is not None:
        notes.append(f"remembers {100 * recipe.coreset:g} % of the patches")
    return {
        "library": f"anomalib {kept['anomalib']}, PyTorch",
        "parameters": kept["parameters"],
        "train_minutes": kept["minutes"],
        "model_mb": kept["model_mb"],
        "note": "; ".join(notes),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
