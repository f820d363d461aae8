"""What the finished runs of a grid obtained, and means over their categories and seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stlm_edge.errors import DataError
from train.report import EVALUATION_NAME

RECORD_NAME = "grid.json"
"""In each run's folder: which cell of the grid it is."""


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        overall, tlm_only: its metrics with and without feature aggregation, in 0 … 1; None where undefined.
    """

    preset: str
    category: str
    seed: int
    overall: dict[str, float | None]
    tlm_only: dict[str, float | None]

    def value(self, group: str, metric: str) -> float | None:
        values = self.overall if group == "overall" else self.tlm_only
        return values.get(metric)


@dataclass(frozen=True)
class Obtained:
    """A mean over categories and seeds, in percent.

    Attributes:
        spread: standard deviation over the seeds that have all of `categories`; None for fewer than two.
        seeds: how many there are.
        categories: how many it is the mean of, `expected` how many the paper's is.
    """

    mean: float
    spread: float | None
    seeds: int
    categories: int
    expected: int


def read_records(folder: Path) -> list[Record]:
    """All finished runs below a grid's folder. Raises `DataError` if a file is damaged."""
    records = []
    for path in sorted(folder.glob(f"*/*/*/{RECORD_NAME}")):
        evaluation = path.parent / EVALUATION_NAME
        if evaluation.is_file():
            cell, measured = read_json(path), read_json(evaluation)
            try:
                records.append(
                    Record(
                        preset=str(cell["preset"]),
                        category=str(cell["category"]),
                        seed=int(cell["seed"]),
                        overall=measured["overall"],
                        tlm_only=measured["tlm_only"]["overall"],
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path.parent} holds no finished run of a grid ({error!r}); delete it") from None
    return records


def read_json(path: Path) -> dict[str, Any]:
    """Raises `DataError` if the file cannot be read or holds no object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it, and the run is done again") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} holds {type(values).__name__}, expected an object; delete it")
    return values


def average(
    records: Iterable[Record], *, preset: str, categories: Sequence[str], metric: str, group: str = "overall"
) -> Obtained | None:
    """Mean over those of `categories` that have been run; None if none has."""
    by_category: dict[str, dict[int, float]] = {}
    for record in records:
        value = record.value(group, metric)
        if record.preset == preset and record.category in categories and value is not None:
            by_category.setdefault(record.category, {})[record.seed] = 100 * value
    if not by_category:
        return None
    seeds = set().union(*by_category.values())
    complete = [seed for seed in sorted(seeds) if all(seed in runs for runs in by_category.values())]
    per_seed = [statistics.mean(runs[seed] for runs in by_category.values()) for seed in complete]
    return Obtained(
        mean=statistics.mean(statistics.mean(runs.values()) for runs in by_category.values()),
        spread=statistics.stdev(per_seed) if len(per_seed) > 1 else None,
        seeds=len(seeds),
        categories=len(by_category),
        expected=len(categories),
    )
