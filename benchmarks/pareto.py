"""Which input size and precision to take on this device: accuracy against latency.

    python -m benchmarks.pareto --checkpoint runs/bottle/model.safetensors --size 256 --size 512 --size 1024 \
        --precision fp32 --precision int8 --data mvtec --category bottle --work engines --plot pareto.png

Engines of OpenVINO are built by the toolkit's own pipeline and judged by its gate; those of TensorRT are built before,
on their GPU, and given as --engine. They take turns, so that a busy machine slows all of them alike, and each is judged
by labelled pictures as `benchmarks.accuracy` does. A network that runs at another size than it was trained at is worth
a look and no more: train it at the size that looks best. A hundred test pictures leave much to chance (see
`benchmarks.intervals`), so points of nearly the same accuracy are not told apart.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stlm_edge.cli import run

if TYPE_CHECKING:
    from benchmarks.contenders import Pictures
    from benchmarks.engines import LabelledSet
    from benchmarks.frontier import Candidate, Point
    from benchmarks.record import Recorder
    from benchmarks.turns import Schedule, Timed
    from export.openvino.write import CpuPrecision
    from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

PATH = click.Path(path_type=Path)

ACCURACY = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "pixel_ap": "pixel AP"}


class InputSize(click.ParamType["Size"]):
    """`256` or `256x384` → (height, width)."""

    name = "SIDE|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no size; give a side such as 256, or height x width such as 256x384", param, ctx)
        return int(match[1]), int(match[2] or match[1])


@click.command()
@click.option("--checkpoint", "checkpoints", multiple=True, type=PATH, help="To build engines of; repeatable.")
@click.option(
    "--size", "sizes", multiple=True, type=InputSize(), help="Of the input; repeatable.  [default: as trained]"
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32",),
    show_default=True,
    type=click.Choice(["fp32", "bf16", "int8"]),
    help="Of the engines built; repeatable. fp16 is calculated as fp32 on processors, so it is not offered.",
)
@click.option("--work", type=PATH, help="Folder for the engines, which are kept and used again.")
@click.option("--engine", "engines", multiple=True, type=PATH, help="A ready engine beside them; repeatable.")
@click.option("--data", required=True, type=PATH, help="Data set in the layout of MVTec AD, VisA or DAGM.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option("--images", type=click.IntRange(2), help="Judge by so many test pictures at most.  [default: all]")
@click.option("--turns", default=10, show_default=True, type=click.IntRange(2), help="Turns of each engine.")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Frames of a turn that count.")
@click.option("--budget-ms", type=click.FloatRange(min=0, min_open=True), help="What 95 % of the frames may take.")
@click.option("--plot", type=PATH, help="Draw it there, .png or .svg.")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    checkpoints: tuple[Path, ...],
    sizes: tuple[Size, ...],
    precisions: tuple[CpuPrecision, ...],
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
    from benchmarks.contenders import Pictures
    from benchmarks.engines import labelled_set
    from benchmarks.environment import device
    from benchmarks.frontier import advise
    from benchmarks.frontier_plot import require_plot_place, write_plot
    from benchmarks.record import recording
    from benchmarks.turns import Schedule

    if not checkpoints and not engines:
        raise click.UsageError("give --checkpoint, --engine or both: there is nothing to compare")
    if checkpoints and work is None:
        raise click.UsageError("--checkpoint needs --work, a folder to build engines in")
    logging.getLogger("runtime").setLevel(logging.WARNING)  # it would tell of each engine what runs it
    pictures = labelled_set(data, category, images=images)
    if plot is not None:
        require_plot_place(plot)
    with recording("pareto", json_path) as recorder:
        candidates = _candidates(checkpoints, sizes, precisions, work, engines, data=data, category=category)
        recorder.details |= {"data": str(pictures), "device": str(device())}
        frames = Pictures(data, category=category)
        points = _measure(candidates, pictures, frames, Schedule(turns=turns, runs=runs), recorder)
        advice = advise(points, budget_ms=budget_ms)
        recorder.details["advice"] = advice
    click.echo(f"{pictures}; accuracy in %, * on the frontier, on {device()}")
    for line in (*table(recorder.details["points"]), *advice):
        click.echo(line)
    if plot is not None:
        write_plot(plot, points, title=f"{pictures}; {device()}")
        click.echo(f"plot: {plot}")


def _candidates(
    checkpoints: Sequence[Path],
    sizes: Sequence[Size],
    precisions: Sequence[CpuPrecision],
    work: Path | None,
    engines: Sequence[Path],
    *,
    data: Path,
    category: str | None,
) -> list[Candidate]:
    """Everything is checked before the first engine is built. Raises `StlmError`."""
    from benchmarks.engines import opened
    from benchmarks.frontier import Candidate

    ready = [Candidate.read(path, name=path.name) for path in engines]
    for candidate in ready:
        with opened(candidate.path):
            pass
    if work is None or not checkpoints:  # then neither torch nor onnx is needed, as on a Jetson with its plans
        _require_different([candidate.name for candidate in ready])
        return ready
    from benchmarks.candidates import build, settings
    from export.sources import Pictures
    from stlm_edge.files import make_folder

    wanted = settings(checkpoints, sizes, precisions)
    _require_different([setting.name for setting in wanted] + [candidate.name for candidate in ready])
    make_folder(work)
    pictures = Pictures(data=data, category=category)
    return [build(setting, work=work, pictures=pictures) for setting in wanted] + ready


def _require_different(names: Sequence[str]) -> None:
    from stlm_edge.errors import ConfigError

    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"two settings have the name {twice[0]!r}, expected different ones; rename a file or folder")


def _measure(
    candidates: Sequence[Candidate],
    pictures: LabelledSet,
    frames: Pictures,
    schedule: Schedule,
    recorder: Recorder,
) -> list[Point]:
    """Latency of all, then accuracy of each; the record is saved after each turn and each engine."""
    from benchmarks.contenders import engine_contender
    from benchmarks.engines import judge, opened
    from benchmarks.frontier import Point
    from benchmarks.turns import take_turns

    def told(so_far: Sequence[Timed]) -> None:
        for entry in so_far:
            recorder.measure(f"{entry.name} total p50", entry.quantiles(0.5), unit="ms", better="lower")
        recorder.save()
        logger.info("latency: %d of %d turns", len(so_far[0].turns), schedule.turns)

    contenders = [
        dataclasses.replace(engine_contender(candidate.path, pictures=frames), name=candidate.name)
        for candidate in candidates
    ]
    timed = take_turns(contenders, schedule, after_turn=told)
    points = []
    for candidate, entry in zip(candidates, timed, strict=True):
        logger.info("accuracy: %s", candidate.name)
        with opened(candidate.path) as engine:
            quality = judge(engine.inspector, pictures, threshold=engine.detector.threshold).quality
        point = Point(
            candidate=candidate,
            runs=len(entry.pooled()),
            turns_ms=tuple(entry.quantiles(0.5)),
            p50_ms=_quantile(entry.pooled(), 0.5),
            p95_ms=_quantile(entry.pooled(), 0.95),
            figures={name: value for name, value in quality.figures().items() if name in ACCURACY},
        )
        points.append(point)
        for name, value in point.figures.items():
            if value is not None:
                recorder.measure(f"{candidate.name} {name}", [100 * value], unit="%", better="higher")
        recorder.details["points"] = [_entry(measured, points) for measured in points]
        recorder.save()
    return points


def _quantile(values: Sequence[float], quantile: float) -> float:
    import numpy as np

    return float(np.quantile(values, quantile))


def _entry(point: Point, points: Sequence[Point]) -> dict[str, Any]:
    """A point for the record."""
    from benchmarks.frontier import on_frontier

    candidate = point.candidate
    return {
        "name": candidate.name,
        "architecture": candidate.architecture,
        "input_size": list(candidate.input_size),
        "precision": candidate.precision,
        "trained_at": None if candidate.trained_at is None else list(candidate.trained_at),
        "runs": point.runs,
        "p50_ms": round(point.p50_ms, 3),
        "p95_ms": round(point.p95_ms, 3),
        **point.figures,
        "verified": candidate.verified,
        "objections": list(candidate.objections),
        "on_frontier": on_frontier(point, points),
    }


def table(points: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The entries of a record, one line each."""
    width = max(len(point["name"]) for point in points) + 4
    yield (
        f"{'':<{width}}{'input':<13}{'trained at':<13}{'p50 ms':>9}{'p95 ms':>9}"
        + "".join(f"{head:>13}" for head in ACCURACY.values())
        + "  gate"
    )
    for point in points:
        mark = "* " if point["on_frontier"] else "  "
        verdict = {True: "verified", False: "REFUSED", None: "not compared"}[point["verified"]]
        yield (
            f"{mark + point['name']:<{width}}{_size(point['input_size']):<13}{_size(point['trained_at']):<13}"
            f"{point['p50_ms']:>9.2f}{point['p95_ms']:>9.2f}"
            + "".join(f"{'-' if point[key] is None else format(100 * point[key], '.2f'):>13}" for key in ACCURACY)
            + f"  {verdict}"
        )


def _size(size: Sequence[int] | None) -> str:
    return "-" if size is None else "{} x {}".format(*size)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
