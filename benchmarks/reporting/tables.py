"""Tables of figures, as text for Markdown and HTML, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from textwrap import wrap
from typing import Any

from benchmarks.record import Record
from benchmarks.reporting.sources import INCOMPLETE, Source, reading
from stlm_edge.errors import DataError

Row = tuple[str, ...]

NOTHING = "–"
"""In place of a figure that was not or cannot be measured."""


@dataclass(frozen=True)
class Table:
    """Cells as they are printed.

    Attributes:
        title: of its section.
        notes: sentences below it.
    """

    title: str
    heads: Row
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """How one kind of table is made.

    Attributes:
        benchmarks: whose records it is made of; any if there are none.
        rows, notes: of one record. They may raise whatever comes of details that are not as they should be.
    """

    title: str
    benchmarks: tuple[str, ...]
    heads: Row
    rows: Callable[[Record], list[Row]]
    notes: Callable[[Record], list[str]] = lambda _: []


def percent(share: float | None) -> str:
    """A share of 1 as percent with one decimal."""
    return NOTHING if share is None else rounded(100 * share, digits=1)


def rounded(value: float, *, digits: int, sign: str = "") -> str:
    """With so many digits behind the point; a five is rounded up, as one does by hand, whatever its bits are."""
    exact = Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{exact:{sign}}"


def figure(value: float | None) -> str:
    """With three significant digits, and all those before the point."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".removesuffix(".")


def spread(value: Any, low: Any, high: Any) -> str:
    """A figure and between which two it was."""
    return f"{figure(value)} [{figure(low)}, {figure(high)}]"


def size(height_width: Sequence[int] | None) -> str:
    """Height and width."""
    return NOTHING if height_width is None else " x ".join(map(str, height_width))


def words(text: str | None) -> str:
    return text or NOTHING


def make_table(kind: Kind, sources: Sequence[Source]) -> Table:
    """One table of all records; which device a row is of stands in it if there are several.

    Raises:
        DataError: if a record is another benchmark's, or lacks what the table shows.
    """
    devices = {str(source.record.device) for source in sources}
    heads, rows, notes = kind.heads, list[Row](), list[str]()
    if len(devices) > 1:
        heads = (*heads, "device")
    for source in sources:
        record = source.record
        if kind.benchmarks and record.benchmark not in kind.benchmarks:
            raise DataError(
                f"{source.path} is a record of benchmarks.{record.benchmark}, expected one of "
                f"benchmarks.{' or benchmarks.'.join(kind.benchmarks)}; name another file or another table"
            )
        with reading(source):
            made, said = kind.rows(record), kind.notes(record)
        rows += [(*row, str(record.device)) for row in made] if len(devices) > 1 else made
        notes += [sentence for sentence in said if sentence not in notes]
    return Table(kind.title, heads, tuple(rows), tuple(notes))


def to_markdown(table: Table, sources: Sequence[Source]) -> str:
    """The table, its notes, and for each record a line with command, device, day and commit; ends with a line feed."""
    lines = [_line(table.heads), "|" + "---|" * len(table.heads), *map(_line, table.rows), ""]
    if table.notes:
        lines += [*wrap(" ".join(table.notes), width=120, break_on_hyphens=False), ""]
    for source in sources:
        if not source.record.is_complete:
            lines += [f"**{source.path.name} is {INCOMPLETE}.**", ""]
    lines += [_origin(source) for source in sources]
    return "\n".join(lines) + "\n"


def _origin(source: Source) -> str:
    """Where the figures are from; several of them make a list."""
    return f"- `{source.record.command}`: {source.place} (`{source.path.name}`)"


def _line(cells: Row) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
