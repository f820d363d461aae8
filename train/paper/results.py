"""What the finished runs of a grid obtained, beside the paper's tables: as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stlm_edge.errors import DataError
from stlm_edge.files import write_text
from stlm_edge.names import markdown
from stlm_edge.records import build, read_object
from stlm_edge.seal import unsealed
from train.paper.figures import METRIC_NAMES, PAPER, SCOPES, TABLES, Metric, PaperRow, PaperTable
from train.report import EVALUATION_NAME

RECORD_NAME = "grid.json"
"""In each run's folder: which cell of the grid it is."""

DASH = "–"
OVERVIEW: tuple[tuple[str, str, str], ...] = (
    ("overall", "image_auroc", "I-AUROC"),
    ("overall", "image_ap", "I-AP"),
    ("overall", "pixel_auroc", "P-AUROC"),
    ("overall", "pixel_ap", "AP"),
    ("overall", "aupro", "PRO"),
    ("overall", "pixel_fnr", "FNR"),
    ("tlm_only", "image_auroc", "TLM I-AUROC"),
    ("tlm_only", "pixel_auroc", "TLM P-AUROC"),
    ("tlm_only", "pixel_ap", "TLM AP"),
    ("tlm_only", "aupro", "TLM PRO"),
)
"""Columns of the table of everything: with feature aggregation, then without (TLM only)."""


_AGAIN = "delete it, and the run is done again"


@dataclass(frozen=True)
class FinishedRun:
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


def read_records(folder: Path) -> list[FinishedRun]:
    """All finished runs below a grid's folder. Raises `DataError` if a file is damaged."""
    records = []
    for path in sorted(folder.glob(f"*/*/*/{RECORD_NAME}")):
        evaluation = path.parent / EVALUATION_NAME
        if evaluation.is_file():
            cell, measured = read_json(path), read_json(evaluation)
            try:
                run = {name: cell[name] for name in ("preset", "category", "seed")}
                without = measured["tlm_only"]
                tlm_only = {} if without is None else without["overall"]  # of a network without two streams
                metrics = {"overall": measured["overall"], "tlm_only": tlm_only}
            except (LookupError, TypeError) as error:
                raise DataError(f"{path.parent} holds no finished run of a grid ({error!r}); delete it") from None
            try:
                records.append(build(FinishedRun, run | metrics, error=DataError, remedy=_AGAIN))
            except DataError as error:
                raise DataError(f"{path.parent} holds no finished run of a grid: {error}") from None
    return records


def read_json(path: Path) -> dict[str, Any]:
    """Raises `DataError` if the file cannot be read, holds no object, or was damaged or edited."""
    try:
        return unsealed(read_object(path, error=DataError, remedy=_AGAIN), path, error=DataError, remedy=_AGAIN)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist any more; start again") from None


def average(
    records: Iterable[FinishedRun], *, preset: str, categories: Sequence[str], metric: str, group: str = "overall"
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


@dataclass(frozen=True)
class TextTable:
    """A table ready to be laid out.

    Attributes:
        rows: texts by column; the first column names the row.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def compare(table: PaperTable, records: Sequence[FinishedRun]) -> list[tuple[PaperRow, dict[Metric, Obtained | None]]]:
    """Each row of a table with what was obtained for it."""
    return [
        (
            row,
            {
                metric: average(records, preset=row.preset, categories=SCOPES[row.scope], metric=metric)
                for metric in table.metrics
            },
        )
        for row in table.rows
    ]


def text_tables(records: Sequence[FinishedRun]) -> list[TextTable]:
    """The tables of the paper that the runs belong to, then one of everything that was run.

    A table of ablations needs one of them: the paper's own setting, which is in all of them, is not enough.
    """
    presets = {record.preset for record in records}
    drawn = []
    for table in TABLES:
        ablations = {row.preset for row in table.rows} - {PAPER}
        compared = compare(table, records)
        found = any(value for _, obtained in compared for value in obtained.values())
        if found and (not ablations or ablations & presets):
            drawn.append(_beside(table, compared))
    return [*drawn, _overview(records)]


def write_report(folder: Path, records: Sequence[FinishedRun]) -> tuple[Path, Path]:
    """Write `report.md` and `report.json` into the grid's folder. Raises `OutputError`."""
    markdown, data = folder / "report.md", folder / "report.json"
    parts = [f"## {table.title}\n\n{_markdown(table)}\n" for table in text_tables(records)]
    write_text(markdown, "\n".join([*parts, *(f"{note}\n" for note in notes(records))]))
    values = {
        table.name: [
            {
                "row": row.label,
                "preset": row.preset,
                "scope": row.scope,
                "paper": row.values,
                "obtained": {name: found and dataclasses.asdict(found) for name, found in obtained.items()},
            }
            for row, obtained in compare(table, records)
        ]
        for table in TABLES
    }
    runs = [dataclasses.asdict(record) for record in records]
    write_text(data, json.dumps({"tables": values, "runs": runs}, indent=2) + "\n")
    return markdown, data


def text(records: Sequence[FinishedRun]) -> str:
    """All tables for a terminal."""
    parts = [f"{table.title}\n{_aligned(table)}\n" for table in text_tables(records)]
    return "\n".join([*parts, *notes(records)])


def notes(records: Sequence[FinishedRun]) -> list[str]:
    """What a reader must know to compare the columns."""
    return [
        "In percent; mean ± standard deviation over seeds. Data sets are told by their categories' names. Where fewer "
        "categories were run than the paper averages over, the column says of how many the mean is: compare with care.",
        "The paper resamples the regions' curves for PRO, which is exact here, and does not say at which threshold its "
        "FNR is taken; here it is the F1-optimal one of the pixels.",
    ] * bool(records)


def _beside(table: PaperTable, compared: Sequence[tuple[PaperRow, dict[Metric, Obtained | None]]]) -> TextTable:
    names = [METRIC_NAMES[metric] for metric in table.metrics]
    columns = ["", *(f"{name} {source}" for name in names for source in ("paper", "here")), "categories", "seeds"]
    rows = []
    for row, obtained in compared:
        found = max((value for value in obtained.values() if value), key=lambda one: one.categories, default=None)
        cells = [row.label]
        for metric in table.metrics:
            printed = row.values[metric]
            digits = 0 if metric == "epochs" else 2
            cells += [DASH if printed is None else f"{printed:.{digits}f}", _mean(obtained[metric], found)]
        cells.append(f"{found.categories} of {found.expected}" if found else DASH)
        cells.append(str(found.seeds) if found else DASH)
        rows.append(tuple(cells))
    return TextTable(f"{table.name}: {table.title}", tuple(columns), tuple(rows))


def _overview(records: Sequence[FinishedRun]) -> TextTable:
    rows = []
    for preset in sorted({record.preset for record in records}):
        own = sorted({record.category for record in records if record.preset == preset})
        groups = [(name, (name,)) for name in own] + ([("average", tuple(own))] if len(own) > 1 else [])
        for name, categories in groups:
            cells = [f"{preset}, {name}"]
            means = [
                average(records, preset=preset, categories=categories, metric=metric, group=group)
                for group, metric, _ in OVERVIEW
            ]
            most = max((value for value in means if value), key=lambda one: one.categories, default=None)
            cells += [_mean(value, most) for value in means]
            cells.append(str(len({r.seed for r in records if r.preset == preset and r.category in categories})))
            rows.append(tuple(cells))
    return TextTable("all runs", ("", *(name for _, _, name in OVERVIEW), "seeds"), tuple(rows))


def _mean(found: Obtained | None, most: Obtained | None) -> str:
    """With the number of categories where it is a mean of fewer than its row's; some have no masks."""
    if found is None or most is None:
        return DASH
    spread = "" if found.spread is None else f" ± {found.spread:.2f}"
    fewer = f" (of {found.categories})" if found.categories < most.categories else ""
    return f"{found.mean:.2f}{spread}{fewer}"


def _markdown(table: TextTable) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" + "|---:" * (len(table.columns) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join((markdown(row[0]), *row[1:])) + " |" for row in table.rows)])


def _aligned(table: TextTable) -> str:
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
