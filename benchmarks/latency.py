"""How long engines, and the ways of PyTorch beside them, take from a frame to its verdict on this machine.

    python -m benchmarks.latency --checkpoint model.safetensors --way eager --way half --engine stlm.onnx \
        --backend openvino --backend onnxruntime --data mvtec/bottle

All take turns, some pictures each, so that whatever else the machine does hits all of them alike; read the ratios first
and the milliseconds second. `--way eager` is the authors' straightforward way, and as the first contender what the
others are compared with.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.contenders import Pictures, engine_contender, network_contender
from benchmarks.contenders.engine import ENGINE_BACKENDS, EngineBackend, pairs
from benchmarks.contenders.pictures import FRAME_SIZE
from benchmarks.contenders.way import WORDS, Device
from benchmarks.turns import Contender, Schedule, Timed, take_turns
from runtime.backends import check_engine_file, vouched
from runtime.verification import warn_unless_verified
from stlm_edge.cli import run
from stlm_edge.errors import ConfigError

if TYPE_CHECKING:
    from benchmarks.estimate import Work
    from benchmarks.record import Recorder

_DEFAULT = Schedule()


@click.command()
@click.option(
    "--engine", "engines", multiple=True, type=click.Path(path_type=Path), help="Its .json beside it; may be repeated."
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("auto",),
    show_default=True,
    type=click.Choice(ENGINE_BACKENDS),
    help="Runs each engine that it can run; may be repeated.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="What PyTorch runs in each --way.")
@click.option(
    "--way", "ways", multiple=True, help=f"Of PyTorch: {', '.join(WORDS)}, or several joined by +; may be repeated."
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Of PyTorch's ways."
)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Pictures, or a data set whose test pictures are taken.  [drawn]"
)
@click.option("--frame-size", nargs=2, type=click.IntRange(64), help="Of drawn pictures, height and width.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Pictures at once.")
@click.option("--turns", default=_DEFAULT.turns, show_default=True, type=click.IntRange(1), help="Of each contender.")
@click.option(
    "--runs", default=_DEFAULT.runs, show_default=True, type=click.IntRange(1), help="Batches in a turn that count."
)
@click.option(
    "--turn-seconds",
    default=_DEFAULT.turn_s,
    show_default=True,
    type=click.FloatRange(0.1),
    help="A turn ends after so many, with one batch at least.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
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
    from benchmarks.conditions import lines_of, watching
    from benchmarks.latency_figures import CONTENTS, estimates, notes, tables
    from benchmarks.record import recording

    _check(engines, checkpoint, ways, device=device)
    pictures = _pictures(data, frame_size, engines)
    with recording("latency", json_path) as recorder:
        words = pictures.describe()
        contenders, works = _contenders(engines, backends, checkpoint, ways, device, pictures=pictures, batch=batch)
        schedule = Schedule(turns=turns, runs=runs, turn_s=turn_seconds)
        for engine in engines:
            warn_unless_verified(engine, vouched(engine))
        with watching() as watch:
            for warning in watch.to_dict()["warnings"]:
                click.echo(warning, err=True)
            click.echo(f"opening {', '.join(contender.name for contender in contenders)}", err=True)

            def tell(timed: Sequence[Timed]) -> None:
                _fill(recorder, timed, works, pictures=pictures, batch=batch)
                recorder.details |= {"pictures": words, "conditions": watch.to_dict()}
                recorder.save()
                click.echo(f"turn {len(timed[0].turns)} of {turns}", err=True)

            timed = take_turns(contenders, schedule, after_turn=tell)
        _fill(recorder, timed, works, pictures=pictures, batch=batch)
        recorder.details["conditions"] = watch.to_dict()
    details = recorder.details
    found = details["contenders"]
    click.echo(f"{words}; batch {batch}, {turns} turns of up to {runs} batches, taking turns, on {_device()}")
    click.echo(CONTENTS + (f" A batch's times are divided by {batch}." if batch > 1 else "") + "\n")
    for line in (*tables(found), "", *notes(found), *lines_of(details["conditions"])):
        click.echo(line)
    click.echo(details["comparison"])
    for line in estimates(details["estimates"]):
        click.echo(line)


def _check(engines: Sequence[Path], checkpoint: Path | None, ways: Sequence[str], *, device: Device) -> None:
    """What can be told before anything is read. Raises `ConfigError`, `EngineError`."""
    from stlm_edge.tensorrt import find_gpu

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


def _contenders(
    engines: Sequence[Path],
    backends: Sequence[EngineBackend],
    checkpoint: Path | None,
    ways: Sequence[str],
    device: Device,
    *,
    pictures: Pictures,
    batch: int,
) -> tuple[list[Contender], list[Work | str]]:
    """What is measured, and the work that each does for a picture, or why that is not known.

    Raises `StlmError` if one cannot be measured, before any is.
    """
    from benchmarks.estimate import known_work, work_of_engine

    contenders: list[Contender] = []
    works: list[Work | str] = []
    if checkpoint is not None:
        for way in ways:
            contenders.append(network_contender(checkpoint, way=way, device=device, pictures=pictures, batch=batch))
        works += [_work_of(checkpoint)] * len(ways)
    for engine, backend in pairs(engines, backends):
        contenders.append(engine_contender(engine, backend=backend, pictures=pictures, batch=batch))
        works.append(known_work(partial(work_of_engine, engine, max_batch=vouched(engine).spec.max_batch)))
    twice = [name for name, count in Counter(contender.name for contender in contenders).items() if count > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is to be measured twice, expected each once; leave one out or rename a file")
    return contenders, works


def _work_of(checkpoint: Path) -> Work:
    """Raises `CheckpointError`."""
    from benchmarks.estimate import work_of_network
    from stlm_edge.network.checkpoint import load

    loaded = load(checkpoint)
    return work_of_network(loaded.network, loaded.spec.input_size)


def _fill(
    recorder: Recorder, timed: Sequence[Timed], works: Sequence[Work | str], *, pictures: Pictures, batch: int
) -> None:
    """Put what there is so far into the record."""
    from benchmarks.environment import device
    from benchmarks.estimate import PAPER, comparison, estimate
    from benchmarks.latency_figures import entry

    here = device()
    for one in timed:
        ours_ms, first_ms = one.quantiles(0.5), timed[0].quantiles(0.5)
        recorder.measure(f"{one.name} total p50", ours_ms, unit="ms", better="lower")
        if one is not timed[0]:  # within one run both suffer alike from a busy machine
            ratios = [theirs / own for theirs, own in zip(first_ms, ours_ms, strict=True)]
            recorder.measure(f"{one.name} speed-up", ratios, unit="times", better="higher")
    entries = [entry(one, first=timed[0], batch=batch) for one in timed]
    sizes = {tuple(one["input_size"]) for one in entries}
    size = sizes.pop() if len(sizes) == 1 else None
    on_gpu = [not one["device"].startswith("CPU") for one in entries]
    frames = pictures.common_size()
    recorder.details |= {
        "input_size": None if size is None else list(size),
        "frame_size": None if frames is None else list(frames),
        "batch": batch,
        "contenders": entries,
        "paper": PAPER,
        "comparison": comparison(here, input_size=size, on_gpu=any(on_gpu)),
        "estimates": [
            estimate(
                one["name"],
                work,
                precision=one["precision"],
                infer_ms=one["stages"]["infer"]["p50_ms"],
                device=here,
                on_gpu=ran_on_gpu,
            ).to_dict()
            for one, work, ran_on_gpu in zip(entries, works, on_gpu, strict=True)
        ],
    }


def _device() -> str:
    from benchmarks.environment import device

    return str(device())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
