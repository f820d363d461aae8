"""A folder with tables and pictures, or the tables of documents, from the records that benchmarks wrote.

    python -m benchmarks.report benchmarks/results/*.json -o report/
    python -m benchmarks.report --renew README.md docs/results.md

In documents, the tables between markers such as `<!-- table: loop from benchmarks/results/loop-1024.json -->` and
`<!-- end -->` are made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.documents import renewed
from benchmarks.tables import KINDS, PAPER, Origin, TableKind, origins, to_markdown
from stlm_edge.cli import run
from stlm_edge.errors import DataError, OutputError
from stlm_edge.files import make_folder, require_place, write_bytes, write_text

TITLE = "stlm-edge: figures and where they are from"
WORDS = (
    "Each table and picture is of one or more runs of a benchmark; below it stand the command, the device, the day and "
    "the commit. Milliseconds of different devices are not comparable, and those of different runs hardly: read the "
    "ratios within one run first."
)
TOGETHER = ("training", "loader")
"""Kinds whose rows are ratios within a run, so that several runs make one table; times of different runs do not."""

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, type=PATH)
@click.option("--output", "-o", type=PATH, help="Write report.md and its pictures into that folder.")
@click.option("--markdown", type=PATH, help="Write the tables alone there; this needs no matplotlib.")
@click.option("--renew", is_flag=True, help="PATHS are documents: make their tables anew, from the records they name.")
@click.option("--readme", "documents", type=PATH, multiple=True, help="The same for one document.")
@click.option("--check", is_flag=True, help="Only say which of the documents' tables differ, with exit code 1.")
def command(
    paths: tuple[Path, ...],
    output: Path | None,
    markdown: Path | None,
    renew: bool,
    documents: tuple[Path, ...],
    check: bool,
) -> None:
    """Show the figures of PATHS, JSON files that benchmarks wrote, or renew documents that show them."""
    is_written = output is not None or markdown is not None
    if renew:
        if is_written or not paths:
            raise click.UsageError("--renew takes documents, and neither --output nor --markdown.")
        documents, paths = (*documents, *paths), ()
    if not is_written and not documents:
        raise click.UsageError("Nothing to write: give --output, --markdown or --renew.")
    if check and not documents:
        raise click.UsageError("--check is about documents: give --renew and their names too.")
    if paths and not is_written:
        raise click.UsageError("Records are for --output and --markdown; documents name their own.")
    if is_written:
        _write(paths, folder=output, markdown=markdown)
    if documents:
        _renew(documents, check=check)


def _renew(documents: Sequence[Path], *, check: bool) -> None:
    found = {document: renewed(document) for document in documents}
    stale = {document: tables for document, (_, tables) in found.items() if tables}
    if check and stale:
        said = "; ".join(f"{document}: {' and '.join(tables)}" for document, tables in stale.items())
        raise DataError(
            f"tables that do not have what their records say, in {said}; renew them: "
            f"python -m benchmarks.report --renew {' '.join(map(str, stale))}"
        )
    for document, (text, tables) in found.items():
        if tables:
            write_text(document, text)
        click.echo(f"{document}: {'made anew: ' + ', '.join(tables) if tables else 'all tables are as records say'}")


def _write(records: Sequence[Path], *, folder: Path | None, markdown: Path | None) -> None:
    for path in (markdown, folder and folder / "report.md"):
        if path is not None:
            require_place(path)
    sources = origins(records)
    plain = to_document(sources, captions={})
    if folder is not None:
        pictures = _draw(sources)
        text = to_document(sources, captions={name: caption for name, (_, caption) in pictures.items()})
        make_folder(folder)
        for name, (data, _) in pictures.items():
            write_bytes(folder / f"{name}.png", data)
        write_text(folder / "report.md", text)
        click.echo(f"{folder / 'report.md'}: {len(sources)} records, {len(pictures)} pictures")
    if markdown is not None:
        write_text(markdown, plain)
        click.echo(f"{markdown}: {len(sources)} records")


def _draw(sources: Sequence[Origin]) -> dict[str, tuple[bytes, str]]:
    """PNG and caption of each picture by its name: `figure-1`, and the record's file for those of one record."""
    try:
        from benchmarks.plots import figure_1, of_record  # a machine that only runs engines has no matplotlib
    except ModuleNotFoundError as error:
        raise OutputError(
            f"pictures cannot be drawn, found no {error.name} and expected matplotlib; pip install matplotlib, or "
            "write the tables alone: --markdown FILE"
        ) from None
    pictures = {"figure-1": figure_1(sources)}
    for source in sources:
        if (picture := of_record(source)) is not None:
            pictures[_name(source, sources)] = picture
    return pictures


def _name(source: Origin, sources: Sequence[Origin]) -> str:
    """Of a record's picture: its file's, with a number where several have that."""
    same = [other for other in sources if other.path.stem == source.path.stem]
    return source.path.stem + (f"-{same.index(source) + 1}" if len(same) > 1 else "")


def to_document(sources: Sequence[Origin], *, captions: Mapping[str, str]) -> str:
    """The report in Markdown: figure 1, each kind of benchmark, then records without a table of their own.

    Args:
        captions: of the pictures there are.
    Raises:
        DataError: if a complete record lacks what is to be shown.
    """
    parts = [f"# {TITLE}", WORDS, "## Accuracy over time", *_picture("figure-1", "Figure 1", captions)]
    parts += [f"### {PAPER.title}", to_markdown(PAPER, [])]
    shown: list[Origin] = []
    for name, kind in KINDS.items():
        of_kind = [source for source in sources if name != "summary" and _has_rows(kind, source)]
        if not of_kind:
            continue
        for group in [of_kind] if name in TOGETHER else [[source] for source in of_kind]:
            title = kind.title if group == of_kind else f"{kind.title} ({group[0].path.name})"
            parts.append(f"## {title}")
            if group[0] not in shown:
                parts += _picture(_name(group[0], sources), title, captions)
            parts.append(_table(kind, group))
        shown += of_kind
    for source in sources:
        if source not in shown:
            title = f"{source.record.benchmark} ({source.path.name})"
            parts += [f"## {title}", to_markdown(KINDS["measures"], [source])]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _has_rows(kind: TableKind, source: Origin) -> bool:
    """Whether the table is of the record's benchmark and has something to show, or to say what it lacks."""
    if source.record.benchmark not in kind.benchmarks:
        return False
    try:
        with source.read_as_expected():
            return any(True for _ in kind.entries(source.record))
    except DataError:
        return True


def _picture(name: str, title: str, captions: Mapping[str, str]) -> Iterator[str]:
    if name in captions:
        yield f"![{title}]({name}.png)"
        yield captions[name]


def _table(kind: TableKind, sources: Sequence[Origin]) -> str:
    """Of an incomplete record that has not all the table shows, what it has measured instead."""
    try:
        return to_markdown(kind, sources)
    except DataError:
        if all(source.record.is_complete for source in sources):
            raise
        return to_markdown(KINDS["measures"], sources)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
