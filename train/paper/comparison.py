"""The rows of a table with what was obtained for each, and whether that may stand beside the others.

A table compares one setting. A row that differs in another one, or was made on another device, by another commit or
another torch, is marked; of one whose own runs differ in settings, or that is not the ablation it is called, no mean is
formed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from train.paper.ablation import ablated, departures, preset_config, values_of
from train.paper.data_sets import ALL_THREE, DATA_SETS, DEFECTIVE, SCOPES
from train.paper.figures import PAPER, Metric, PaperRow, PaperTable
from train.paper.results import FinishedRun, Obtained, average

Setup = dict[str, str]
"""In what a run is not as its preset, the ablated setting aside: setting → its value."""

MADE_BY: dict[str, Callable[[FinishedRun], str | None]] = {
    "device": lambda run: None if run.made is None else run.made.device,
    "commit": lambda run: None if run.made is None else run.made.commit,
    "torch": lambda run: None if run.made is None else run.made.versions.get("torch"),
}


@dataclass(frozen=True)
class Compared:
    """A row with its runs.

    Attributes:
        obtained: of the last epoch; best: of the epoch that was best on the test set, best_epoch.
        marks: in what it differs from the other rows, beside what the table is about.
        refused: why there are no means.
    """

    row: PaperRow
    runs: tuple[FinishedRun, ...]
    obtained: dict[Metric, Obtained | None]
    best: dict[Metric, Obtained | None]
    best_epoch: Obtained | None
    marks: tuple[str, ...]
    refused: tuple[str, ...]


def compare(table: PaperTable, records: Iterable[FinishedRun]) -> list[Compared]:
    """Each row of a table with what was obtained for it on the paper's data sets."""
    of_paper = [run for run in records if run.is_of_the_paper]
    by_row = [
        (row, tuple(run for run in of_paper if run.preset == row.preset and run.category in SCOPES[row.scope]))
        for row in table.rows
    ]
    every = sorted({id(run): run for _, runs in by_row for run in runs}.values(), key=lambda run: run.preset != PAPER)
    usual = most_usual(map(setup, every))
    made = {name: Counter(map(tell, every)).most_common(1)[0][0] if every else None for name, tell in MADE_BY.items()}
    return [_compared(table, row, runs, usual=usual, made=made) for row, runs in by_row]


def _compared(
    table: PaperTable, row: PaperRow, runs: tuple[FinishedRun, ...], *, usual: Setup, made: dict[str, str | None]
) -> Compared:
    refused, marks = about(runs)
    own = list({frozenset(each.items()): each for each in map(setup, runs)}.values())
    if len(own) > 1:
        refused.append("runs differ in " + _unlike(own, between=" and "))
    elif own and own[0] != usual:
        marks.append(_unlike([own[0], usual], between=", elsewhere "))
    marks += incomplete(runs)
    for name, tell in MADE_BY.items():
        found = sorted({str(tell(run) or "not told") for run in runs})
        if found not in ([], [str(made[name] or "not told")]):
            marks.append(f"{name} {' and '.join(found)}, elsewhere {made[name] or 'not told'}")
    means = {
        group: {metric: None if refused else _mean(row, runs, metric, group) for metric in table.metrics}
        for group in ("overall", "best")
    }
    epoch = _mean(row, runs, "epochs", "best")
    return Compared(row, runs, means["overall"], means["best"], epoch, tuple(marks), tuple(refused))


def about(runs: Iterable[FinishedRun]) -> tuple[list[str], list[str]]:
    """Why runs are not what their preset is about, and in what they are that another way than the preset."""
    refused: dict[str, None] = {}
    marks: dict[str, None] = {}
    for run in runs:
        gone = {} if run.config is None else departures(run.config, run.preset)
        for name, (papers, own) in ablated(run.preset).items():
            if name in gone:
                found = shown(gone[name][1])
                takes_back = gone[name][1] == papers
                told = f"{name} is {found}, which the preset {run.preset} has as {shown(own)}"
                (refused if takes_back else marks)[told] = None
    return list(refused), list(marks)


def incomplete(runs: Iterable[FinishedRun]) -> list[str]:
    """Where a category's test pictures are not those that its data set has."""
    found = {
        run.category: f"{run.category} {run.defective} of {DEFECTIVE[run.category]}"
        for run in runs
        if run.defective is not None and run.defective != DEFECTIVE[run.category]
    }
    told = f"NOT THE PAPER'S TEST PICTURES, by the number of defective ones: {', '.join(found.values())}"
    return [told] if found else []


def _mean(row: PaperRow, runs: Sequence[FinishedRun], metric: Metric, group: str) -> Obtained | None:
    """Over a row's categories; over all three data sets as the paper does, where each is complete."""
    if row.scope != ALL_THREE:
        return average(runs, preset=row.preset, categories=SCOPES[row.scope], metric=metric, group=group)
    found = [
        average(runs, preset=row.preset, categories=categories, metric=metric, group=group)
        for categories in DATA_SETS.values()
    ]
    complete = [each for each in found if each is not None and each.categories == each.expected]
    if len(complete) < len(DATA_SETS):
        return None
    count = len(SCOPES[ALL_THREE])
    mean = statistics.mean(each.mean for each in complete)
    return Obtained(mean, None, min(each.seeds for each in complete), count, count)


def setup(run: FinishedRun) -> Setup:
    """In what a run is not as its preset, with what no preset says: textures and the size that figures are of."""
    found: Setup = {}
    if run.config is None:
        found["settings"] = "not told"
    else:
        gone = departures(run.config, run.preset)
        found |= {name: shown(value) for name, (_, value) in gone.items() if name not in ablated(run.preset)}
    if run.made is not None:
        found["textures"] = (
            "none" if run.made.textures is None else str(PurePath(*PurePath(run.made.textures).parts[-2:]))
        )
    if run.metric_size is not None:
        found["metric_size"] = shown(run.metric_size)
    return found


def most_usual(setups: Iterable[Setup]) -> Setup:
    """What most runs have; of equally many the first."""
    counted = Counter(frozenset(each.items()) for each in setups)
    return dict(counted.most_common(1)[0][0]) if counted else {}


def paper_value(name: str, preset: str = PAPER) -> str:
    """What a preset has for one of a setup's names, or what is so where nobody asks for anything else."""
    return {"textures": "DTD", "metric_size": "each picture's own", "settings": "told"}.get(name) or shown(
        values_of(preset_config(preset))[name]
    )


def shown(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unlike(setups: Sequence[Setup], *, between: str) -> str:
    """Where they differ, with all their values."""
    names = list(dict.fromkeys(name for each in setups for name in each))
    values = {name: list(dict.fromkeys(each.get(name, paper_value(name)) for each in setups)) for name in names}
    return "; ".join(f"{name} {between.join(found)}" for name, found in values.items() if len(found) > 1)
