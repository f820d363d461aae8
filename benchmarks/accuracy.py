"""How good engines are on labelled pictures, and how far each is from its network.

    python -m benchmarks.accuracy --data mvtec --category bottle --reference runs/bottle/model.safetensors \
        --engine bottle.xml --engine bottle-int8.xml --engine bottle.plan

Each engine is run as the camera program runs it. AUROC, average precision and AUPRO are taken at the pictures' own
resolution, from maps enlarged as the runtime enlarges them: from the network's map at once, where `train evaluate` goes
over the network's input size, so that pixel figures of the two differ by some hundredths of a point and those of whole
pictures by nothing. Drift is what `export verify` calls so, here over all test pictures and without a verdict.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.backends import BACKEND_CHOICES, BackendChoice
from stlm_edge.cli import run

if TYPE_CHECKING:
    from benchmarks.engines import Judged, LabelledSet
    from benchmarks.record import Recorder
    from stlm_edge.spec import ModelSpec, Size

PATH = click.Path(path_type=Path)

HEADS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
}


@dataclass(frozen=True)
class Entrant:
    """Attributes: name: for the table and the record; spec: of its sidecar."""

    name: str
    path: Path
    backend: BackendChoice
    spec: ModelSpec


@click.command()
@click.option("--engine", "engines", multiple=True, required=True, type=PATH, help="To be judged; repeatable.")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("auto",),
    show_default=True,
    type=click.Choice(BACKEND_CHOICES),
    help="What runs the engines; repeatable, then each engine runs on each.",
)
@click.option(
    "--reference", type=PATH, help="Checkpoint or fp32 graph that drift is from.  [default: the first engine]"
)
@click.option("--data", required=True, type=PATH, help="Data set in the layout of MVTec AD, VisA or DAGM.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option("--images", type=click.IntRange(2), help="Judge by so many test pictures at most.  [default: all]")
@click.option("--json", "json_path", type=PATH, help="Write the figures there as JSON.")
def command(
    engines: tuple[Path, ...],
    backends: tuple[BackendChoice, ...],
    reference: Path | None,
    data: Path,
    category: str | None,
    images: int | None,
    json_path: Path | None,
) -> None:
    """Judge engines by labelled pictures, and by the network that they were made from."""
    from benchmarks.engines import labelled_set
    from benchmarks.record import recording

    logging.getLogger("runtime").setLevel(logging.WARNING)  # it would tell of each engine twice what runs it
    pictures = labelled_set(data, category, images=images)
    entrants = _entrants(engines, backends)
    with recording("accuracy", json_path) as recorder:
        _check(entrants, reference)
        rows = _judge_all(entrants, reference, pictures, recorder)
    click.echo(f"{pictures}; figures in % at the pictures' own resolution")
    for line in table(rows):
        click.echo(line)


def _entrants(engines: Sequence[Path], backends: Sequence[BackendChoice]) -> list[Entrant]:
    """Raises `StlmError` if an engine is missing or not the one that its sidecar was written for, or given twice."""
    from runtime.backends import vouched
    from stlm_edge.errors import ConfigError

    for given in (Counter(map(str, engines)), Counter(backends)):
        if twice := [name for name, count in given.items() if count > 1]:
            raise ConfigError(f"{twice[0]} is given twice, expected each engine and backend once; leave one out")
    files = Counter(path.name for path in engines)
    return [
        Entrant(
            name=(path.name if files[path.name] == 1 else str(path)) + (f" on {backend}" if backends[1:] else ""),
            path=path,
            backend=backend,
            spec=vouched(path).spec,
        )
        for path in engines
        for backend in backends
    ]


def _check(entrants: Sequence[Entrant], reference: Path | None) -> None:
    """Open everything once before minutes of work. Raises `StlmError`, of another network's engine with both names."""
    from benchmarks.engines import opened
    from runtime.verification import warn_unless_verified

    for entrant in entrants:
        with opened(entrant.path, backend=entrant.backend) as engine:
            warn_unless_verified(entrant.path, engine.sidecar)
        if reference is not None:
            _check_reference(reference, entrant)


def _check_reference(reference: Path, entrant: Entrant) -> None:
    from export.gate.reference import open_reference  # needs onnx, which a Jetson that runs engines has not
    from stlm_edge.errors import VerificationError

    try:
        with open_reference(reference, spec=entrant.spec):
            pass
    except VerificationError as error:
        raise VerificationError(f"{entrant.path}: {error}") from None


def _judge_all(
    entrants: Sequence[Entrant], reference: Path | None, pictures: LabelledSet, recorder: Recorder
) -> list[dict[str, Any]]:
    """The entries of the record, which is saved after each."""
    from benchmarks.engines import drift_between, judge, opened

    rows: list[dict[str, Any]] = []
    recorder.details |= {
        "data": str(pictures),
        "images": len(pictures.samples),
        "good": pictures.good,
        "defective": pictures.defective,
        "engines": rows,
    }
    wanted: dict[Size | None, tuple[str, Judged]] = {}
    if reference is not None:
        for row, judged, frame_size in _references(reference, entrants, pictures):
            wanted[frame_size] = row["name"], judged
            _add(row, judged, rows, recorder)
    first: tuple[Entrant, Judged] | None = None
    for entrant in entrants:
        with opened(entrant.path, backend=entrant.backend) as engine:
            judged = judge(engine.inspector, pictures, threshold=engine.detector.threshold)
            record, library = engine.sidecar.engine, engine.library
        origin = wanted.get(entrant.spec.frame_size)
        if first is None:
            first = entrant, judged
        elif reference is None and _same_network(first[0].spec, entrant.spec):
            origin = first[0].name, first[1]
        row = {
            "name": entrant.name,
            "library": library,
            "precision": record.precision,
            "input_size": list(entrant.spec.input_size),
            "verified": None if record.gate is None else record.gate.verified,
            "threshold": engine.detector.threshold.value,
            "drift": None if origin is None else drift_between(origin[1], judged, name=origin[0]),
        }
        _add(row, judged, rows, recorder)
    return rows


def _references(
    reference: Path, entrants: Sequence[Entrant], pictures: LabelledSet
) -> Iterator[tuple[dict[str, Any], Judged, Size | None]]:
    """The reference's own entry; one more for each size of frames that an engine's graph resizes itself."""
    from benchmarks.engines import judge
    from export.gate.reference import open_reference

    for spec in {entrant.spec.frame_size: entrant.spec for entrant in entrants}.values():
        with open_reference(reference, spec=spec) as opened:
            judged = judge(opened.inspector, pictures, threshold=None)
        resizing = "" if spec.frame_size is None else " with frames of {} x {}".format(*spec.frame_size)
        row = {
            "name": f"{reference.name}{resizing}",
            "library": "onnxruntime" if reference.suffix == ".onnx" else "pytorch",
            "precision": "fp32",
            "input_size": list(spec.input_size),
            "verified": None,
            "threshold": None,
            "drift": None,
        }
        yield row, judged, spec.frame_size


def _add(row: dict[str, Any], judged: Judged, rows: list[dict[str, Any]], recorder: Recorder) -> None:
    figures = judged.quality.figures()
    row |= figures | {"missed": judged.quality.missed, "false_alarms": judged.quality.false_alarms}
    rows.append(row)
    for metric, value in figures.items():
        if value is not None:
            recorder.measure(f"{row['name']} {metric}", [100 * value], unit="%", better="higher")
    recorder.save()


def _same_network(first: ModelSpec, other: ModelSpec) -> bool:
    """Whether drift between two engines would tell of them and not of two networks."""
    keys = ("weights_sha256", "input_size", "map_size", "frame_size", "top_k")
    return all(getattr(first, key) == getattr(other, key) for key in keys)


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Figures in %, and drift below them."""
    width = max(len(row["name"]) for row in rows) + 2
    yield (
        f"{'':<{width}}{'library':<13}{'precision':<11}{'input':<12}"
        + "".join(f"{head:>13}" for head in HEADS.values())
        + f"{'missed':>8}{'alarms':>8}"
    )
    for row in rows:
        size = "{} x {}".format(*row["input_size"])
        yield (
            f"{row['name']:<{width}}{row['library']:<13}{row['precision']:<11}{size:<12}"
            + "".join(f"{_cell(row[metric], '.2f', 100):>13}" for metric in HEADS)
            + "".join(f"{_cell(row[key], 'd'):>8}" for key in ("missed", "false_alarms"))
        )
    drifting = [row for row in rows if row["drift"] is not None]
    if not drifting:
        return
    heads = ("map max", "map p99", "score max", "rank corr.", "image AUROC", "pixel AUROC", "AUPRO")
    keys = ("map_max", "map_p99", "score_max", "rank", "image_auroc", "pixel_auroc", "aupro")
    styles = (*[".1e"] * 3, ".6f", *["+.3f"] * 3)
    yield f"{'drift':<{width}}" + "".join(f"{head:>13}" for head in heads) + "  from (metrics in points)"
    for row in drifting:
        cells = "".join(f"{_cell(row['drift'][key], style):>13}" for key, style in zip(keys, styles, strict=True))
        yield f"{row['name']:<{width}}{cells}  {row['drift']['reference']}"


def _cell(value: float | None, style: str, factor: int = 1) -> str:
    return "-" if value is None else format(factor * value, style)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
