"""A folder with tables and pictures, or the tables of documents, from the records that benchmarks wrote.

    stlm bench report benchmarks/results/*.json -o report/
    stlm bench report --renew README.md docs/results.md

In documents, what stands between two lines such as these is made anew. Paths are relative to the document; lines that
are indented are examples.

    <!-- table: training from benchmarks/results/training-stlm-512.json benchmarks/results/training-cpu-preset.json -->
    <!-- end -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap

import click

from benchmarks.record import INCOMPLETE, Origin, origins
from benchmarks.tables import KINDS, Table, TableKind
from stlm_edge.cli import run
from stlm_edge.errors import DataError
from stlm_edge.files import make_folder, require_place, write_bytes, write_text
from stlm_edge.names import printable

WORDS = """# stlm-edge: figures and where they are from

Milliseconds of different devices are not comparable, and those of different runs hardly: read the ratios within one run
first. Below each table stand the command, the device, the day and the commit."""

_MARKER = re.compile(r"^(<!-- (?:table:.*|end) -->)$", re.MULTILINE)
_TABLE = re.compile(r"<!-- table: (\S+) from (.+) -->")
_EXAMPLE = "'<!-- table: loop from benchmarks/results/loop-1024.json -->' and below it '<!-- end -->'"

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, type=PATH)
@click.option("--output", "-o", type=PATH, help="Write report.md and its pictures into that folder.")
@click.option("--markdown", type=PATH, help="Write the tables alone there; this needs no matplotlib.")
@click.option("--renew", is_flag=True, help="PATHS are documents: make their tables anew, from the records they name.")
@click.option("--check", is_flag=True, help="Only say which of the documents' tables differ, with exit code 1.")
def command(paths: tuple[Path, ...], output: Path | None, markdown: Path | None, renew: bool, check: bool) -> None:
    """Show the figures of PATHS, JSON files that benchmarks wrote, or renew documents that show them."""
    is_written = output is not None or markdown is not None
    if renew == is_written or (check and not renew) or (renew and not paths):
        raise click.UsageError("give records with --output or --markdown, or documents with --renew (and --check)")
    if renew:
        _renew(paths, check=check)
    if output is not None:
        _write(output / "report.md", paths, has_pictures=True)
    if markdown is not None:
        _write(markdown, paths, has_pictures=False)


def _renew(documents: Sequence[Path], *, check: bool) -> None:
    found = {document: renewed(document) for document in documents}
    stale = {document: tables for document, (_, tables) in found.items() if tables}
    if check and stale:
        said = "; ".join(f"{document}: {' and '.join(tables)}" for document, tables in stale.items())
        raise DataError(
            f"tables that do not have what their records say, in {said}; renew them: "
            f"stlm bench report --renew {' '.join(map(str, stale))}"
        )
    for document, (text, tables) in found.items():
        if tables:
            write_text(document, text)
        click.echo(f"{document}: {'made anew: ' + ', '.join(tables) if tables else 'all tables are as records say'}")


def renewed(document: Path) -> tuple[str, list[str]]:
    """The document's text with all its tables made anew, and those that were not so before, in words.

    Raises `DataError` if it cannot be read, has no place for a table, or a marker or record that is not as expected.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{document} cannot be read ({error}); name a Markdown document") from None
    parts = _MARKER.split(text)  # text, marker, table, marker, text, …
    if len(parts) == 1:
        raise DataError(f"{document} has no place for a table, expected a line such as {_EXAMPLE}")
    stale: list[str] = []
    for start in range(1, len(parts), 4):
        marker, line = _TABLE.fullmatch(parts[start]), "".join(parts[:start]).count("\n") + 1
        if marker is None or parts[start + 2 : start + 3] != ["<!-- end -->"]:
            raise DataError(f"{document}, line {line} has {parts[start]!r} alone, expected a pair such as {_EXAMPLE}")
        name, paths = marker.groups()
        if name not in KINDS:
            raise DataError(f"{document}, line {line} asks for the table {name!r}, expected one of {', '.join(KINDS)}")
        made = to_markdown(KINDS[name], origins(document.parent / path for path in paths.split()))
        if not made:
            raise DataError(f"{document}, line {line}: {paths} has nothing for the table {name}; take the table out")
        if parts[start + 1] != f"\n\n{made}\n":
            stale.append(f"the table {name} from {paths}")
            parts[start + 1] = f"\n\n{made}\n"
    return "".join(parts), stale


def _write(path: Path, records: Sequence[Path], *, has_pictures: bool) -> None:
    sources = origins(records)
    require_place(path)
    text, pictures = to_report(sources, has_pictures=has_pictures)
    make_folder(path.parent)
    for name, data in pictures.items():
        write_bytes(path.with_name(name), data)
    write_text(path, text)
    click.echo(f"{path}: {len(sources)} records, {len(pictures)} pictures")


def to_report(sources: Sequence[Origin], *, has_pictures: bool) -> tuple[str, dict[str, bytes]]:
    """Markdown with figure 1, then each record's picture and tables; and the pictures as PNG by name.

    Raises `DataError` if a complete record lacks what is to be shown.
    """
    parts, pictures = [WORDS], dict[str, bytes]()
    tables = [_tables(source) for source in sources]
    if has_pictures:
        from benchmarks.plots import figure_1, of_record  # a machine that only runs engines has no matplotlib

        shown = [source for source, its in zip(sources, tables, strict=True) if its]
        pictures["figure-1.png"], caption = figure_1(shown)
        parts += ["## Accuracy over time", "![Figure 1](figure-1.png)", caption]
    for number, (source, its) in enumerate(zip(sources, tables, strict=True), 1):
        title = f"{source.record.benchmark} ({source.path.name})"
        parts.append(f"## {title}")
        if has_pictures and its and (picture := of_record(source)) is not None:
            name = f"{source.path.stem}.png"
            name = f"{number}-{name}" if name in pictures else name
            pictures[name], caption = picture
            parts += [f"![{title}]({name})", caption]
        parts += its or [to_markdown(KINDS["measures"], [source]) or f"Nothing was measured: {source}"]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n", pictures


def to_markdown(kind: TableKind, sources: Sequence[Origin]) -> str:
    """One table of all records, its notes, and for each record a line on where it is from; empty if there is no row.

    Rows of several devices get another column that says which.

    Raises:
        DataError: if a record is another benchmark's, or lacks what the table shows.
    """
    found: list[tuple[Origin, Table]] = []
    for source in sources:
        record = source.record
        if kind.benchmarks and record.benchmark not in kind.benchmarks:
            raise DataError(
                f"{source.path} is a record of benchmarks.{record.benchmark}, expected one of "
                f"benchmarks.{' or benchmarks.'.join(kind.benchmarks)}; name another file or another table"
            )
        with source.read_as_expected():
            if (table := kind.of(record)).rows:
                _line([*table.notes, *(cell for row in table.rows for cell in row)])  # raises where one is no text
                found.append((source, table))
    if not found:
        return ""
    rows = [*found[0][1].above, *([*row, str(source.record.device)] for source, table in found for row in table.rows)]
    heads = [*found[0][1].heads, "measured on"]
    if len({row[-1] for row in rows}) == 1:
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    lines = [_line(heads), "|" + "---|" * len(heads), *map(_line, rows), ""]
    if notes := dict.fromkeys(sentence for _, table in found for sentence in table.notes):
        lines += [*wrap(" ".join(notes), width=120, break_on_hyphens=False), ""]
    lines += [f"**{source.path.name} is {INCOMPLETE}.**\n" for source, _ in found if not source.record.is_complete]
    return "\n".join([*lines, *(f"- {source}" for source, _ in found)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(printable(cell.replace("|", "\\|").replace("\n", " ")) for cell in cells) + " |"


def _tables(source: Origin) -> list[str]:
    """Of a record, each with its title; none if it has no kind of its own, or broke off before what those show."""
    try:
        return [
            f"### {kind.title}\n\n{table}"
            for name, kind in KINDS.items()
            if name != "summary" and source.record.benchmark in kind.benchmarks
            if (table := to_markdown(kind, [source]))
        ]
    except DataError:
        if source.record.is_complete:
            raise
        return []


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
