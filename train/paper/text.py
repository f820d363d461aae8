"""Tables as a terminal and as Markdown have them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from stlm_edge.names import markdown

DASH = "–"
WIDTH = 120
"""Characters of a line for a terminal."""


@dataclass(frozen=True)
class TextTable:
    """A table ready to be laid out.

    Attributes:
        rows: texts by column; the first column names the row.
        notes: lines below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def as_markdown(table: TextTable) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" + "|---:" * (len(table.columns) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join((markdown(row[0]), *row[1:])) + " |" for row in table.rows)])


def wrapped(note: str, *, indent: int = 2) -> str:
    """A line below a table, for a terminal."""
    first, more = " " * indent, " " * 2 * indent
    return textwrap.fill(note, WIDTH, initial_indent=first, subsequent_indent=more, break_long_words=False)


def aligned(table: TextTable) -> str:
    """Columns as wide as their widest text; headings of two words stand on two lines."""
    upper = [name.rpartition(" ")[0] for name in table.columns]
    lower = [name.rpartition(" ")[2] for name in table.columns]
    lines = [upper, lower, *table.rows] if any(upper) else [lower, *table.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
