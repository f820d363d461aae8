"""`stlm report events.jsonl -o shift.html`: a shift as one page."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)
_TIMES = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"])


@click.command()
@click.argument("events", nargs=-1, required=True, type=_PATH)
@click.option("--output", "-o", required=True, type=_PATH, help="The page, as .html.")
@click.option("--since", type=_TIMES, help="Leave out what was before, by this machine's time: '2026-11-29 06:00'.")
@click.option("--until", type=_TIMES, help="Leave out what came from then on.")
@click.option("--title", default="Report of a shift", show_default=True, help="Of the page.")
def command(events: tuple[Path, ...], output: Path, since: datetime | None, until: datetime | None, title: str) -> None:
    """Make a page of a shift from its events.

    EVENTS are files that --output events.jsonl has written: one or several, of one or several cameras, those that were
    set aside among them (events.jsonl.1, also packed as .gz).
    """
    from runtime.report.page import write_shift

    if since is not None and until is not None and until <= since:
        raise click.UsageError(f"--until is {until:%Y-%m-%d %H:%M}, expected a time after --since")
    write_shift(output, events, since=since, until=until, title=title)
