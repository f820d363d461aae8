"""The command that trains again with new pictures and makes an engine of it: `stlm retrain`, `python -m train retrain`.

It joins two programs that do not know each other, so it knows both by name only, as `stlm_edge.command` does.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stlm_edge.errors import StlmError, one_line
from stlm_edge.names import escaped

if TYPE_CHECKING:
    from train.retrain import Retrained

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--add",
    "adds",
    required=True,
    multiple=True,
    type=PATH,
    help="Pictures that were added since: a category in the layout of MVTec AD, as 'stlm review' makes it, or a folder "
    "of good ones. Defects are tested with, and never learnt from.",
)
@click.option("--output", "-o", type=PATH, help="Folder of the new run.  [default: RUN-2, RUN-3, …]")
@click.option(
    "--engine", type=PATH, help="Make an engine as this one was made, with its precision and target, into the new run."
)
@click.option(
    "--threshold-by",
    type=click.Choice(["quantile", "f1"]),
    default="quantile",
    show_default=True,
    help="From good pictures, as the run; or F1-optimal on the test pictures of --add, good and defective.",
)
@click.option("--epochs", type=click.IntRange(0), help="In the place of the run's.")
@click.option("--data", type=PATH, help="The run's pictures, if they have moved.")
@click.option("--textures", type=PATH, help="Its textures, if they have moved.")
@click.option("--groups", type=PATH, help="As for fit, of all good pictures; in the place of the run's.")
@click.option("--group-by", metavar="REGEX", help="As for fit; in the place of the run's.")
def retrain(
    run: Path,
    adds: tuple[Path, ...],
    output: Path | None,
    engine: Path | None,
    threshold_by: str,
    epochs: int | None,
    data: Path | None,
    textures: Path | None,
    groups: Path | None,
    group_by: str | None,
) -> None:
    """Train the run in the folder RUN again with pictures that were added since, and put both side by side.

    Writes a run of its own with retrain.json, retrain.md and, where verdicts changed, retrain.png. It replaces nothing:
    the last lines say how to. The same command goes on after Ctrl-C.
    """
    from stlm_edge.sidecar import Sidecar
    from train.retrain import retrain as run_retrain

    if groups is not None and group_by is not None:
        raise click.UsageError("--groups and --group-by both say which pictures show the same part; give one of them")
    if len(adds) > 1:
        raise click.UsageError(
            f"--add is given {len(adds)} times, expected one folder; retrain with the first, then what came of it with "
            "the next"
        )
    done = run_retrain(
        run,
        add=adds[0],
        output=output,
        data=data,
        textures=textures,
        groups=groups,
        group_by=group_by or "",
        epochs=epochs,
        by_f1=threshold_by == "f1",
        like=None if engine is None else Sidecar.read(engine).spec,
    )
    for line in done.lines:
        click.echo(line)
    try:
        made, lines = (None, tuple(_to_export(done))) if engine is None else _exported(engine, done)
    except StlmError as error:
        done.write_text((f"no engine was made: {escaped(one_line(str(error)))}",))
        raise
    done.write(engine=made, lines=lines)
    click.echo()
    for line in lines:
        click.echo(line)


def _exported(like: Path, done: Retrained) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Make the engine; what the report has of it, and what to do with it. Raises `StlmError`, also if it is refused."""
    from export.again import export_like
    from export.gate.pictures import Pictures
    from export.publish import files_of
    from stlm_edge.sidecar import Sidecar

    output = done.folder / like.name
    exported = export_like(like, done.new, output, pictures=Pictures(data=done.data, category=done.category))
    for line in exported.lines:
        click.echo(line)
    record = Sidecar.read(output).engine
    files = [str(path) for path in files_of(output) if path.exists()]
    made = {
        "file": escaped(str(output)),
        "like": escaped(str(like)),
        "engine_sha256": record.engine_sha256,
        "precision": record.precision,
        "device": record.device,
        "verified": exported.gate is not None and exported.gate.verified,
    }
    command = shlex.join(["cp", "--backup=numbered", "-t", str(like.resolve().parent), *files])
    lines = (
        f"engine: {output}, {record.precision} for {record.device}, verified; {like} is as it was",
        "to have it run beside that one for a while:",
        "",
        f"    stlm camera --engine {shlex.quote(str(like))} … --shadow {shlex.quote(f'{output}?every=10')}",
        "",
        "to put it in that one's place, which stays as FILE.~1~ (stop the line before, and start it again):",
        "",
        f"    {command}",
    )
    return made, lines


def _to_export(done: Retrained) -> Iterator[str]:
    yield "no engine was made, since --engine names none; to make one:"
    yield ""
    yield "    " + shlex.join(
        ["stlm", "export", str(done.new), "-o", "ENGINE", "--data", str(done.data), "--category", done.category]
    )
