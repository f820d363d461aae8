"""How long a training step takes and how fast its pictures are made, beside the authors' straightforward way.

    python -m benchmarks.training --data mvtec --category bottle --textures dtd/images --preset paper \
        --teacher-weights random --initial-weights random

Steps pass through the same batches again and again: the first pass of the toolkit's way asks the teacher about all
pictures, the others find those features on disk. The loader is measured alone, without workers and with `--workers`.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import torch

from benchmarks import authors_training
from benchmarks.record import recording
from benchmarks.tables import to_text
from stlm_edge.cli import run
from stlm_edge.datasets import load_category, texture_paths
from stlm_edge.errors import ConfigError
from stlm_edge.measure import TOTAL, Measured, Schedule, Subject, Work, measure, peak_mb
from stlm_edge.network.inference import choose_device
from stlm_edge.spec import ModelSpec
from train.augment import rotation_for, variation_of
from train.config import TrainConfig
from train.data import Batch, Batches, load_images
from train.distributed import Processes
from train.options import training_options
from train.overrides import with_overrides
from train.pseudo_anomalies.choice import pseudo_anomalies_of
from train.pseudo_anomalies.textures import texture_source
from train.start import build
from train.teaching.teacher import Taught
from train.training import Training, begin
from train.workers import PREFETCHED

PATH = click.Path(path_type=Path)
STRAIGHTFORWARD, OURS = WAYS = ("straightforward", "stlm-edge")
TEACHER = "teacher"
BATCHES = 4
"""Different ones, that steps pass through."""
MADE = 30
"""Batches of a loader in a turn."""
TABLES = {"step": "training", "loader": "loader"}


@click.command()
@click.option("--data", required=True, type=PATH, help="As for 'train fit'.")
@click.option("--category", help="As for 'train fit'.")
@click.option("--textures", type=PATH, help="As for 'train fit'; needed for the straightforward loader.")
@click.option("--preset", default="paper", show_default=True, help="As for 'train fit'.")
@click.option("--part", "parts", multiple=True, default=("step", "loader"), type=click.Choice(list(TABLES)))
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1), help="Turns of each.")
@click.option("--steps", default=4, show_default=True, type=click.IntRange(1), help="Steps in a turn.")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
@training_options
def command(
    data: Path,
    category: str | None,
    textures: Path | None,
    preset: str,
    parts: tuple[str, ...],
    turns: int,
    steps: int,
    json_path: Path | None,
    **settings: Any,
) -> None:
    """Measure seconds per step, peak memory, and pictures made per second; read the ratios first."""
    config = with_overrides(preset, {name: value for name, value in settings.items() if value is not None})
    if config.teacher == "none" or not config.design.has_denoising:
        raise ConfigError(
            "found nothing to distil, expected a teacher and a student, as the authors' way has; add --teacher, such as"
            " stlm-tiny, and a --comparison of two streams"
        )
    schedule = Schedule(turns=turns, runs=steps, settle=0, turn_s=math.inf, loads_apart=False)
    with recording("training", json_path) as recorder, tempfile.TemporaryDirectory() as cache:
        recorder.details |= {"settings": config.to_dict(), "turns": turns, "steps": steps}
        task = Task(config, data, category, textures, cache)
        if "step" in parts:
            found = measure([Subject(way, partial(open_steps, task, way)) for way in WAYS], schedule)
            ratios = [slow / fast for slow, fast in zip(*map(_means, found), strict=True)]
            recorder.details |= {"ratio": median(ratios), "ratios": ratios, "ways": {}}
            for one in found:
                means_s, taught_s = [mean_ms / 1e3 for mean_ms in _means(one)], fmean(one.pooled(TEACHER)) / 1e3
                recorder.measure(f"{one.name} step", means_s, unit="s", better="lower")
                recorder.measure(f"{one.name} memory", [one.facts["memory_gb"]], unit="GB", better="lower")
                recorder.details["ways"][one.name] = one.facts | {"phases_s": {TEACHER: taught_s}}
        if "loader" in parts:
            counts = sorted({0, config.workers})
            ways: dict[str, int | None] = {f"loader, {n} worker{'s' * (n != 1)}": n for n in counts}
            if textures is not None and config.pseudo_anomalies == "perlin":
                ways[f"{STRAIGHTFORWARD} loader"] = None
            subjects = [Subject(name, partial(open_loader, task, workers)) for name, workers in ways.items()]
            settle = 1 + 2 * PREFETCHED * config.workers  # what workers made ahead in others' turns does not count
            for one in measure(subjects, replace(schedule, runs=MADE, settle=settle)):
                rates = [1e3 * config.batch_size / mean_ms for mean_ms in _means(one)]
                recorder.measure(one.name, rates, unit="pictures/s", better="higher")
    click.echo(to_text(recorder.record(is_complete=True), *(TABLES[part] for part in parts)))


def _means(one: Measured) -> list[float]:
    """Milliseconds, of each turn."""
    return [fmean(run[TOTAL] for run in turn) for turn in one.turns]


@dataclass(frozen=True)
class Task:
    """What is trained on; `cache` is the folder of the teacher's features."""

    config: TrainConfig
    data: Path
    category: str | None
    textures: Path | None
    cache: str

    def pictures(self, *, most: int | None = None, workers: int = 0) -> tuple[str, Batches]:
        """The category's name, and batches of its pictures, of the first `most` of them."""
        config, category = self.config, load_category(self.data, self.category)
        images = load_images(category.train[:most], size=config.image_size, skip_corrupt=config.skip_corrupt)
        made = pseudo_anomalies_of(
            config, images=images, textures=texture_source(self.textures), category=category.name
        )
        return category.name, Batches(
            images,
            pseudo_anomalies=made,
            batch_size=config.batch_size,
            seed=config.seed,
            rotation=rotation_for(config.rotation, category.name),
            variation=variation_of(config),
            workers=workers,
        )


@contextmanager
def open_steps(task: Task, way: str) -> Iterator[Work]:
    """A training at its second pass over its batches."""
    os.environ["XDG_CACHE_HOME"] = task.cache
    config, device = task.config, choose_device(task.config.device)
    if way == STRAIGHTFORWARD:
        config = replace(config, teacher_precision="fp32", compile_teacher="off", teacher_cache_gb=0.0)
    name, made = task.pictures(most=BATCHES * config.batch_size)
    batches, losses = list(made.epoch(1)), list[float]()
    spec = ModelSpec(name, config.architecture, config.image_size, config.image_size, "")
    objective, guidance = build(config, spec, made, device=device, processes=Processes())
    assert guidance is not None
    training = begin(objective.train(), config, steps_per_epoch=len(batches))
    teach: Callable[[Batch], Any] = guidance
    learn: Callable[[Batch, Any], float] = partial(our_step, training)
    if way == STRAIGHTFORWARD:
        for module in (objective, guidance.teacher):
            module.to(memory_format=torch.contiguous_format)
        teach = partial(authors_training.ask, guidance.teacher, spec)
        learn = partial(authors_training.step, training)
    on_gpu = device.type == "cuda"

    def run(index: int) -> Mapping[str, float]:
        start_s, batch = time.perf_counter(), batches[index % len(batches)].to(device)
        taught = teach(batch)
        if on_gpu:
            torch.cuda.synchronize(device)
        taught_s = time.perf_counter()
        losses.append(learn(batch, taught))  # which waits for the GPU
        return {TEACHER: 1e3 * (taught_s - start_s), TOTAL: 1e3 * (time.perf_counter() - start_s)}

    for index in range(len(batches)):
        run(index)
    facts = {
        "loss": fmean(losses),
        "anomalous_share": fmean(changed for batch in batches for changed in batch.changed),
        "memory_gb": torch.cuda.max_memory_allocated(device) / 1e9 if on_gpu else peak_mb() / 1e3,
    }
    yield Work(run, facts)


def our_step(training: Training, batch: Batch, taught: Taught) -> float:
    """One step as 'train fit' does it; returns the total loss."""
    terms = training.objective(batch, taught)
    training.scaler.scale(terms.total).backward()
    training.move()
    return float(terms.values().sum())


@contextmanager
def open_loader(task: Task, workers: int | None) -> Iterator[Work]:
    """Batches without end, by so many workers; None: in the straightforward way."""
    with ExitStack() as stack:
        if workers is None:
            assert task.textures is not None
            paths = [sample.path for sample in load_category(task.data, task.category).train]
            batches: Iterator[Any] = authors_training.batches(paths, texture_paths(task.textures), task.config)
        else:
            made = stack.enter_context(task.pictures(workers=workers)[1])
            batches = chain.from_iterable(map(made.epoch, count(1)))
        yield Work.timed(lambda _: next(batches))


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
