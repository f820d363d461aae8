"""Tables in a Markdown document that are made from records, between comments that readers do not see.

    <!-- table: training from benchmarks/results/training-stlm-512.json benchmarks/results/training-cpu-preset.json -->
    <!-- end -->

What stands between the two lines is replaced. Paths are relative to the document. Lines that are indented are examples.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.tables import KINDS, origins, to_markdown
from stlm_edge.errors import DataError

_START = re.compile(r"<!--\s*table:\s*(?P<name>\S+)\s+from\s+(?P<paths>\S+(?:\s+\S+)*?)\s*-->")
_END = "<!-- end -->"
_EXAMPLE = f"'<!-- table: loop from benchmarks/results/loop-1024.json -->' and below it '{_END}'"


def renewed(document: Path) -> tuple[str, list[str]]:
    """The document's text with all its tables made anew, and those that were not so before, in words.

    Raises:
        DataError: if it cannot be read or has no place for a table, or a marker or a record of it is not as it should
            be.
    """
    try:
        lines = document.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{document} cannot be read ({error}); name a Markdown document") from None
    stale: list[str] = []
    kept: list[str] = []  # the new text, as far as it goes
    opened: re.Match[str] | None = None
    start = 0  # line of the marker that opened a table, from 1
    for number, line in enumerate(lines, 1):
        where = f"{document}, line {number}"
        if line.startswith("<!--") and "table:" in line:
            if opened is not None:
                raise DataError(f"{where} begins a table within the one of line {start}; put '{_END}' before it")
            opened, start = _START.fullmatch(line.strip()), number
            if opened is None:
                raise DataError(f"{where} has {line.strip()!r}, expected a marker such as {_EXAMPLE}")
            if opened["name"] not in KINDS:
                raise DataError(f"{where} asks for the table {opened['name']!r}, expected one of {', '.join(KINDS)}")
            kept.append(line)
        elif line.rstrip() == _END:
            if opened is None:
                raise DataError(f"{where} ends a table that no marker begins; expected {_EXAMPLE}")
            sources = origins(document.parent / path for path in opened["paths"].split())
            made = ["", *to_markdown(KINDS[opened["name"]], sources).split("\n")]
            if lines[start : number - 1] != made:
                stale.append(f"the table {opened['name']} from {opened['paths']}")
            kept += [*made, line]
            opened = None
        elif opened is None:
            kept.append(line)
    if opened is not None:
        raise DataError(f"{document} has no '{_END}' for the table that line {start} begins; add it below the table")
    if start == 0:
        raise DataError(f"{document} has no place for a table, expected a line such as {_EXAMPLE}")
    return "\n".join(kept), stale
