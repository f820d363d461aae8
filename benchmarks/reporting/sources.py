"""The records that a report is made of, and the words that say where a figure is from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.record import Record, read
from stlm_edge.errors import DataError

T = TypeVar("T")

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


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Around code that takes a record's details for granted: where they are not as they should be, says so.

    Raises `DataError`.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{source.path} lacks what is to be shown of benchmarks.{source.record.benchmark} "
            f"({type(error).__name__}: {error}); measure again with this version of stlm-edge"
        ) from None


def made_of(source: Source, make: Callable[[Record], list[T]]) -> list[T]:
    """What `make` makes of a record; nothing of an incomplete one that lacks what is needed: that one is marked.

    Raises:
        DataError: if a complete record lacks it.
    """
    try:
        with reading(source):
            return make(source.record)
    except DataError:
        if source.record.is_complete:
            raise
        return []


def identifier(text: str) -> str:
    """`text` as an identifier in HTML."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
