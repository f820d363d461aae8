"""The report of a grid: the paper's tables and figure 1 beside what was obtained, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stlm_edge.files import write_bytes, write_text
from stlm_edge.names import markdown
from train.paper.comparison import Compared, about, compare, setup
from train.paper.data_sets import DATA_SETS, SCOPES
from train.paper.figure_1 import draw_figure_1
from train.paper.figures import METRIC_NAMES, PAPER, TABLES, Metric, PaperTable
from train.paper.methods import PRINTED, STLM
from train.paper.provenance import (
    MARKED,
    REFUSED,
    all_settings,
    best_note,
    differences,
    in_short,
    made,
    parameters_m,
    told,
)
from train.paper.results import FinishedRun, Obtained, average
from train.paper.text import DASH, TextTable, aligned, as_markdown, wrapped

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

BEST = "best-on-test (epoch)"


def text_tables(records: Sequence[FinishedRun]) -> list[TextTable]:
    """The tables of the paper that the runs belong to, then one of everything that was run.

    A table of ablations needs one of them: the paper's own setting, which is in all of them, is not enough.
    """
    drawn = []
    for table, rows in _drawn(records):
        parts = _of_methods(table, rows) if table.name in PRINTED else [_beside(table, rows)]
        drawn += [*parts[:-1], dataclasses.replace(parts[-1], notes=(*told(table, rows), *parts[-1].notes))]
    return [*drawn, *_overview(records)]


def _drawn(records: Sequence[FinishedRun]) -> Iterable[tuple[PaperTable, list[Compared]]]:
    for table in TABLES:
        rows = compare(table, records)
        ablations = {row.preset for row in table.rows} - {PAPER}
        if {run.preset for each in rows for run in each.runs} & (ablations or {PAPER}):
            yield table, rows


def write_report(folder: Path, records: Sequence[FinishedRun]) -> tuple[Path, ...]:
    """Write `report.md`, its `figure-1.png` where table 1 is in it, and `report.json`. Raises `OutputError`."""
    document, data, picture = folder / "report.md", folder / "report.json", folder / "figure-1.png"
    parts = []
    for table in text_tables(records):
        parts += [f"## {table.title}\n", f"{as_markdown(table)}\n", *(f"{markdown(note)}\n" for note in table.notes)]
    drawn = {table.name: rows for table, rows in _drawn(records)}
    written: tuple[Path, ...] = (document, data)
    if "table 1" in drawn:
        (whole,) = [each for each in drawn["table 1"] if each.row.scope == "MVTec"]
        drawing, caption = draw_figure_1(whole.obtained["pixel_auroc"], made=in_short(whole.runs))
        write_bytes(picture, drawing)
        parts += ["## figure 1: accuracy over time\n", f"![figure 1]({picture.name})\n", f"{caption}\n"]
        written = (document, picture, data)
    write_text(document, "\n".join([*parts, *(f"{markdown(note)}\n" for note in notes(records))]))
    write_text(data, json.dumps(_values(records), indent=2) + "\n")
    return written


def _values(records: Sequence[FinishedRun]) -> dict[str, Any]:
    """What `report.json` holds."""
    tables = {
        table.name: [
            {
                "row": each.row.label,
                "preset": each.row.preset,
                "scope": each.row.scope,
                "paper": each.row.values,
                "obtained": _plain(each.obtained),
                "best_on_test": _plain(each.best),
                "differs": each.marks,
                "refused": each.refused,
            }
            for each in compare(table, records)
        ]
        for table in TABLES
    }
    methods = {name: dataclasses.asdict(table) for name, table in PRINTED.items()}
    return {"tables": tables, "methods": methods, "runs": [dataclasses.asdict(run) for run in records]}


def _plain(means: dict[Metric, Obtained | None]) -> dict[Metric, Any]:
    return {name: found and dataclasses.asdict(found) for name, found in means.items()}


def text(records: Sequence[FinishedRun]) -> str:
    """All tables for a terminal."""
    parts = [
        "\n".join([table.title, aligned(table), *(wrapped(note) for note in table.notes)]) + "\n"
        for table in text_tables(records)
    ]
    return "\n".join([*parts, *(wrapped(note, indent=0) for note in notes(records))])


def notes(records: Sequence[FinishedRun]) -> list[str]:
    """What a reader must know to compare the columns."""
    if not records:
        return []
    other = [run for run in records if run.category in SCOPES and not run.is_of_the_paper]
    named = sorted({run.data or "a data set that is not told" for run in other})
    alike = ", ".join(sorted({run.category for run in other}))
    return [
        "In percent; mean ± standard deviation over seeds. Data sets are told by the names of folder and categories. "
        "Where fewer categories were run than the paper averages over, the column says of how many the mean is: "
        "compare with care.",
        "The paper resamples the regions' curves for PRO, which is exact here, and does not say at which threshold its "
        "FNR is taken; here it is the F1-optimal one of the pixels.",
        *(
            [
                f"No figures of the paper stand beside runs on {', '.join(named)} ({alike}): the categories are called "
                f"as the paper's, the data set is not called {', '.join(DATA_SETS)}."
            ]
            if other
            else []
        ),
    ]


def _here(rows: Iterable[Compared]) -> tuple[str, ...]:
    """The columns of what was obtained; two where the epoch that was best on the test set is known."""
    return ("last", BEST) if any(run.best_on_test for each in rows for run in each.runs) else ("here",)


def _label(each: Compared) -> str:
    return each.row.label + f" {MARKED}" * bool(each.marks) + f" {REFUSED}" * bool(each.refused)


def _cells(each: Compared, metric: Metric, here: Sequence[str]) -> list[str]:
    """What was obtained for a metric, in as many columns as `here` has."""
    most = _most(each.obtained.values())
    last = _mean(each.obtained[metric], most, digits=_digits(metric))
    return [last, _best(each.best[metric], most, each.best_epoch)] if len(here) > 1 else [last]


def _best(found: Obtained | None, most: Obtained | None, epoch: Obtained | None) -> str:
    return _mean(found, most) + (f" ({epoch.mean:.0f})" if found and epoch else "")


def _counts(each: Compared) -> tuple[str, str]:
    """How many categories and seeds the means are of."""
    most = _most(each.obtained.values())
    return (f"{most.categories} of {most.expected}", str(most.seeds)) if most else (DASH, DASH)


def _beside(table: PaperTable, rows: Sequence[Compared]) -> TextTable:
    here = _here(rows)
    columns = [""]
    for metric in table.metrics:
        own = (BEST,) if metric == "epochs" else here
        columns += [f"{METRIC_NAMES[metric]} {source}" for source in ("paper", *own)]
    lines = []
    for each in rows:
        cells = [_label(each)]
        for metric in table.metrics:
            own = here[:1] if metric == "epochs" else here
            cells += [_number(each.row.values[metric], digits=_digits(metric)), *_cells(each, metric, own)]
        lines.append((*cells, *_counts(each)))
    return TextTable(f"{table.name}: {table.title}", (*columns, "categories", "seeds"), tuple(lines))


def _of_methods(table: PaperTable, rows: Sequence[Compared]) -> list[TextTable]:
    """Tables 1 to 3, a metric at a time with a column for each method; then what the paper has no figures of."""
    printed, here = PRINTED[table.name], _here(rows)
    others = [name for name in printed.methods if name != STLM]
    in_paper = [each for each in rows if any(value is not None for value in each.row.values.values())]
    tables = []
    for metric in table.metrics:
        lines = [
            (
                _label(each),
                *(_number(printed.value(each.row.scope, name, metric)) for name in others),
                _number(each.row.values[metric]),
                *_cells(each, metric, here),
                *_counts(each),
            )
            for each in in_paper
        ]
        title = f"{table.name}, {METRIC_NAMES[metric]}: {table.title}"
        columns = ("", *others, STLM, *here, "categories", "seeds")
        tables.append(TextTable(title, columns, tuple(lines)))
    rest = [DASH] * (len(here) + 2)
    costs = [("parameters, M", *_row(printed.parameters_m, [*others, STLM]), parameters_m(rows), *rest[1:])]
    if printed.times_ms:
        costs.append(("inference, ms", *_row(printed.times_ms, [*others, STLM]), *rest))
    tables[-1] = dataclasses.replace(tables[-1], rows=(*tables[-1].rows, *costs))
    run_on = {name for name, own in DATA_SETS.items() if any(run.category in own for each in rows for run in each.runs)}
    alone = [
        each for each in rows if each not in in_paper and any(each.row.scope in DATA_SETS[name] for name in run_on)
    ]
    if alone:
        columns = ("", *(f"{METRIC_NAMES[metric]} {source}" for metric in table.metrics for source in here), "seeds")
        lines = [
            (_label(each), *(cell for metric in table.metrics for cell in _cells(each, metric, here)), _counts(each)[1])
            for each in alone
        ]
        tables.append(
            TextTable(f"{table.name} by category; the paper prints its averages alone", columns, tuple(lines))
        )
    return tables


def _overview(records: Sequence[FinishedRun]) -> list[TextTable]:
    """A row for each preset and category, and one for the average over each data set of several; then the best."""
    rows, best_rows, said = [], [], []
    for preset in sorted({run.preset for run in records}):
        for name, runs in _groups([run for run in records if run.preset == preset]):
            label = f"{preset}, {name}"
            taken_back, marks = about(runs)
            if unlike := differences(map(setup, runs), preset):
                said.append(f"{REFUSED} {label}: runs differ in {unlike}; no means.")
            if taken_back or marks:
                said.append(f"{MARKED} {label}: {'; '.join([*taken_back, *marks])}.")
            label += f" {MARKED}" * bool(taken_back or marks) + f" {REFUSED}" * bool(unlike)
            seeds = str(len({run.seed for run in runs}))
            of = [] if unlike else runs
            means = [_over(of, metric, group) for group, metric, _ in OVERVIEW]
            rows.append((label, *(_mean(value, _most(means)) for value in means), seeds))
            if any(run.best_on_test for run in runs):
                epoch, best = _over(of, "epochs", "best"), [_over(of, metric, "best") for metric in _BEST_OF_ALL]
                best_rows.append((label, *(_best(value, _most(means), epoch) for value in best), seeds))
    notes = (*all_settings(records), *made(records), *said)
    tables = [TextTable("all runs", ("", *(name for _, _, name in OVERVIEW), "seeds"), tuple(rows), notes)]
    if best_rows:
        columns = ("", *(f"{name} {BEST}" for name in _BEST_OF_ALL.values()), "seeds")
        tables.append(TextTable("all runs, best on test", columns, tuple(best_rows), tuple(best_note(records))))
    return tables


def _over(runs: Sequence[FinishedRun], metric: str, group: str) -> Obtained | None:
    """Mean over runs of one preset."""
    categories = sorted({run.category for run in runs})
    return average(runs, preset=runs[0].preset, categories=categories, metric=metric, group=group) if runs else None


_BEST_OF_ALL = {metric: name for group, metric, name in OVERVIEW if group == "overall"}


def _groups(runs: Sequence[FinishedRun]) -> Iterable[tuple[str, list[FinishedRun]]]:
    """Of one preset: those of each category, then those of each data set of several categories."""
    for category in sorted({run.category for run in runs}):
        yield category, [run for run in runs if run.category == category]
    data_sets = sorted({run.data or "" for run in runs})
    for data in data_sets:
        own = [run for run in runs if (run.data or "") == data]
        if len({run.category for run in own}) > 1:
            yield "average" if len(data_sets) == 1 else f"average of {data or 'what is not told'}", own


def _most(means: Iterable[Obtained | None]) -> Obtained | None:
    return max((value for value in means if value), key=lambda one: one.categories, default=None)


def _row(values: Mapping[str, float], names: Iterable[str]) -> list[str]:
    return [f"{values[name]:g}" for name in names]


def _digits(metric: Metric) -> int:
    return 0 if metric == "epochs" else 2


def _number(value: float | None, *, digits: int = 2) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _mean(found: Obtained | None, most: Obtained | None, *, digits: int = 2) -> str:
    """With the number of categories where it is a mean of fewer than its row's; some have no masks."""
    if found is None or most is None:
        return DASH
    spread = "" if found.spread is None else f" ± {found.spread:.{digits}f}"
    fewer = f" (of {found.categories})" if found.categories < most.categories else ""
    return f"{found.mean:.{digits}f}{spread}{fewer}"
