"""Which input size and precision to take on this device: accuracy against latency.

    python -m benchmarks.sizes --checkpoint runs/bottle/model.safetensors --size 256 --size 512 --size 1024 \
        --precision fp32 --precision int8 --data mvtec --category bottle --work engines --plot sizes.png

Engines of OpenVINO are built and judged as by `stlm export openvino`; those of TensorRT are built before, on their
GPU, and given as --engine. Each is judged by labelled pictures as `benchmarks.accuracy` does. A network that runs at
another size than it was trained at is worth a look and no more: train it at the size that looks best.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import click

from benchmarks.accuracy import LabelledSet, judge, labelled_set, open_inspector
from benchmarks.advice import Point, advise, dominates
from benchmarks.record import Recorder, device, recording, versions
from benchmarks.subjects import Pictures, engine_subject, require_different
from benchmarks.tables import to_text
from export.gate.pictures import Pictures as GatePictures
from runtime.backends import vouched
from stlm_edge.cli import Number, run
from stlm_edge.datasets import load_category
from stlm_edge.errors import EngineError, OutputError, SpecError, VerificationError
from stlm_edge.files import make_folder, require_place, sha256, write_bytes
from stlm_edge.measure import Measured, Schedule, measure
from stlm_edge.revision import git_state
from stlm_edge.spec import Size, check_input_size
from train.values import SizeType

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "int8"]

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Setting:
    """An engine to choose or not.

    Attributes:
        path: of the engine; of the checkpoint while it is not built.
        size, precision: that it is to be built for; nothing for a ready one.
        trained_at: (height, width) of its weights; None where that is not known.
    """

    name: str
    path: Path
    size: Size = (0, 0)
    precision: Precision = "fp32"
    trained_at: Size | None = None


@click.command()
@click.option("--checkpoint", "checkpoints", multiple=True, type=PATH, help="To build engines of; repeatable.")
@click.option(
    "--size", "sizes", multiple=True, type=SizeType(), help="Of the input; repeatable.  [default: as trained]"
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32",),
    show_default=True,
    type=click.Choice(get_args(Precision)),
    help="Of the engines built; repeatable. fp16 is calculated as fp32 on processors, so it is not offered.",
)
@click.option("--work", type=PATH, help="Folder for the engines, which are kept and used again.")
@click.option("--engine", "engines", multiple=True, type=PATH, help="A ready engine beside them; repeatable.")
@click.option("--data", required=True, type=PATH, help="Data set in the layout of MVTec AD, VisA or DAGM.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option("--images", type=click.IntRange(2), help="Judge by so many test pictures at most.  [default: all]")
@click.option("--turns", default=10, show_default=True, type=click.IntRange(2), help="Turns of each engine.")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Frames of a turn that count.")
@click.option("--budget-ms", type=Number(min=0, min_open=True), help="What 95 % of the frames may take.")
@click.option("--plot", type=PATH, help="Draw it there, .png or .svg.")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    checkpoints: tuple[Path, ...],
    sizes: tuple[Size, ...],
    precisions: tuple[Precision, ...],
    work: Path | None,
    engines: tuple[Path, ...],
    data: Path,
    category: str | None,
    images: int | None,
    turns: int,
    runs: int,
    budget_ms: float | None,
    plot: Path | None,
    json_path: Path | None,
) -> None:
    """Measure engines of several sizes and precisions, and say which to take."""
    if not checkpoints and not engines:
        raise click.UsageError("give --checkpoint, --engine or both: there is nothing to compare")
    if checkpoints and work is None:
        raise click.UsageError("--checkpoint needs --work, a folder to build engines in")
    logging.getLogger("runtime").setLevel(logging.WARNING)  # it would tell of each engine what runs it
    pictures = labelled_set(data, category, images=images)
    if plot is not None:
        require_place(plot)
        if plot.suffix not in (".png", ".svg"):
            raise OutputError(f"{plot} has the suffix {plot.suffix!r}, expected .png or .svg; rename the plot")
    with recording("sizes", json_path) as recorder:
        ready = [Setting(path.name, path) for path in engines]
        for setting in ready:
            with open_inspector(setting.path):
                pass  # whatever is wrong with it is told before the first engine is built
        wanted = [one for path in checkpoints for one in _wanted(path, sizes, precisions)]
        require_different(setting.name for setting in (*wanted, *ready))
        built = [] if work is None else list(_built(wanted, work, data=data, category=category))
        recorder.details |= {"data": pictures.words, "device": str(device())}
        frames, schedule = Pictures(data, category=category), Schedule(turns=turns, runs=runs)
        points = _measure([*built, *ready], pictures, frames=frames, schedule=schedule, recorder=recorder)
        recorder.details["advice"] = advise(points, budget_ms=budget_ms)
    click.echo(to_text(recorder.record(is_complete=True), "sizes"))
    if plot is not None:
        from benchmarks.plots import sizes as picture_of  # needs matplotlib, which a Jetson with its plans has not

        write_bytes(plot, picture_of(points, title=f"{pictures.words}; {device()}", suffix=plot.suffix))
        click.echo(f"plot: {plot}")


def _wanted(checkpoint: Path, sizes: Sequence[Size], precisions: Sequence[Precision]) -> Iterator[Setting]:
    """All combinations. Raises `StlmError` if the checkpoint or a size cannot be used."""
    from stlm_edge.network.checkpoint import load  # needs torch, which a Jetson with its plans has not

    spec = load(checkpoint).spec
    spec.require_threshold()
    label = checkpoint.resolve().parent.name if checkpoint.stem == "model" else checkpoint.stem
    for size in sizes or (spec.input_size,):
        check_input_size(size)
        side = size[0] if size[0] == size[1] else "{}x{}".format(*size)
        for precision in precisions:
            yield Setting(f"{label} {side} {precision}", checkpoint, size, precision, spec.input_size)


def _built(wanted: Sequence[Setting], work: Path, *, data: Path, category: str | None) -> Iterator[Setting]:
    """Engines in `work`, also those that the gate refuses; one of the same weights, pictures and code is used again.

    Raises `StlmError` if one cannot be built or judged.
    """
    from export.openvino import OpenVinoBuilder  # needs onnx, and the network torch: see above
    from export.pipeline import export
    from stlm_edge.network.checkpoint import load, resized, save

    judged_by = GatePictures(data, category)
    builders = [OpenVinoBuilder(setting.precision, judged_by.good()) for setting in wanted]
    make_folder(work)
    loaded = load_category(data, category)
    pictures = [sha256(path) for sample in (*loaded.train, *loaded.test) for path in (sample.path, sample.mask) if path]
    for setting, builder in zip(wanted, builders, strict=True):
        made_of = [sha256(setting.path), setting.size, setting.precision, pictures, versions(), git_state()]
        digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]
        output = work / f"{setting.name.replace(' ', '-')}-{digest}.xml"
        if (engine := _judged(output)) is None:
            source = setting.path
            if setting.size != setting.trained_at:
                source = output.with_suffix(".safetensors")
                save(source, resized(load(setting.path), setting.size))
            logger.info("building %s", output)
            with contextlib.suppress(VerificationError):  # a refused one is shown as such
                export(source, output, builder=builder, pictures=judged_by)
            engine = _judged(output)
        assert engine is not None  # it is published or refused
        yield dataclasses.replace(setting, path=engine)


def _judged(output: Path) -> Path | None:
    """Where an engine is that the gate has verified or refused; None if there is none, or it is harmed."""
    from export.publish import unverified_name  # needs onnx, which a Jetson with its plans has not

    for path in (output, unverified_name(output)):
        with contextlib.suppress(EngineError, SpecError):  # what is harmed is built again
            if path.exists() and vouched(path).engine.gate is not None:
                return path
    return None


def _measure(
    settings: Sequence[Setting], pictures: LabelledSet, *, frames: Pictures, schedule: Schedule, recorder: Recorder
) -> list[Point]:
    """Latency of all, then accuracy of each; the record is saved after each turn and each engine."""

    def tell(so_far: Sequence[Measured]) -> None:
        for entry in so_far:
            recorder.measure(f"{entry.name} total p50", entry.quantiles(0.5), unit="ms", better="lower")
        recorder.save()
        logger.info("latency: %d of %d turns", len(so_far[0].turns), schedule.turns)

    subjects = [engine_subject(setting.path, pictures=frames, name=setting.name) for setting in settings]
    measured = measure(subjects, schedule, after_turn=tell)
    points: list[Point] = []
    recorder.details["points"] = points
    for setting, entry in zip(settings, measured, strict=True):
        logger.info("accuracy: %s", setting.name)
        with open_inspector(setting.path) as inspector:
            judged = judge(inspector, pictures, input_size=inspector.detector.spec.input_size)
            gate = inspector.detector.sidecar.engine.gate
        points.append(
            {
                "name": setting.name,
                **{key: entry.facts[key] for key in ("architecture", "input_size", "precision")},
                "trained_at": None if setting.trained_at is None else list(setting.trained_at),
                "runs": len(entry.pooled()),
                "turns_ms": entry.quantiles(0.5),
                "p50_ms": round(entry.quantile(0.5), 3),
                "p95_ms": round(entry.quantile(0.95), 3),
                **judged.record_as(setting.name, recorder),
                "verified": None if gate is None else gate.verified,
                "objections": [] if gate is None else list(gate.objections),
            }
        )
        for point in points:
            point["on_frontier"] = bool(point["verified"]) and not any(dominates(other, point) for other in points)
        recorder.save()
    return points


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
