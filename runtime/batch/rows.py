"""The rows of `scores.csv` as bytes, each with its checksum, and back.

The checksums lie in a file of their own, a line for each row in no order: CRC-32 of the row's text with its line feed.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from stlm_edge.errors import OutputError, shown

logger = logging.getLogger(__name__)

COLUMNS = ("path", "score", "threshold", "anomalous", "regions", "label", "seconds", "error")


def encoded(rows: Iterable[Sequence[str]]) -> tuple[bytes, bytes]:
    """The rows as they stand in the table, and their checksums as they stand in theirs."""
    lines = [_text(row).encode("utf-8", "surrogateescape") for row in rows]
    return b"".join(lines), b"".join(b"%08x\n" % zlib.crc32(line) for line in lines)


def read_rows(table: Path, checksums: Path, *, remedy: str) -> list[list[str]]:
    """The rows up to the last one that is as it was written.

    A table without checksums, of an older version or copied without hidden files, is looked at alone.

    Args:
        remedy: the end of messages.
    Raises:
        OutputError: if the table is none or cannot be read, or a row before the last one was changed.
    """
    try:
        rows = _complete_rows(table.read_bytes().decode("utf-8", "surrogateescape"))
        known = frozenset(checksums.read_bytes().split()) if checksums.exists() else None
    except OSError as error:
        raise OutputError(f"{table} cannot be read ({error.strerror or error}); {remedy}") from error
    if rows is None:
        raise OutputError(f"{table} is not as it was written, expected {', '.join(COLUMNS)}; {remedy}")
    if known is None and rows:
        logger.info("%s has no checksums beside it, so that only its form is looked at", table)
    is_right = [_is_row(row) and (known is None or encoded([row])[1].strip() in known) for row in rows]
    while rows and not is_right[-1]:
        name = shown(rows[-1][0])
        logger.warning("the last row of %s, of %s, is not as it was written; it is inspected again", table, name)
        rows, is_right = rows[:-1], is_right[:-1]
    if not all(is_right):
        name = shown(rows[is_right.index(False)][0])
        raise OutputError(
            f"{table} has a row of {name} that is not as it was written; remove that row to have the picture inspected "
            f"again, or {remedy}"
        )
    return rows


def _complete_rows(text: str) -> list[list[str]] | None:
    """The rows below the header without a torn last one; None if the text is no such table."""
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
    # A power cut may leave zeros where the last lines were to be.
    try:
        rows = list(csv.reader(io.StringIO(text.partition("\0")[0], newline="")))
    except csv.Error:  # a cell of more than 128 KiB
        return None
    if not rows:
        return []
    while len(rows) > 1 and len(rows[-1]) != len(COLUMNS):
        rows.pop()
    if rows[0] != list(COLUMNS) or any(len(row) != len(COLUMNS) for row in rows):
        return None
    return rows[1:]


def _is_row(row: Sequence[str]) -> bool:
    """Whether the cells are what they should be; that is all that can be seen of them without a checksum."""
    _, score, threshold, anomalous, regions, _, seconds, error = row
    try:
        numbers = [float(cell) for cell in (score, threshold, regions, seconds) if cell]
    except ValueError:
        return False
    is_inspected = all((score, anomalous in ("True", "False"), regions, seconds))
    return all(map(math.isfinite, numbers)) and bool(threshold) and (bool(error) or is_inspected)


def _text(row: Sequence[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()
