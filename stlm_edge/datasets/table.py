"""Tables that people, spreadsheets and scripts write: comma, semicolon or tab between columns that have names."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class TableError(Exception):
    """What was found in a table and what was expected, to stand after its path; who reads it says what to do."""


def table_rows(text: str, columns: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and fields of each line after the first, by the names of `columns`.

    Columns may stand in another order and among others; capitals and spaces around names and fields count for nothing.

    Args:
        columns: name → other names that the column may have.
    Raises:
        TableError: if a column is missing or there twice, or a line has more fields than there are columns.
        csv.Error: if the text is no such table.
    """
    known = {other: name for name, others in columns.items() for other in (name, *others)}
    lines = io.StringIO(text, newline="")
    head, separator, names = lines.readline(), ",", list[str]()
    for each in _SEPARATORS:
        written = [name.strip().casefold() for name in next(csv.reader([head], delimiter=each), [])]
        read = [known.get(name, name) for name in written]
        if len(set(columns) & set(read)) > len(set(columns) & set(names)):
            separator, names = each, read
    absent = [name for name in columns if name not in names]
    if absent:
        raise TableError(
            f" lacks the columns {', '.join(absent)}: found {head.strip()[:120]!r}, expected {','.join(columns)} with "
            f"{', '.join(_SEPARATORS.values())} between them"
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name in columns]
    if twice:
        raise TableError(f" has {twice[0]} as the name of several columns, expected one")
    reader = csv.reader(lines, delimiter=separator, strict=True)
    for fields in reader:
        if len(fields) > len(names) and any(fields[len(names) :]):
            raise TableError(
                f", line {reader.line_num + 1}: found {len(fields)} fields, expected {len(names)} or quotes "
                f"around those that have {_SEPARATORS[separator]} in them"
            )
        by_name = dict(zip(names, (field.strip() for field in fields), strict=False))
        yield reader.line_num + 1, {name: by_name.get(name, "") for name in columns}
