"""Tables in a Markdown document that are made from records, between comments that readers do not see.

    <!-- table: training from benchmarks/results/training-stlm-512.json benchmarks/results/training-cpu-preset.json -->
    <!-- end -->

What stands between the two lines is replaced. Paths are relative to the document. Lines that are indented are examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import KINDS, origins, to_markdown
from stlm_edge.errors import DataError

_START = re.compile(r"<!--\s*table:\s*(?P<name>\S+)\s+from\s+(?P<paths>\S+(?:\s+\S+)*?)\s*-->")
_END = "<!-- end -->"
_EXAMPLE = f"'<!-- table: loop from benchmarks/results/loop-1024.json -->' and below it '{_END}'"


@dataclass(frozen=True)
class Place:
    """Where a table stands.

    Attributes:
        name: a key of `KINDS`.
        paths: of the records, as the marker has them.
        start, stop: lines between the markers, from 0.
    """

    name: str
    paths: tuple[str, ...]
    start: int
    stop: int

    def __str__(self) -> str:
        return f"the table {self.name} from {' '.join(self.paths)}"


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
    for place in reversed(_places(document, lines)):  # from the end, so that line numbers stay true
        sources = origins(document.parent / path for path in place.paths)
        made = ["", *to_markdown(KINDS[place.name], sources).split("\n")]
        if lines[place.start : place.stop] != made:
            stale.insert(0, str(place))
        lines[place.start : place.stop] = made
    return "\n".join(lines), stale


def _places(document: Path, lines: list[str]) -> list[Place]:
    places = []
    opened: tuple[int, str, tuple[str, ...]] | None = None
    for number, line in enumerate(lines):
        where = f"{document}, line {number + 1}"
        if line.startswith("<!--") and "table:" in line:
            match = _START.fullmatch(line.strip())
            if match is None:
                raise DataError(f"{where} has {line.strip()!r}, expected a marker such as {_EXAMPLE}")
            if match["name"] not in KINDS:
                raise DataError(f"{where} asks for the table {match['name']!r}, expected one of {', '.join(KINDS)}")
            if opened is not None:
                raise DataError(f"{where} begins a table within the one of line {opened[0]}; put '{_END}' before it")
            opened = (number + 1, match["name"], tuple(match["paths"].split()))
        elif line.rstrip() == _END:
            if opened is None:
                raise DataError(f"{where} ends a table that no marker begins; expected {_EXAMPLE}")
            places.append(Place(opened[1], opened[2], opened[0], number))
            opened = None
    if opened is not None:
        raise DataError(
            f"{document} has no '{_END}' for the table that line {opened[0]} begins; add it below the table"
        )
    if not places:
        raise DataError(f"{document} has no place for a table, expected a line such as {_EXAMPLE}")
    return places
