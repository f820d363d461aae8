"""What stands under a table of the report: settings and origin of its runs, and what is wrong with which row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import torch

from stlm_edge.network.design import Design
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import Size
from train.config import presets
from train.paper.ablation import base_of, values_of
from train.paper.comparison import MADE_BY, Compared, Setup, incomplete, most_usual, paper_value, setup, shown
from train.paper.figures import PAPER, PaperTable
from train.paper.results import FinishedRun
from train.paper.text import DASH

MARKED, REFUSED = "†", "‡"
"""Behind a row's name: it differs from the others in more than the table is about; there are no means of it."""

ALWAYS = ("image_size", "epochs", "teacher", "teacher_weights", "initial_weights", "textures", "metric_size")
"""What is said of every run."""

AUTHORS_METRIC_SIZE = "1024x1024"


def told(table: PaperTable, rows: Sequence[Compared]) -> list[str]:
    """The lines under one of the paper's tables."""
    runs = list({id(run): run for each in rows for run in each.runs}.values())
    return [
        *([table.remark] if table.remark else []),
        f"Settings of the runs: {_settings(runs, PAPER)}.",
        *made(runs),
        *_by_row(MARKED, [(each.row.label, each.marks) for each in rows]),
        *_by_row(REFUSED, [(each.row.label, each.refused) for each in rows], after="; no means"),
        *best_note(runs),
    ]


def all_settings(runs: Sequence[FinishedRun]) -> list[str]:
    """A line for all presets whose runs differ from them in the same."""
    groups: dict[tuple[str, frozenset[tuple[str, str]]], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault((_compared_with(run.preset), frozenset(setup(run).items())), []).append(run)
    return [
        f"Settings of {', '.join(sorted({run.preset for run in own}))}: {_settings(own, base)}."
        for (base, _), own in groups.items()
    ]


def _compared_with(preset: str) -> str:
    """The preset whose values are told beside a run's own: that of the paper for its ablations and for own files."""
    return preset if preset in presets() and base_of(preset) is None else PAPER


def _settings(runs: Sequence[FinishedRun], preset: str) -> str:
    usual = most_usual(map(setup, runs))
    whose = "paper" if preset == PAPER else f"preset {preset}"
    said = {}
    for name in (*ALWAYS, *sorted(usual.keys() - set(ALWAYS))):
        values = " / ".join(dict.fromkeys(_value(run, name) for run in runs))
        beside = f" ({whose}: {paper_value(name, preset)})" if name in usual else ""
        if name == "textures" and preset != PAPER:  # which no preset names
            beside = ""
        if name == "metric_size":  # of which the paper says nothing
            beside = "" if values == AUTHORS_METRIC_SIZE else f" (authors' code: {AUTHORS_METRIC_SIZE})"
        said[name] = f"{name} {values}{beside}"
    more = [text for name, text in said.items() if name not in ALWAYS]
    return ", ".join(said[name] for name in ALWAYS) + ("; " * bool(more)) + ", ".join(more)


def _value(run: FinishedRun, name: str) -> str:
    """A setting of a run, whether or not it is as its preset has it."""
    special = {"textures": "not told", "metric_size": paper_value("metric_size"), "settings": "told"}
    if name in special:
        return setup(run).get(name, special[name])
    return "not told" if run.config is None else shown(values_of(run.config)[name])


def made(runs: Sequence[FinishedRun]) -> list[str]:
    """Data set, device, date, commit, versions and the teacher's weights."""
    dates = sorted({run.made.date[:10] for run in runs if run.made is not None and run.made.date})
    weights = {run.made.teacher_weights_from for run in runs if run.made is not None}
    origins = sorted(origin for origin in weights if origin)
    parts = [f"data set {_all(run.data for run in runs)}"]
    parts += [f"{name} {_all(tell(run) for run in runs)}" for name, tell in MADE_BY.items()]
    parts.append(f"date {' to '.join(dict.fromkeys((dates[0], dates[-1]))) if dates else 'not told'}")
    parts += [f"teacher's weights from {', '.join(origins)}"] if origins else []
    return [f"Made with: {'; '.join(parts)}."]


def in_short(runs: Sequence[FinishedRun]) -> str:
    """For a figure: size, epochs and device of runs, and whether they are of the paper's test pictures."""
    words = [_all(_value(run, "image_size") for run in runs), f"{_all(_value(run, 'epochs') for run in runs)} epochs"]
    words.append(_all(MADE_BY["device"](run) for run in runs))
    return ", ".join([*words, *["not the paper's test pictures"] * bool(incomplete(runs))])


def _all(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value or "not told" for value in values}))


def _by_row(mark: str, rows: Sequence[tuple[str, Sequence[str]]], *, after: str = "") -> list[str]:
    """A line for all rows that have the same to be said."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for label, said in rows:
        if said:
            labels.setdefault(tuple(said), []).append(label)
    return [f"{mark} {'; '.join(names)}: {'; '.join(said)}{after}." for said, names in labels.items()]


def best_note(runs: Iterable[FinishedRun]) -> list[str]:
    """What the column "best" is, where there is one."""
    found = [run.best_on_test for run in runs if run.best_on_test is not None]
    if not found:
        return []
    every = ", ".join(map(str, sorted({best.every for best in found})))
    epochs = sorted({best.epoch for best in found})
    span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    return [
        f"last: after the last epoch. best-on-test (epoch {span}): of the epochs at which the test pictures were "
        f"measured, every {every}, the best one. It was SELECTED ON THE TEST SET, as table 8 suggests of the paper's "
        "own figures, and flatters."
    ]


def differences(setups: Iterable[Setup], preset: str) -> str:
    """In what runs of one preset differ among themselves; empty if in nothing."""
    distinct = list({frozenset(each.items()): each for each in setups}.values())
    names = dict.fromkeys(name for each in distinct for name in each) if len(distinct) > 1 else {}
    values = {name: dict.fromkeys(each.get(name, paper_value(name, preset)) for each in distinct) for name in names}
    return ", ".join(f"{name} ({' and '.join(found)})" for name, found in values.items() if len(found) > 1)


def parameters_m(rows: Iterable[Compared]) -> str:
    """Millions of parameters of the networks that were trained, weights that nothing is computed with included."""
    configs = [run.config for each in rows for run in each.runs if run.config is not None]
    counts = {_parameters(config.architecture, config.design, config.image_size) for config in configs}
    return " / ".join(f"{count / 1e6:.2f}" for count in sorted(counts)) or DASH


@cache
def _parameters(architecture: str, design: Design, image_size: Size) -> int:
    with torch.device("meta"):  # nothing is allocated
        network = Stlm(architecture_named(architecture), design, image_size=image_size)
    return sum(parameter.numel() for parameter in network.parameters())
