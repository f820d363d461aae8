"""Which input size and precision to take on this device: accuracy against latency.

    python -m benchmarks.sizes --checkpoint runs/bottle/model.safetensors --size 256 --size 512 --size 1024 \
        --precision fp32 --precision int8 --data mvtec --category bottle --work engines --plot sizes.png

Engines of OpenVINO are built and judged as by `python -m export openvino`; those of TensorRT are built before, on their
GPU, and given as --engine. They take turns, so that a busy machine slows all of them alike, and each is judged by
labelled pictures as `benchmarks.accuracy` does. A network that runs at another size than it was trained at is worth a
look and no more: train it at the size that looks best. A hundred test pictures leave much to chance, so points of
nearly the same accuracy are not told apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import stlm_edge
from benchmarks.accuracy import TITLES, LabelledSet, judge, labelled_set, open_inspector
from benchmarks.record import Recorder, device, recording, versions
from benchmarks.subjects import Pictures, engine_subject
from export.__main__ import main as export_main
from export.publish import unverified_name
from runtime.backends import vouched
from runtime.backends.openvino import require_bf16
from stlm_edge.cli import run
from stlm_edge.datasets import load_category
from stlm_edge.errors import ConfigError, EngineError, OutputError, SpecError
from stlm_edge.files import make_folder, require_place, sha256, write_bytes
from stlm_edge.measure import Measured, Schedule, measure
from stlm_edge.spec import Size, check_input_size

logger = logging.getLogger(__name__)

PATH = click.Path(path_type=Path)
METRICS = ("image_auroc", "pixel_auroc", "aupro", "pixel_ap")

DECISIVE = ("aupro", "image_auroc")
"""Where the defects are, and whether a part has one."""

SAME = 0.001
"""By a tenth of a point figures differ for nothing but the order in which a library adds, or 8 bits in place of 32."""

CLOSE = 0.01
"""So far below the best a figure still counts as about as good: one point of 100."""


class InputSize(click.ParamType["Size"]):
    """`256` or `256x384` → (height, width)."""

    name = "SIDE|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no size; give a side such as 256, or height x width such as 256x384", param, ctx)
        return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True)
class Setting:
    """An engine to choose or not.

    Attributes:
        path: of the engine; of the checkpoint while it is not built.
        size, precision: that it is to be built for; None of a ready one.
        trained_at: (height, width) that its weights were trained at; None where that is not known.
    """

    name: str
    path: Path
    size: Size | None = None
    precision: str | None = None
    trained_at: Size | None = None


@dataclass(frozen=True)
class Point:
    """What was measured of an engine.

    Attributes:
        trained_at: see `Setting`.
        verified: by the gate; None if nobody has compared it with its network.
        objections: of the gate.
        runs: frames that count.
        turns_ms: median time from frame to verdict of each turn; all points took turns with each other.
        figures: accuracy by name, in 0 … 1, those of `DECISIVE` among them; None where undefined.
    """

    name: str
    architecture: str
    input_size: Size
    precision: str
    trained_at: Size | None
    verified: bool | None
    objections: tuple[str, ...]
    runs: int
    turns_ms: tuple[float, ...]
    p50_ms: float
    p95_ms: float
    figures: dict[str, float | None]

    def figure(self, metric: str) -> float:
        """An undefined one counts as worse than all others."""
        value = self.figures[metric]
        return -1.0 if value is None else value


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
    precisions: tuple[str, ...],
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
        wanted = _wanted(checkpoints, sizes or (None,), precisions)
        twice = [name for name, count in Counter(one.name for one in (*wanted, *ready)).items() if count > 1]
        if twice:
            raise ConfigError(f"two settings have the name {twice[0]!r}, expected different ones; rename a file")
        for setting in ready:
            with open_inspector(setting.path):
                pass  # whatever is wrong with it is told before the first engine is built
        settings = [*_built(wanted, work, data=data, category=category), *ready] if work else ready
        recorder.details |= {"data": str(pictures), "device": str(device())}
        frames = Pictures(data, category=category)
        points = _measure(settings, pictures, frames, Schedule(turns=turns, runs=runs), recorder)
        advice = advise(points, budget_ms=budget_ms)
        recorder.details["advice"] = advice
    click.echo(f"{pictures}; accuracy in %, * on the frontier, on {device()}")
    for line in (*size_lines(recorder.details["points"]), *advice):
        click.echo(line)
    if plot is not None:
        from benchmarks.plots import sizes as picture_of  # needs matplotlib, which a Jetson with its plans has not

        write_bytes(plot, picture_of(recorder.details["points"], title=f"{pictures}; {device()}", suffix=plot.suffix))
        click.echo(f"plot: {plot}")


def _wanted(checkpoints: Sequence[Path], sizes: Sequence[Size | None], precisions: Sequence[str]) -> list[Setting]:
    """All combinations, in this order. Raises `StlmError` if one cannot be built."""
    if not checkpoints:
        return []
    from stlm_edge.network.checkpoint import load  # needs torch, which a Jetson with its plans has not

    for size in sizes:
        if size is not None:
            check_input_size(size)
    if "bf16" in precisions:
        require_bf16(checkpoints[0])
    if "int8" in precisions and importlib.util.find_spec("nncf") is None:
        raise EngineError("found no nncf, expected it for --precision int8; pip install 'stlm-edge[openvino-int8]'")
    wanted = []
    for path in checkpoints:
        spec = load(path).spec
        spec.require_threshold()
        label = path.resolve().parent.name if path.stem == "model" else path.stem
        for height, width in (size or spec.input_size for size in sizes):
            side = str(height) if height == width else f"{height}x{width}"
            wanted += [
                Setting(f"{label} {side} {precision}", path, (height, width), precision, spec.input_size)
                for precision in precisions
            ]
    return wanted


def _built(wanted: Sequence[Setting], work: Path, *, data: Path, category: str | None) -> Iterator[Setting]:
    """Engines in `work`, also those that the gate refuses; one that is there is used again.

    A file's name ends in a digest of all that it and its verdict hang on: weights, pictures, versions and code.

    Raises:
        EngineError: if one cannot be built or judged; the export has said why.
    """
    make_folder(work)
    loaded = load_category(data, category)
    files = [path for sample in (*loaded.train, *loaded.test) for path in (sample.path, sample.mask) if path]
    packages = Path(stlm_edge.__file__).parent, Path(stlm_edge.__file__).parents[1] / "export"
    files += sorted(path for package in packages for path in package.rglob("*.py"))
    common = [versions(), *map(sha256, files)]
    for setting in wanted:
        key = json.dumps([sha256(setting.path), setting.size, setting.precision, common])
        stem = f"{setting.name.replace(' ', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        places = work / f"{stem}.xml", unverified_name(work / f"{stem}.xml")
        found = [path for path in places if _is_whole(path)]
        if not found:
            logger.info("building %s", places[0])
            for path in places:
                path.unlink(missing_ok=True)
            arguments = ["openvino", str(_checkpoint(setting, work / f"{stem}.safetensors")), "-o", str(places[0])]
            arguments += ["--precision", str(setting.precision), "--data", str(data)]
            with contextlib.redirect_stdout(sys.stderr):  # ours alone is the result
                export_main(arguments + ([] if category is None else ["--category", category]))
            found = [path for path in places if path.is_file()]
        if not found:
            raise EngineError(f"{setting.name} was neither built nor refused; see what the export said above")
        yield dataclasses.replace(setting, path=found[0])


def _is_whole(engine: Path) -> bool:
    """Whether it is there, unharmed and judged."""
    try:
        return engine.exists() and vouched(engine).engine.gate is not None
    except (EngineError, SpecError) as error:
        logger.warning("%s is built again (%s)", engine, error)
        return False


def _checkpoint(setting: Setting, place: Path) -> Path:
    """The setting's own, or at `place` the same weights for pictures of another size.

    The threshold stays: it was found at the old size and has to be chosen again before such an engine is used.
    """
    if setting.size == setting.trained_at:
        return setting.path
    from stlm_edge.network.checkpoint import Checkpoint, load, save  # as above
    from stlm_edge.network.encoder import architecture_named
    from stlm_edge.network.stlm import Stlm

    trained = load(setting.path)
    spec = dataclasses.replace(trained.spec, input_size=setting.size, map_size=setting.size)
    network = Stlm(architecture_named(spec.architecture), trained.network.design, image_size=spec.input_size)
    network.load_state_dict(trained.network.state_dict())
    save(place, Checkpoint(network.eval(), spec, trained.config))
    return place


def _measure(
    settings: Sequence[Setting], pictures: LabelledSet, frames: Pictures, schedule: Schedule, recorder: Recorder
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
    for setting, entry in zip(settings, measured, strict=True):
        logger.info("accuracy: %s", setting.name)
        with open_inspector(setting.path) as inspector:
            sidecar = inspector.detector.sidecar
            figures = judge(inspector, pictures, threshold=inspector.detector.threshold).figures()
        gate = sidecar.engine.gate
        point = Point(
            name=setting.name,
            architecture=sidecar.spec.architecture,
            input_size=sidecar.spec.input_size,
            precision=sidecar.engine.precision,
            trained_at=setting.trained_at,
            verified=None if gate is None else gate.verified,
            objections=() if gate is None else gate.objections,
            runs=len(entry.pooled()),
            turns_ms=tuple(entry.quantiles(0.5)),
            p50_ms=float(np.quantile(entry.pooled(), 0.5)),
            p95_ms=float(np.quantile(entry.pooled(), 0.95)),
            figures={name: figures[name] for name in METRICS},
        )
        points.append(point)
        for name, value in point.figures.items():
            if value is not None:
                recorder.measure(f"{point.name} {name}", [100 * value], unit="%", better="higher")
        recorder.details["points"] = [_entry(one, points) for one in points]
        recorder.save()
    return points


def _entry(point: Point, points: Sequence[Point]) -> dict[str, Any]:
    """A point for the record."""
    values = dataclasses.asdict(point)
    del values["turns_ms"]  # they stand among the measures
    figures = values.pop("figures")
    times = {name: round(values[name], 3) for name in ("p50_ms", "p95_ms")}
    return values | times | figures | {"on_frontier": on_frontier(point, points)}


def dominates(one: Point, other: Point) -> bool:
    """Whether one point makes another one pointless: faster in each turn, and as good in each decisive figure.

    Turns share whatever else the machine did, so that one was always faster is more than that its median is. With ten
    turns, two equally fast ones look so once in a thousand times. An engine that is not verified dominates nothing.
    """
    is_faster = all(ours < theirs for ours, theirs in zip(one.turns_ms, other.turns_ms, strict=True))
    is_as_good = all(one.figure(metric) >= other.figure(metric) - SAME for metric in DECISIVE)
    return bool(one.verified) and is_faster and is_as_good


def on_frontier(point: Point, points: Sequence[Point]) -> bool:
    """Whether a point is verified and nothing dominates it."""
    return bool(point.verified) and not any(dominates(other, point) for other in points)


def advise(points: Sequence[Point], *, budget_ms: float | None = None) -> list[str]:
    """What to take on this device, and what to leave, one sentence each.

    Args:
        budget_ms: for 95 % of the frames, from frame to verdict.
    """
    verified = [point for point in points if point.verified]
    sentences = [] if verified else ["No engine is verified, so none is advised."]
    advised: list[Point] = []
    for metric in DECISIVE if verified else ():
        best = max(verified, key=lambda point: (point.figure(metric), -point.p50_ms))
        close = [point for point in verified if point.figure(metric) >= best.figure(metric) - CLOSE]
        chosen = min(close, key=lambda point: point.p50_ms)
        advised.append(chosen)
        why = (
            "the best"
            if chosen is best
            else f"the fastest within {100 * CLOSE:g} point of the best ({best.name}, {100 * best.figure(metric):.1f} "
            f"in {best.p50_ms:.1f} ms)"
        )
        taken = f"{100 * chosen.figure(metric):.1f} in {chosen.p50_ms:.1f} ms (p50)"
        sentences.append(f"For {TITLES[metric]} take {chosen.name}: {taken}, {why}.")
    if budget_ms is not None and verified:
        within = [point for point in verified if point.p95_ms <= budget_ms]
        fastest = min(verified, key=lambda point: point.p95_ms)
        said = [
            f"None keeps within {budget_ms:g} ms (p95); the fastest, {fastest.name}, takes {fastest.p95_ms:.1f} ms."
        ]
        if within:
            bests = {metric: max(within, key=lambda point: point.figure(metric)) for metric in DECISIVE}
            advised += bests.values()
            parts = (
                f"{best.name} has the best {TITLES[metric]} ({100 * best.figure(metric):.1f}, {best.p95_ms:.1f} ms)"
                for metric, best in bests.items()
            )
            said = [f"Within {budget_ms:g} ms (p95), {' and '.join(parts)}."]
        sentences += said
    return [*sentences, *_warnings(points, advised)]


def _warnings(points: Sequence[Point], advised: Sequence[Point]) -> Iterator[str]:
    for point in points:
        better = min((one for one in points if dominates(one, point)), key=lambda one: one.p50_ms, default=None)
        if point.verified is None:
            yield f"{point.name} is not advised: nobody has compared it with its network (python -m export verify)."
        elif not point.verified:
            yield f"{point.name} is not advised: the gate refuses it ({'; '.join(point.objections[:2])})."
        elif better is not None:
            yield f"{point.name} is dominated: {better.name} is faster and as good."
        elif point in advised and point.trained_at is not None and point.trained_at != point.input_size:
            yield (
                "{} was trained at {} x {}: choose its threshold again before it is used (python -m export calibrate), "
                "or train it at this size.".format(point.name, *point.trained_at)
            )


def size_lines(points: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The entries of a record, one line each."""
    width = max(len(point["name"]) for point in points) + 4
    yield (
        f"{'':<{width}}{'input':<13}{'trained at':<13}{'p50 ms':>9}{'p95 ms':>9}"
        + "".join(f"{TITLES[metric]:>13}" for metric in METRICS)
        + "  gate"
    )
    for point in points:
        mark = "* " if point["on_frontier"] else "  "
        said = {True: "verified", False: "REFUSED", None: "not compared"}[point["verified"]]
        sizes = (
            "-" if size is None else "{} x {}".format(*size) for size in (point["input_size"], point["trained_at"])
        )
        yield (
            f"{mark + point['name']:<{width}}"
            + "".join(f"{size:<13}" for size in sizes)
            + f"{point['p50_ms']:>9.2f}{point['p95_ms']:>9.2f}"
            + "".join(f"{'-' if point[key] is None else format(100 * point[key], '.2f'):>13}" for key in METRICS)
            + f"  {said}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
