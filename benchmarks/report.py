"""One page of all figures, and the tables of a README, from the records that benchmarks wrote.

    python -m benchmarks.report benchmarks/results/*.json -o report.html --markdown report.md
    python -m benchmarks.report --readme README.md

The page is one file without any request to elsewhere. In a README the tables between markers such as
`<!-- table: loop from benchmarks/results/loop-1024.json -->` and `<!-- end -->` are made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from stlm_edge.cli import run
from stlm_edge.errors import DataError

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("records", nargs=-1, type=_FILE)
@click.option("--output", "-o", type=_FILE, help="Write the page there, HTML.")
@click.option("--markdown", type=_FILE, help="Write the tables there, Markdown.")
@click.option("--readme", type=_FILE, help="Make the tables of this document anew, from the records that it names.")
@click.option("--check", is_flag=True, help="Only say which of the document's tables differs, with exit code 1.")
def command(
    records: tuple[Path, ...], output: Path | None, markdown: Path | None, readme: Path | None, check: bool
) -> None:
    """Show the figures of RECORDS, JSON files that benchmarks wrote."""
    if output is None and markdown is None and readme is None:
        raise click.UsageError("Nothing to write: give --output, --markdown or --readme.")
    if check and readme is None:
        raise click.UsageError("--check is about the document of --readme: give that too.")
    if records and output is None and markdown is None:
        raise click.UsageError("RECORDS are for --output and --markdown; --readme names its own.")
    if output is not None or markdown is not None:
        _write(records, output=output, markdown=markdown)
    if readme is not None:
        _renew(readme, check=check)


def _write(records: Sequence[Path], *, output: Path | None, markdown: Path | None) -> None:
    from benchmarks.reporting.page import to_document, to_html
    from benchmarks.reporting.sources import read_sources
    from stlm_edge.files import require_place, write_text

    for path in (output, markdown):
        if path is not None:
            require_place(path)
    sources = read_sources(records)
    texts = [(path, make(sources)) for path, make in ((output, to_html), (markdown, to_document)) if path is not None]
    for path, text in texts:
        write_text(path, text)
        click.echo(f"{path}: {len(sources)} records")


def _renew(readme: Path, *, check: bool) -> None:
    from benchmarks.reporting.readme import renewed
    from stlm_edge.files import write_text

    text, stale = renewed(readme)
    if check and stale:
        raise DataError(
            f"{readme} does not have what its records say in {' and in '.join(stale)}; renew it: "
            f"python -m benchmarks.report --readme {readme}"
        )
    if stale:
        write_text(readme, text)
    click.echo(f"{readme}: {'made anew: ' + ', '.join(stale) if stale else 'all tables are as their records say'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
