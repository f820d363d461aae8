"""How long engines, and the ways of PyTorch beside them, take from a frame to its verdict on this machine.

    python -m benchmarks.latency --checkpoint model.safetensors --way eager --way half --engine stlm.onnx \
        --backend openvino --backend onnxruntime --data mvtec/bottle

All take turns, some pictures each; read the ratios first and the milliseconds second.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.cells import STAGES
from benchmarks.conditions import lines_of, watching
from benchmarks.estimate import comparison, estimate_ms
from benchmarks.record import Recorder, recording
from benchmarks.record import device as this_machine
from benchmarks.subjects import (
    ENGINE_BACKENDS,
    FRAME_SIZE,
    WORDS,
    Device,
    EngineBackend,
    Pictures,
    engine_subject,
    pairs,
    require_different,
)
from benchmarks.tables import to_text
from runtime.backends import check_engine_file, vouched
from runtime.verification import warn_unless_verified
from stlm_edge.cli import Number, run
from stlm_edge.errors import ConfigError
from stlm_edge.measure import Measured, Schedule, Subject, measure
from stlm_edge.tensorrt import find_gpu

PATH = click.Path(path_type=Path)
_DEFAULT = Schedule()
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}


@click.command()
@click.option("--engine", "engines", multiple=True, type=PATH, help="Its .json beside it; may be repeated.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("auto",),
    show_default=True,
    type=click.Choice(ENGINE_BACKENDS),
    help="Runs each engine that it can run; may be repeated.",
)
@click.option("--checkpoint", type=PATH, help="What PyTorch runs in each --way.")
@click.option(
    "--way", "ways", multiple=True, help=f"Of PyTorch: {', '.join(WORDS)}, or several joined by +; may be repeated."
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Of PyTorch's ways."
)
@click.option("--data", type=PATH, help="Pictures, or a data set whose test pictures are taken.  [drawn]")
@click.option("--frame-size", nargs=2, type=click.IntRange(64), help="Of drawn pictures, height and width.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Pictures at once.")
@click.option("--turns", default=_DEFAULT.turns, show_default=True, type=click.IntRange(1), help="Of each subject.")
@click.option(
    "--runs", default=_DEFAULT.runs, show_default=True, type=click.IntRange(1), help="Batches in a turn that count."
)
@click.option(
    "--turn-seconds",
    default=_DEFAULT.turn_s,
    show_default=True,
    type=Number(0.1),
    help="A turn ends after so many, with one batch at least.",
)
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    engines: tuple[Path, ...],
    backends: tuple[EngineBackend, ...],
    checkpoint: Path | None,
    ways: tuple[str, ...],
    device: Device,
    data: Path | None,
    frame_size: tuple[int, int] | None,
    batch: int,
    turns: int,
    runs: int,
    turn_seconds: float,
    json_path: Path | None,
) -> None:
    """Measure engines, and ways in which PyTorch runs a checkpoint. The speed-up is against the first: ways come before
    engines, each in the order given."""
    _check(engines, checkpoint, ways, device=device)
    pictures = _pictures(data, frame_size, engines)
    with recording("latency", json_path) as recorder:
        words = pictures.describe()
        subjects = _subjects(engines, backends, checkpoint, ways, device, pictures=pictures, batch=batch)
        for engine in engines:
            warn_unless_verified(engine, vouched(engine))
        with watching() as watch:
            for warning in watch["warnings"]:
                click.echo(warning, err=True)
            click.echo(f"opening {', '.join(subject.name for subject in subjects)}", err=True)

            def tell(measured: Sequence[Measured]) -> None:
                fill(recorder, measured, pictures=pictures, batch=batch)
                recorder.details |= {"pictures": words, "conditions": watch}
                recorder.save()
                click.echo(f"turn {len(measured[0].turns)} of {turns}", err=True)

            measured = measure(subjects, Schedule(turns=turns, runs=runs, turn_s=turn_seconds), after_turn=tell)
        fill(recorder, measured, pictures=pictures, batch=batch)
    click.echo(f"{turns} turns of up to {runs} batches, on {this_machine()}")
    click.echo(to_text(recorder.record(is_complete=True), "latency", "latency-stages"))
    for line in (*notes(recorder.details["subjects"]), *lines_of(recorder.details["conditions"])):
        click.echo(line)


def _check(engines: Sequence[Path], checkpoint: Path | None, ways: Sequence[str], *, device: Device) -> None:
    """What can be told before anything is read. Raises `ConfigError`, `EngineError`."""
    if ways and checkpoint is None:
        raise ConfigError(f"found --way {ways[0]} and no checkpoint for it; add --checkpoint model.safetensors")
    if checkpoint is not None and not ways:
        raise ConfigError(f"found --checkpoint {checkpoint} and no way to run it; add --way {' or --way '.join(WORDS)}")
    if not engines and not ways:
        raise ConfigError("found nothing to measure, expected --engine ENGINE, or --checkpoint CHECKPOINT --way WAY")
    if device == "cuda" and not ways:
        raise ConfigError("found --device cuda and no --way, which it is for; an engine runs where it was built for")
    if device == "cuda" and find_gpu() is None:
        raise ConfigError("found --device cuda on a machine without an NVIDIA GPU or its driver; use --device cpu")
    if ways and importlib.util.find_spec("torch") is None:
        raise ConfigError(f"found --way {ways[0]} and no PyTorch to run it; pip install 'stlm-edge[train]'")
    for engine in engines:
        check_engine_file(engine)


def _pictures(data: Path | None, frame_size: tuple[int, int] | None, engines: Sequence[Path]) -> Pictures:
    """Drawn ones are as large as an engine that resizes frames itself wants them."""
    if data is not None:
        if frame_size is not None:
            raise ConfigError("found both --data and --frame-size; pictures are taken as they are, leave one out")
        return Pictures(data)
    wanted = [vouched(engine).spec.frame_size for engine in engines]
    return Pictures(frame_size=frame_size or next((size for size in wanted if size is not None), FRAME_SIZE))


def _subjects(
    engines: Sequence[Path],
    backends: Sequence[EngineBackend],
    checkpoint: Path | None,
    ways: Sequence[str],
    device: Device,
    *,
    pictures: Pictures,
    batch: int,
) -> list[Subject]:
    """Raises `StlmError` if one cannot be measured, before any is."""
    subjects: list[Subject] = []
    if checkpoint is not None:
        from benchmarks.network_subjects import network_subject  # needs torch, which a device for engines may lack
        from stlm_edge.network.checkpoint import load

        subjects += [
            network_subject(checkpoint, way=way, device=device, pictures=pictures, batch=batch) for way in ways
        ]
        load(checkpoint)  # one that cannot be read is told before minutes of work
    subjects += [
        engine_subject(engine, backend=backend, pictures=pictures, batch=batch)
        for engine, backend in pairs(engines, backends)
    ]
    require_different(subject.name for subject in subjects)
    return subjects


def fill(recorder: Recorder, measured: Sequence[Measured], *, pictures: Pictures, batch: int) -> None:
    """Put what there is so far into the record; speed-ups are over the first subject."""
    here, first = this_machine(), measured[0]
    for one in measured:
        recorder.measure(f"{one.name} total p50", one.quantiles(0.5), unit="ms", better="lower")
        if one is not first:  # within one run both suffer alike from a busy machine
            recorder.measure(f"{one.name} speed-up", first.ratios(one), unit="times", better="higher")
    on_gpu = [one for one in measured if not one.facts["device"].startswith("CPU")]
    estimates = [
        {"name": one.name, "infer_ms": one.quantile(0.5, "infer"), "scaled_ms": list(span)}
        for one in on_gpu
        if (span := estimate_ms(one.quantile(0.5, "infer"), precision=one.facts["precision"], device=here))
    ]
    sizes = {tuple(one.facts["input_size"]) for one in measured}
    size = sizes.pop() if len(sizes) == 1 else None
    frames = pictures.common_size()
    recorder.details |= {
        "input_size": None if size is None else list(size),
        "frame_size": None if frames is None else list(frames),
        "batch": batch,
        "subjects": [entry(one, first=first, batch=batch) for one in measured],
        "comparison": comparison(here, input_size=size, on_gpu=bool(on_gpu)),
        "estimates": estimates,
    }


def entry(measured: Measured, *, first: Measured, batch: int) -> dict[str, Any]:
    """A subject in the record's `subjects`; the speed-up is against the first one."""
    totals = measured.pooled()
    return {
        "name": measured.name,
        **measured.facts,
        "load_s": measured.load_s,
        "first_ms": measured.first_ms,
        "before_mb": measured.before_mb,
        "opened_mb": measured.opened_mb,
        "running_mb": measured.running_mb or None,  # until all turns are over
        "peak_mb": measured.peak_mb or None,
        "gpu_mb": measured.gpu_mb,
        "runs": len(totals) * batch,
        "frames_per_s": 1e3 * len(totals) / sum(totals),
        "stages": {
            stage: {name: measured.quantile(level, stage) for name, level in _QUANTILES.items()} for stage in STAGES
        },
        "samples_ms": [round(total, 2) for total in totals],
        "speed_up": asdict(first.ratio(measured)),
    }


def notes(subjects: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be known of single subjects, and of all of them together."""
    found = [f"{subject['name']}: {subject['note']}" for subject in subjects if subject["note"]]
    found += [f"{one['name']}: {one['gpu_mb']:.0f} MB of the GPU's memory" for one in subjects if one["gpu_mb"]]
    networks = {(subject["architecture"], *subject["input_size"]) for subject in subjects}
    if len(networks) > 1:
        listed = ", ".join(f"{name} at {height} x {width}" for name, height, width in sorted(networks))
        found.append(f"these are different networks ({listed}), so a speed-up is not that of a library alone")
    return found


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
