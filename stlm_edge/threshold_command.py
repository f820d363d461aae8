"""The command that chooses a threshold again: `stlm threshold`, `python -m train threshold`, `export calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stlm_edge.cli import METHOD, Number
from stlm_edge.spec import FALSE_ALARM_RATE

if TYPE_CHECKING:
    from stlm_edge.thresholds import Method

ENGINES = (".onnx", ".xml", ".plan")

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("file", metavar="CHECKPOINT_OR_ENGINE", type=PATH)
@click.option(
    "--data",
    required=True,
    type=PATH,
    help="For a checkpoint, the data set that it was trained on; for an engine, a folder of good pictures, or a data "
    "set or folder with labels for f1.",
)
@click.option("--category", help="Folder below --data.")
@click.option(
    "--method",
    type=METHOD,
    default="quantile",
    show_default=True,
    help="quantile: from good pictures alone; for a checkpoint those that the training held out. f1: F1-optimal on "
    "labelled pictures.",
)
@click.option(
    "--false-alarm-rate",
    type=Number(0, 1, min_open=True, max_open=True),
    help="For quantile: wanted share of good pictures at or above it.  "
    f"[default: for a checkpoint as trained, for an engine {FALSE_ALARM_RATE:g}]",
)
@click.option(
    "--unclear-rate",
    type=Number(0, 1, max_open=True),
    help="Wanted share of good pictures at or above a second, lower threshold, from which on one is unclear; 0: none.  "
    "[default: for a checkpoint as trained, for an engine as before]",
)
@click.option(
    "--groups",
    type=PATH,
    help="CSV file with the columns picture and part: pictures of a part count as one.  [default: as trained; for an "
    "engine, good pictures that look nearly the same]",
)
@click.option(
    "--group-by",
    metavar="REGEX",
    help="The same by a regular expression, whose first group or all of it is in names without suffix.",
)
@click.option("--textures", type=PATH, help="For a checkpoint: what was given for the training.")
@click.option("--device", help="For a checkpoint: cpu, cuda or auto.  [default: auto]")
def threshold(
    file: Path,
    data: Path,
    category: str | None,
    method: Method,
    false_alarm_rate: float | None,
    unclear_rate: float | None,
    groups: Path | None,
    group_by: str | None,
    textures: Path | None,
    device: str | None,
) -> None:
    """Choose the threshold of a checkpoint or of an engine (.onnx, .xml or .plan) again, by its own scores.

    It is written into the checkpoint, or into the sidecar of the engine. With --unclear-rate a second one is, for
    pictures between sure good and sure bad.
    """
    if method == "f1" and false_alarm_rate is not None:
        raise click.UsageError("--false-alarm-rate goes with --method quantile; --method f1 needs none")
    if groups is not None and group_by is not None:
        raise click.UsageError("--groups and --group-by both say which pictures show the same part; give one of them")
    if file.suffix in ENGINES:
        if textures is not None:
            raise click.UsageError("--textures goes with a checkpoint; no pseudo anomalies are drawn for an engine")
        if device is not None:
            raise click.UsageError("--device goes with a checkpoint; an engine runs where it was made for")
        # By name only, and no sooner: the ground floor knows the programs as `stlm_edge.command` does.
        from export.gate.threshold import choose_on_engine

        rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
        if unclear_rate is not None and 0 < unclear_rate <= rate and method == "quantile":
            raise click.UsageError(f"--unclear-rate is {unclear_rate:g}, expected 0, or more than {rate:g}")
        change = choose_on_engine(
            file,
            data=data,
            category=category,
            method=method,
            false_alarm_rate=rate,
            unclear_rate=unclear_rate,
            groups=groups,
            group_by=group_by or "",
        )
    else:
        from train.threshold import choose_on_checkpoint

        change = choose_on_checkpoint(
            file,
            data=data,
            category=category,
            method=method,
            false_alarm_rate=false_alarm_rate,
            unclear_rate=unclear_rate,
            groups=groups,
            group_by=group_by or "",
            textures=textures,
            device=device or "auto",
        )
    for line in change.lines():
        click.echo(line)
