"""`stlm report RUN -o report.html`: a training as one page."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=_PATH)
@click.option("--output", "-o", type=_PATH, help="The page, as .html.  [default: report.html in RUN]")
@click.option("--data", type=_PATH, help="What was given as --data, if it has moved; for the sizes of the pictures.")
def command(run: Path, output: Path | None, data: Path | None) -> None:
    """Make a page of a training.

    RUN is the folder of a finished run. What 'stlm evaluate' has left beside it is shown too.
    """
    from train.report_page import write_report

    output = output or run / "report.html"
    write_report(output, run, data=data)
    click.echo(output)
