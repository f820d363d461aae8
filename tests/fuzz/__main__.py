"""Damaged files for as long as one has time: `python -m tests.fuzz --minutes 10`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from .targets import TARGETS
from .trial import FAULTS, KINDS, Tally, keep, worker


@click.command()
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True)
@click.option(
    "--target", "names", type=click.Choice(list(TARGETS)), multiple=True, help="May be repeated; all if left out."
)
@click.option("--seed", default=0, show_default=True, help="Of the first file; the next ones count up.")
@click.option(
    "--keep",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("fuzz-findings"),
    show_default=True,
    help="Folder for what gave a fault.",
)
def command(minutes: float, names: tuple[str, ...], seed: int, folder: Path) -> None:
    """Hand damaged files to everything that reads any, and count what comes of them; exit code 1 if that is a fault.

    Each file is to be refused in one line or to give an answer, within 20 s and 2 GB.
    """
    tallies = {name: Tally() for name in names or TARGETS}
    until_s = time.monotonic() + 60 * minutes
    with worker() as tries:
        while time.monotonic() < until_s:
            for name, tally in tallies.items():
                outcome = tries.attempt(name, seed)
                tally.add(seed, outcome)
                if outcome.kind in FAULTS:
                    place = keep(name, seed, outcome, folder)
                    last = outcome.words.strip().splitlines()[-1:]
                    click.echo(f"{name}, seed {seed}: {outcome.kind} {''.join(last)} ({place})", err=True)
                if time.monotonic() > until_s:
                    break
            seed += 1
    width = max(map(len, tallies))
    click.echo(f"{'':{width}}  {'tried':>8}" + "".join(f"{kind:>16}" for kind in KINDS))
    total = Tally()
    for tally in tallies.values():
        total.counts.update(tally.counts)
    for name, tally in [*tallies.items(), ("all", total)]:
        figures = "".join(f"{tally.counts[kind]:>16}" for kind in KINDS)
        click.echo(f"{name:{width}}  {tally.counts.total():>8}{figures}")
    sys.exit(int(any(total.counts[kind] for kind in FAULTS)))


if __name__ == "__main__":
    command()
