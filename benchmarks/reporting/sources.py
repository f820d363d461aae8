"""The records that a report is made of, and the words that say where a figure is from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import Record, read
from stlm_edge.errors import DataError

INCOMPLETE = "INCOMPLETE: this run broke off, so figures are missing"
"""The mark of a record whose benchmark was interrupted or failed."""


@dataclass(frozen=True)
class Source:
    """A record and the file that it was read from."""

    path: Path
    record: Record

    @property
    def place(self) -> str:
        """Device, day and commit of the figures, in words."""
        record = self.record
        commit = record.commit.removesuffix("+")
        words = commit if record.git is None else f"commit {commit}"
        changed = ", with changed files" if record.commit.endswith("+") else ""
        return f"{record.device}; {record.date[:10]}, {words}{changed}"


def read_sources(paths: Iterable[Path]) -> list[Source]:
    """Records in the order of their paths. Raises `DataError` if one cannot be read, or if there is none."""
    sources = [Source(path, read(path)) for path in paths]
    if not sources:
        raise DataError("no records were given, expected the JSON of benchmarks such as benchmarks/results/*.json")
    return sources


def identifier(text: str) -> str:
    """`text` as an identifier in HTML."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
