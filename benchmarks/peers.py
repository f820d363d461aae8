"""Our network beside what people would use instead: accuracy with intervals, latency, size, on the same pictures.

    python -m benchmarks.peers --data mvtec --category bottle --textures dtd/images \
        --checkpoint runs/bottle/model.safetensors --engine bottle.xml --models kept/

One of them is the bar that gains are over: Gabor filters with nearest neighbours, which learn nothing, or what `--bar`
says. Other methods are anomalib's, which wants an environment of its own. All are judged by one meter at the pictures'
resolution and timed in turns, from pixels in memory to map and score. Of a folder of several seeds the figures are
means over the seeds. One that fails says so in its row and does not stop the others; the exit code is 1 then.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.accuracy import labelled_set, open_inspector
from benchmarks.anomalib_methods import BACKBONES, METHODS, AnomalibInspector, Backbone, Recipe, fitted, kept_in
from benchmarks.cells import AREAS
from benchmarks.gabor import GaborMemory
from benchmarks.intervals import Resampled, mean_of, parts_of, resample
from benchmarks.record import recording
from benchmarks.subjects import require_different
from benchmarks.tables import to_text
from export.gate.network import NetworkInspector
from stlm_edge.cli import Number, run
from stlm_edge.datasets import GOOD, Sample, load_category, read_truth, texture_paths
from stlm_edge.errors import ConfigError, DataError, TrainingError
from stlm_edge.imaging import read_image, resize_map
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.measure import Schedule, Subject, Work, measure
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.resampling import Judged
from stlm_edge.sidecar import Sidecar, weights_of
from train.seeds import find_seeds

PATH = click.Path(path_type=Path)
BAR = "gabor"
FALSE_ALARMS = 0.05
"""Share of the good test pictures at whose score the methods' missed defects are compared: most have no threshold."""
TIMED = 16
"""Test pictures that are timed, in turn; each process holds them in memory."""

Facts = dict[str, Any]
"""Of a row of the table."""
Open = Callable[[], AbstractContextManager[Inspector]]
"""Picklable, to be opened in another process too."""


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        method: as `--method` names it; empty for ours.
        about: trains it, where it is not yet, and gives its facts.
        openers: of the runs with each seed.
        thresholds: of each run; none where a method has no threshold.
    """

    method: str
    name: str
    about: Callable[[], Facts]
    openers: tuple[Open, ...]
    thresholds: tuple[float, ...] = ()

    def judged(
        self, samples: Sequence[Sample], parts: Sequence[str], *, seed: int
    ) -> tuple[dict[str, Resampled], Facts]:
        """Figures, means over the runs, and what their thresholds make of the pictures. Raises `StlmError`.

        Draws are the same for each run, so those of the mean are of the same parts, and its interval is over parts.
        """
        runs, missed, counts = [], [], []
        for opener, threshold in zip_longest(self.openers, self.thresholds):
            pictures = list(judge(opener, samples, parts))
            runs.append(resample(pictures, seed=seed))
            good, bad = (
                np.array([picture.answer.score for picture in pictures if (picture.kind == GOOD) is wanted])
                for wanted in (True, False)
            )
            missed.append(float(np.mean(bad < np.quantile(good, 1 - FALSE_ALARMS, method="higher"))))
            if threshold is not None:
                counts.append((int(np.count_nonzero(bad < threshold)), int(np.count_nonzero(good >= threshold))))
        facts: Facts = {"missed_share": float(np.mean(missed))}
        if counts:
            not_found, alarms = (", ".join(map(str, column)) for column in zip(*counts, strict=True))
            seeds = f"mean of {len(runs)} seeds; " if len(runs) > 1 else ""
            facts["note"] = (
                f"{seeds}at its threshold {not_found} of {len(bad)} missed, {alarms} of {len(good)} false alarms"
            )
        return {kind: mean_of([run[kind] for run in runs]) for kind in runs[0]}, facts


@click.command()
@click.option("--data", required=True, type=PATH, help="Data set, in any layout that 'train fit' knows.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option(
    "--tiles",
    type=PATH,
    help="CSV with columns picture, part (or file, tile): pictures of one part belong together.  [alone]",
)
@click.option("--method", "names", multiple=True, default=(BAR, *METHODS), type=click.Choice((BAR, *METHODS)))
@click.option("--bar", default=BAR, show_default=True, type=click.Choice((BAR, *METHODS)), help="What gains are over.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=PATH,
    help="Our network, as trained, or a folder of 'train fit --seeds'; repeatable.",
)
@click.option("--engine", "engines", multiple=True, type=PATH, help="Our network, as deployed; repeatable.")
@click.option(
    "--backbone", default="published", show_default=True, type=click.Choice(BACKBONES), help="Of the methods."
)
@click.option("--textures", type=PATH, help="Pictures of other things, such as DTD, for efficientad and draem.")
@click.option("--minutes", default=30.0, show_default=True, type=Number(0, min_open=True), help="Per method.")
@click.option("--coreset", default=0.1, show_default=True, type=Number(0, 1, min_open=True))
@click.option("--image-size", default=256, show_default=True, type=click.IntRange(64), help="Side of their input.")
@click.option("--seed", default=0, show_default=True, help="Of the trainings, and of the intervals' draws.")
@click.option("--models", type=PATH, help="Keep trained models there, and take those that are there.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1), help="Turns of each.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Pictures that count in a turn.")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    data: Path,
    category: str | None,
    tiles: Path | None,
    names: tuple[str, ...],
    bar: str,
    checkpoints: tuple[Path, ...],
    engines: tuple[Path, ...],
    backbone: Backbone,
    textures: Path | None,
    minutes: float,
    coreset: float,
    image_size: int,
    seed: int,
    models: Path | None,
    turns: int,
    runs: int,
    json_path: Path | None,
) -> None:
    """Train, judge and time the methods on one category, and our network beside them.

    --backbone published is anomalib's own, with weights that timm downloads; efficientnet-lite0 has ImageNet weights
    from a package, where a method can take it; random is enough for latency. --coreset is the share of all patches
    that patchcore remembers; choosing them takes hours on a slow machine.
    """
    chosen = [name for name in METHODS if name in names]
    if needing := [name for name in chosen if METHODS[name].needs_textures and textures is None]:
        raise ConfigError(f"{' and '.join(needing)} train with pictures of other things; give --textures, such as DTD")
    test, other = labelled_set(data, category).samples, [] if textures is None else texture_paths(textures)
    _require_masks(test)
    if chosen and importlib.util.find_spec("anomalib") is None:
        raise ConfigError("anomalib is not installed here; benchmarks/requirements-peers.txt says how to make a place")
    parts = parts_of([sample.path for sample in test], root=data / (category or ""), tiles=tiles)
    loaded, timed = load_category(data, category), [sample.path for sample in test[:: -(-len(test) // TIMED)]]
    pictures = [sample.path for sample in loaded.train]
    peers: list[Peer] = []
    if BAR in names:
        start_s, memory = time.perf_counter(), GaborMemory.of(pictures, seed=seed)
        known = {"train_minutes": (time.perf_counter() - start_s) / 60, "model_mb": memory.patches.nbytes / 1e6}
        again = partial(opened, GaborMemory, memory.mean, memory.deviation, memory.patches)
        peers.append(Peer(BAR, memory.name, lambda: known, (again,)))
    peers += [our_network(path) for path in checkpoints]
    peers += [Peer("", _ours(path), partial(about_engine, path), (partial(open_inspector, path),)) for path in engines]
    with tempfile.TemporaryDirectory() as scratch, recording("peers", json_path) as recorder:
        for name in chosen:
            recipe = Recipe(name, backbone, image_size, seed, coreset if name == "patchcore" else None)
            output = kept_in(models or Path(scratch), recipe, pictures)
            train = partial(fitted, recipe, pictures, other, minutes=minutes, output=output)
            peers.append(Peer(name, METHODS[name].title, train, (partial(opened, AnomalibInspector, output),)))
        require_different(peer.name for peer in peers)
        words = f"{loaded.name}: {len(pictures)} good pictures to train, {len(test)} to test"
        rows: dict[str, Facts] = {}
        subjects, below = [], dict[str, Resampled]()
        for peer in sorted(peers, key=lambda peer: peer.method != bar):  # gains are over the first
            try:
                facts = peer.about()
                found, more = peer.judged(test, parts, seed=seed)
            except Exception as error:  # whatever a library raises: the others go on
                rows[peer.name] = row_of(
                    peer.name, {"note": "failed: " + " ".join(f"{type(error).__name__}: {error}".split())}
                )
            else:
                note = "; ".join(filter(None, (facts.get("note"), more.get("note"))))
                rows[peer.name] = row_of(peer.name, facts | more | {"note": note}, found, below)
                subjects.append(Subject(peer.name, partial(open_timing, peer.openers[0], timed)))
                below |= found if peer.method == bar else {}
            recorder.details |= {"data": words, "bar": bar, "methods": list(rows.values())}
            recorder.save()
        for one in measure(subjects, Schedule(turns=turns, runs=runs)):
            rows[one.name] |= {"p50_ms": one.quantile(0.5), "p95_ms": one.quantile(0.95), "running_mb": one.running_mb}
            recorder.measure(f"{one.name} total p50", one.quantiles(0.5), unit="ms", better="lower")
            for metric in AREAS:
                if (value := rows[one.name][metric]) is not None:
                    recorder.measure(f"{one.name} {metric}", [100 * value], unit="%", better="higher")
        failed = rows.keys() - {subject.name for subject in subjects}
        record = recorder.record(is_complete=not failed)
        click.echo(to_text(record, "peers", "intervals"))
        if failed:
            raise TrainingError(f"{' and '.join(sorted(failed))} failed, for the reasons that stand in their rows")


def _require_masks(samples: Sequence[Sample]) -> None:
    for sample in samples:
        if sample.label != GOOD and sample.mask is None:
            raise DataError(f"{sample.path} has no mask, expected one of each defect: figures over pixels are compared")


def judge(opener: Open, samples: Sequence[Sample], parts: Sequence[str]) -> Iterator[Judged]:
    """What an inspector says of each picture. Raises `StlmError`."""
    with opener() as inspector:
        for sample, part in zip(samples, parts, strict=True):
            image = read_image(sample.path)
            size, answer = (image.shape[0], image.shape[1]), inspector.inspect(image)
            full = Answer(resize_map(answer.anomaly_map, size), answer.score)
            mask = read_truth(sample, size=size)
            assert mask is not None  # the command has looked
            yield Judged(sample.label, part, full, mask)


def row_of(
    name: str, facts: Facts, found: Mapping[str, Resampled] | None = None, bar: Mapping[str, Resampled] | None = None
) -> Facts:
    """With figures by kind of defect, and those of the gain over the bar; both empty where there are none."""
    columns = (
        "backbone",
        "pretrained",
        "input_size",
        "parameters",
        "train_minutes",
        "model_mb",
        "missed_share",
        *AREAS,
    )
    kinds = {kind: estimates(one) for kind, one in (found or {}).items()}
    gain = {kind: estimates(one, minus=bar[kind]) for kind, one in (found or {}).items() if bar}
    overall = {metric: entry["value"] for metric, entry in kinds.get("all", {}).items()}
    blank = dict.fromkeys((*columns, "p50_ms", "p95_ms", "running_mb"))
    return {**blank, "name": name, "note": "", **facts, **overall, "kinds": kinds, "gain": gain}


def estimates(found: Resampled, *, minus: Resampled | None = None) -> dict[str, dict[str, float | None]]:
    """Each metric, or its difference on the same pictures, with a 95 % interval over parts; None where undefined."""
    entries = {}
    for metric in AREAS:
        value, draws = found.exact[metric], found.draws[metric]
        if minus is not None:
            value, draws = value - minus.exact[metric], draws - minus.draws[metric]
        figures = {"value": value, "low": np.quantile(draws, 0.025), "high": np.quantile(draws, 0.975)}
        entries[metric] = {key: None if math.isnan(one) else round(float(one), 4) for key, one in figures.items()}
    return entries


@contextmanager
def open_timing(opener: Open, paths: Sequence[Path]) -> Iterator[Work]:
    """From pixels in memory to map and score. Raises what `opener` raises."""
    with opener() as inspector:
        pictures = [read_image(path) for path in paths]
        yield Work.timed(lambda index: inspector.inspect(pictures[index % len(pictures)]))


@contextmanager
def opened(make: Callable[..., Inspector], *arguments: Any) -> Iterator[Inspector]:
    """What only has to be made. Raises what `make` raises."""
    yield make(*arguments)


def network(path: Path) -> Inspector:
    """Ours in eager PyTorch."""
    loaded = load(path)
    return NetworkInspector(InferencePath(loaded.network, loaded.spec).to(choose_device("auto")))


def our_network(path: Path) -> Peer:
    """A checkpoint, or a folder of several seeds'. Raises `StlmError`."""
    paths = list(find_seeds(path, None).values()) if path.is_dir() else [path]
    thresholds = tuple(load(each).spec.require_threshold().value for each in paths)
    openers = tuple(partial(opened, network, each) for each in paths)
    return Peer(
        "",
        f"STLM ({path.name})" if path.is_dir() else _ours(path),
        partial(about_network, paths[0]),
        openers,
        thresholds,
    )


def about_network(path: Path) -> Facts:
    loaded = load(path)
    stream = loaded.network.design.plain_stream
    learns = stream == "student"
    return {
        "backbone": loaded.spec.architecture if learns else stream,
        "pretrained": loaded.config.get("initial_weights" if learns else "teacher_weights"),
        "input_size": list(loaded.spec.input_size),
        "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
        "model_mb": path.stat().st_size / 1e6,
    }


def about_engine(path: Path) -> Facts:
    sidecar = Sidecar.read(path)
    # A patch memory needs a frozen plain stream, whose name an engine does not tell.
    network = "frozen backbone" if sidecar.spec.memory else sidecar.spec.architecture
    return {
        "backbone": f"{network} in {sidecar.engine.precision}",
        "input_size": list(sidecar.spec.input_size),
        "model_mb": sum(file.stat().st_size for file in (path, weights_of(path)) if file is not None) / 1e6,
    }


def _ours(path: Path) -> str:
    return f"STLM ({'/'.join(filter(None, (path.parent.name, path.name)))})"


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
