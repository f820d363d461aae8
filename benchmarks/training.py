"""How long a training step takes: the authors' straightforward way and this toolkit's, on the same batches.

    python -m benchmarks.training --data mvtec --category bottle --preset paper --teacher-weights random \
        --initial-weights random

Each way lives in a process of its own, so that its peak memory is its own, and they take turns. The batches are made
beforehand and passed through again and again, as epochs pass through the same clean pictures: the first pass of the
toolkit's way asks the teacher about all of them, the others find those features on disk. Preparing pictures is not part
of it; `benchmarks.loader` measures that.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.record import Recorder, recording
from stlm_edge.cli import run
from train.config import TrainConfig, from_dict, load_preset
from train.options import training_options

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import torch

FOLDER = click.Path(path_type=Path)
WAYS = ("straightforward", "stlm-edge")
PHASES = ("teacher", "forward", "backward", "optimiser")


@dataclass(frozen=True)
class Task:
    """What a process is to measure."""

    way: str
    config: TrainConfig
    data: Path
    category: str | None
    textures: Path | None
    batches: int
    cache: str


@click.command()
@click.option("--data", required=True, type=FOLDER, help="As for 'train fit'.")
@click.option("--category", help="As for 'train fit'.")
@click.option("--textures", type=FOLDER, help="As for 'train fit'.")
@click.option("--preset", default="paper", show_default=True, help="As for 'train fit'.")
@click.option("--batches", default=4, show_default=True, type=click.IntRange(1), help="Different batches.")
@click.option("--turns", default=3, show_default=True, type=click.IntRange(1), help="Turns of each way.")
@click.option("--steps", default=4, show_default=True, type=click.IntRange(1), help="Steps in a turn.")
@click.option("--json", "json_path", type=FOLDER, help="Write the figures there as JSON.")
@training_options
def command(
    data: Path,
    category: str | None,
    textures: Path | None,
    preset: str,
    batches: int,
    turns: int,
    steps: int,
    json_path: Path | None,
    **settings: Any,
) -> None:
    """Measure seconds per step, peak memory and where the time goes; read the ratio first."""
    given = {name: value for name, value in settings.items() if value is not None}
    config = from_dict(load_preset(preset) | given)
    with recording("training", json_path) as recorder, tempfile.TemporaryDirectory() as cache:
        tasks = [Task(way, config, data, category, textures, batches, cache) for way in WAYS]
        results = _take_turns(tasks, turns=turns, steps=steps, after_turn=lambda times: _record(recorder, times))
        seconds = {way: [statistics.fmean(turn) for turn in results[way]["turns"]] for way in WAYS}
        ratios = [slow / fast for slow, fast in zip(seconds[WAYS[0]], seconds[WAYS[1]], strict=True)]
        recorder.details |= {"settings": config.to_dict(), "turns": turns, "steps": steps, "batches": batches}
        recorder.details |= {"ratio": statistics.median(ratios), "ratios": ratios, "ways": results}
        for way in WAYS:
            recorder.measure(f"{way} memory", [results[way]["memory_gb"]], unit="GB", better="lower")
    height, width = config.image_size
    click.echo(
        f"{config.architecture} at {height} x {width}, batch {config.batch_size}, teacher {config.teacher}, "
        f"{turns} turns of {steps} steps each on {results[WAYS[1]]['device']}; "
        f"{100 * results[WAYS[1]]['anomalous_share']:.0f} % of the pictures have a pseudo anomaly"
    )
    click.echo(f"{'':<18}{'s / step':>10}{'first':>9}" + "".join(f"{phase:>11}" for phase in PHASES) + f"{'GB':>8}")
    for way in WAYS:
        found = results[way]
        click.echo(
            f"{way:<18}{statistics.median(seconds[way]):>10.3f}{found['first_pass_s']:>9.3f}"
            + "".join(f"{found['phases_s'][phase]:>11.3f}" for phase in PHASES)
            + f"{found['memory_gb']:>8.2f}"
        )
    click.echo(
        f"ratio {statistics.median(ratios):.2f} (turn by turn {min(ratios):.2f} to {max(ratios):.2f}); "
        f"mean loss {results[WAYS[0]]['loss']:.5f} and {results[WAYS[1]]['loss']:.5f} in the first pass"
    )


def _record(recorder: Recorder, times: dict[str, list[list[float]]]) -> None:
    """What has been measured after a turn of each way."""
    for way, turns in times.items():
        recorder.measure(f"{way} step", [statistics.fmean(turn) for turn in turns], unit="s", better="lower")


def _take_turns(
    tasks: Sequence[Task], *, turns: int, steps: int, after_turn: Callable[[dict[str, list[list[float]]]], None]
) -> dict[str, dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    workers = []
    for task in tasks:
        ours, theirs = context.Pipe()
        worker = context.Process(target=_measure, args=(task, theirs), daemon=True)
        worker.start()
        theirs.close()
        pipes[task.way] = ours
        workers.append(worker)
        ours.recv()  # warmed up: the next one shall not disturb it
    times: dict[str, list[list[float]]] = {task.way: [] for task in tasks}
    for _ in range(turns):
        for way, pipe in pipes.items():
            pipe.send(steps)
            times[way].append(pipe.recv())
        after_turn(times)
    results = {}
    for (way, pipe), worker in zip(pipes.items(), workers, strict=True):
        pipe.send(None)
        results[way] = pipe.recv() | {"turns": times[way]}
        worker.join()  # its end shall not disturb the next one
    return results


def _measure(task: Task, pipe: Connection) -> None:
    """A process's main: build, warm up, and take the turns that it is told to."""
    import torch

    from train.loop import peak_memory_bytes

    step, batches, device = _prepare(task)
    first: list[float] = []
    losses = []
    for batch in batches:
        start_s = time.perf_counter()
        losses.append(step(batch, lambda _: None))
        first.append(time.perf_counter() - start_s)
    pipe.send(None)
    position = 0
    while (steps := pipe.recv()) is not None:
        times = []
        for _ in range(steps):
            start_s = time.perf_counter()
            step(batches[position % len(batches)], lambda _: None)
            times.append(time.perf_counter() - start_s)
            position += 1
        pipe.send(times)
    phases = dict.fromkeys(PHASES, 0.0)
    for batch in batches:
        last_s = time.perf_counter()

        def mark(phase: str) -> None:
            nonlocal last_s
            if device.type == "cuda":
                torch.cuda.synchronize()
            now_s = time.perf_counter()
            phases[phase] += (now_s - last_s) / len(batches)
            last_s = now_s

        step(batch, mark)
    pipe.send(
        {
            "first_pass_s": statistics.fmean(first),
            "phases_s": phases,
            "memory_gb": peak_memory_bytes(device) / 1e9,
            "loss": statistics.fmean(losses),
            "anomalous_share": statistics.fmean(changed for batch in batches for changed in batch.changed),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        }
    )


def _prepare(task: Task) -> tuple[Any, list[Any], torch.device]:
    """The way's step, the batches that both ways have alike, and the device."""
    import torch

    from benchmarks import authors_step
    from stlm_edge.datasets import load_category
    from stlm_edge.network.encoder import architecture_named
    from stlm_edge.network.inference import choose_device
    from stlm_edge.network.stlm import Stlm
    from stlm_edge.spec import ModelSpec
    from train.augment import rotation_for, variation_of
    from train.data import Batches, load_images
    from train.objective import Objective
    from train.pseudo_anomalies.choice import pseudo_anomalies_of
    from train.pseudo_anomalies.textures import texture_source
    from train.teaching.guidance import make_guidance
    from train.teaching.teacher import build_teacher
    from train.training import begin

    os.environ["XDG_CACHE_HOME"] = task.cache
    config = task.config
    device = choose_device(config.device)
    category = load_category(task.data, task.category)
    samples = category.train[: task.batches * config.batch_size]
    images = load_images(samples, size=config.image_size, skip_corrupt=config.skip_corrupt)
    pseudo = pseudo_anomalies_of(config, images=images, textures=texture_source(task.textures))
    made = Batches(
        images,
        pseudo_anomalies=pseudo,
        batch_size=config.batch_size,
        seed=config.seed,
        rotation=rotation_for(config.rotation, category.name),
        variation=variation_of(config),
    )
    batches = list(made.epoch(1))
    spec = ModelSpec(category.name, config.architecture, config.image_size, config.image_size, "")
    torch.manual_seed(config.seed)
    network = Stlm(architecture_named(config.architecture))
    assert config.teacher != "none"
    teacher = build_teacher(config.teacher, weights=config.teacher_weights, image_size=config.image_size).to(device)
    objective = Objective(network, config, spec=spec, teacher_channels=teacher.channels).to(device).train()
    training = begin(objective, config, steps_per_epoch=len(batches))
    if task.way == "straightforward":
        return (
            lambda batch, mark: authors_step.step(training, teacher, batch, spec=spec, mark=mark),
            batches,
            device,
        )
    objective.to(memory_format=torch.channels_last)
    guidance = make_guidance(
        teacher,
        spec=spec,
        layers=config.layers,
        precision=config.teacher_precision,
        compile_teacher=config.compile_teacher,
        cache_gb=config.teacher_cache_gb,
    )

    def step(batch: Any, mark: authors_step.Mark) -> float:
        batch = batch.to(device)
        taught = guidance(batch)
        mark("teacher")
        terms = objective(batch, taught)
        mark("forward")
        training.scaler.scale(terms.total).backward()
        mark("backward")
        training.move()
        loss = float(terms.values().sum())
        mark("optimiser")
        return loss

    return step, batches, device


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
