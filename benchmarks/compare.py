"""Did it become slower? Two records of one benchmark, measure by measure.

    python -m benchmarks.compare OLD.json NEW.json

`benchmarks.significance` says what counts as more than noise. Exit code 0: nothing is slower or worse. 1: something is,
or has vanished, or the records are of different things. What has vanished and what differs can be allowed with --force,
a slowdown cannot.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from benchmarks.cells import aligned
from benchmarks.record import Record, read
from benchmarks.significance import FEWEST_TURNS, Change, changes
from stlm_edge.cli import run
from stlm_edge.errors import DataError
from stlm_edge.files import require_place, write_text

JSON = click.Path(path_type=Path)

SETTINGS = ("architecture", "input_size", "frame_size", "batch", "pictures", "data", "images")
"""In a record's details, where a benchmark has such a thing: what was worked on."""


@click.command()
@click.argument("old", type=JSON)
@click.argument("new", type=JSON)
@click.option("--old", "more_old", multiple=True, type=JSON, help="A further run like OLD; repeatable.")
@click.option("--new", "more_new", multiple=True, type=JSON, help="A further run like NEW; repeatable.")
@click.option(
    "--force", is_flag=True, help="Compare also what differs in device or settings, is incomplete, or has vanished."
)
@click.option("--json", "json_path", type=JSON, help="Write the comparison there as JSON.")
def command(
    old: Path,
    new: Path,
    more_old: tuple[Path, ...],
    more_new: tuple[Path, ...],
    force: bool,
    json_path: Path | None,
) -> int:
    """Compare the records OLD and NEW of one benchmark; exit code 1 if something became slower or worse."""
    if json_path is not None:
        require_place(json_path)
    before, after = ({path: read(path) for path in paths} for paths in ((old, *more_old), (new, *more_new)))
    doubts = differences(before | after)
    if doubts and not force:
        raise DataError(f"{'; '.join(doubts)}; measure them alike, or compare them all the same with --force")
    for doubt in doubts:
        click.echo(f"WARNING: COMPARED ALL THE SAME: {doubt}", err=True)
    found = changes([record.measures for record in before.values()], [record.measures for record in after.values()])
    for line in lines(found, old=list(before.values()), new=list(after.values())):
        click.echo(line)
    if json_path is not None:
        content = {
            "old": [str(path) for path in before],
            "new": [str(path) for path in after],
            "forced": doubts,
            "changes": [dataclasses.asdict(change) for change in found],
        }
        write_text(json_path, json.dumps(content, indent=1) + "\n")
    bad = [change for change in found if change.is_bad and not (force and change.verdict == "vanished")]
    if bad:
        names = ", ".join(f"{change.name} ({change.verdict})" for change in bad)
        remedy = "" if more_old and more_new else "; on a shared machine confirm it with more runs (--old, --new)"
        click.echo(f"error: {len(bad)} of {len(found)} measures are worse beyond noise: {names}{remedy}", err=True)
    return 1 if bad else 0


def differences(records: dict[Path, Record]) -> list[str]:
    """Why the records should not be compared, one reason each; empty if there is none."""
    (first_path, first), *others = records.items()
    reasons = [f"{path} is incomplete, its run broke off" for path, record in records.items() if not record.is_complete]
    for path, record in others:
        if record.benchmark != first.benchmark:
            reasons.append(f"{first_path} is of benchmarks.{first.benchmark}, {path} of benchmarks.{record.benchmark}")
            continue
        is_exact = all(measure.is_exact for one in (first, record) for measure in one.measures.values())
        if record.device != first.device and not is_exact:
            reasons.append(f"different devices: {first_path} was measured on {first.device}, {path} on {record.device}")
        for name in SETTINGS:
            ours, theirs = first.details.get(name), record.details.get(name)
            if ours != theirs:
                reasons.append(f"{first_path} has {name.replace('_', ' ')} {ours}, {path} has {theirs}")
    return reasons


def lines(found: Sequence[Change], *, old: Sequence[Record], new: Sequence[Record]) -> list[str]:
    """For people: from where, and one line for each measure."""
    runs = [f"commit {', '.join(dict.fromkeys(record.commit for record in side))}" for side in (old, new)]
    devices = " and ".join(dict.fromkeys(str(record.device) for record in (*old, *new)))
    result = [f"{new[0].benchmark}: old {runs[0]}, new {runs[1]}, on {devices}"]
    ours, theirs = old[0].versions, new[0].versions
    result += [
        f"{package}: old {ours.get(package, 'none')}, new {theirs.get(package, 'none')}"
        for package in sorted(ours.keys() | theirs.keys())
        if ours.get(package) != theirs.get(package)
    ]
    heads = ["", "old", "new", "unit", "new / old", "95 % interval", "turns", "verdict"]
    return result + aligned([heads, *map(_cells, found)])


def _cells(change: Change) -> list[str]:
    interval = "exact" if change.is_exact else "-"
    if change.low is not None and change.high is not None:
        interval = f"[{change.low:.3f}, {change.high:.3f}]"
    said = {"same": "the same" if change.is_exact else "same within noise"}.get(change.verdict, str(change.verdict))
    if not change.is_exact and change.ratio is not None and min(change.turns) < FEWEST_TURNS:
        said += " (one turn: no interval)" if max(change.turns) == 1 else " (few turns: interval of all pairs)"
    return [
        change.name,
        *("-" if value is None else f"{value:.5g}" for value in (change.old, change.new)),
        change.unit,
        "-" if change.ratio is None else f"{change.ratio:.3f}",
        interval,
        f"{change.turns[0]}, {change.turns[1]}",
        said,
    ]


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
