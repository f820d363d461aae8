"""The paper's tables beside what a grid obtained, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.files import write_text
from train.paper.grid_results import Obtained, Record, average
from train.paper.results import METRIC_NAMES, PAPER, SCOPES, TABLES, Metric, Row, Table

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


@dataclass(frozen=True)
class Sheet:
    """A table ready to be laid out.

    Attributes:
        rows: texts by column; the first column names the row.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def compare(table: Table, records: Sequence[Record]) -> list[tuple[Row, dict[Metric, Obtained | None]]]:
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


def sheets(records: Sequence[Record]) -> list[Sheet]:
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


def write_report(folder: Path, records: Sequence[Record]) -> tuple[Path, Path]:
    """Write `report.md` and `report.json` into the grid's folder. Raises `OutputError`."""
    markdown, data = folder / "report.md", folder / "report.json"
    parts = [f"## {sheet.title}\n\n{_markdown(sheet)}\n" for sheet in sheets(records)]
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


def text(records: Sequence[Record]) -> str:
    """All tables for a terminal."""
    parts = [f"{sheet.title}\n{_aligned(sheet)}\n" for sheet in sheets(records)]
    return "\n".join([*parts, *notes(records)])


def notes(records: Sequence[Record]) -> list[str]:
    """What a reader must know to compare the columns."""
    return [
        "In percent; mean ± standard deviation over seeds. Data sets are told by their categories' names. Where fewer "
        "categories were run than the paper averages over, the column says of how many the mean is: compare with care.",
        "The paper resamples the regions' curves for PRO, which is exact here, and does not say at which threshold its "
        "FNR is taken; here it is the F1-optimal one of the pixels.",
    ] * bool(records)


def _beside(table: Table, compared: Sequence[tuple[Row, dict[Metric, Obtained | None]]]) -> Sheet:
    names = [METRIC_NAMES[metric] for metric in table.metrics]
    columns = ["", *(f"{name} {source}" for name in names for source in ("paper", "here")), "categories", "seeds"]
    rows = []
    for row, obtained in compared:
        found = next((value for value in obtained.values() if value), None)
        cells = [row.label]
        for metric in table.metrics:
            printed = row.values[metric]
            digits = 0 if metric == "epochs" else 2
            cells += [DASH if printed is None else f"{printed:.{digits}f}", _mean(obtained[metric])]
        cells.append(f"{found.categories} of {found.expected}" if found else DASH)
        cells.append(str(found.seeds) if found else DASH)
        rows.append(tuple(cells))
    return Sheet(f"{table.name}: {table.title}", tuple(columns), tuple(rows))


def _overview(records: Sequence[Record]) -> Sheet:
    rows = []
    for preset in sorted({record.preset for record in records}):
        own = sorted({record.category for record in records if record.preset == preset})
        groups = [(name, (name,)) for name in own] + ([("average", tuple(own))] if len(own) > 1 else [])
        for name, categories in groups:
            cells = [f"{preset}, {name}"]
            for group, metric, _ in OVERVIEW:
                cells.append(_mean(average(records, preset=preset, categories=categories, metric=metric, group=group)))
            cells.append(str(len({r.seed for r in records if r.preset == preset and r.category in categories})))
            rows.append(tuple(cells))
    return Sheet("all runs", ("", *(name for _, _, name in OVERVIEW), "seeds"), tuple(rows))


def _mean(found: Obtained | None) -> str:
    if found is None:
        return DASH
    return f"{found.mean:.2f}" + ("" if found.spread is None else f" ± {found.spread:.2f}")


def _markdown(sheet: Sheet) -> str:
    lines = ["| " + " | ".join(sheet.columns) + " |", "|---" + "|---:" * (len(sheet.columns) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in sheet.rows)])


def _aligned(sheet: Sheet) -> str:
    """Columns as wide as their widest text; headings of two words stand on two lines."""
    upper = [name.rpartition(" ")[0] for name in sheet.columns]
    lower = [name.rpartition(" ")[2] for name in sheet.columns]
    lines = [upper, lower, *sheet.rows] if any(upper) else [lower, *sheet.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(sheet.columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
