"""What a grid costs before anybody starts it: checks of every run, and hours of each preset and table of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stlm_edge.errors import StlmError
from train.cost import TRAINING_GPUS
from train.paper.figures import TABLES
from train.paper.grid import Failure, Run, State, check_same, state
from train.record import read_record
from train.rehearsal import ASSUMED, Rehearsal, Rehearsals, hours_text


@dataclass(frozen=True)
class RehearsedGrid:
    """What is left of a grid.

    Attributes:
        states: of every run, in their order.
        rehearsed: those that would be trained.
        failures: those that would be refused, and why.
    """

    states: Sequence[tuple[Run, State]]
    rehearsed: Sequence[tuple[Run, Rehearsal]]
    failures: Sequence[Failure]

    def __str__(self) -> str:
        parts = ["\n".join(f"{told:<12} {run.preset}  {run.category}  seed {run.seed}" for run, told in self.states)]
        if fetched := dict.fromkeys(address for _, each in self.rehearsed for address in each.fetched):
            parts.append("to fetch, so not looked into: " + ", ".join(fetched))
        trained = [(run, each) for run, each in self.rehearsed if each.cost.steps]
        if trained:
            parts += ["\n".join(self._table(trained)), ASSUMED]
        return "\n\n".join(parts)

    def _table(self, trained: Sequence[tuple[Run, Rehearsal]]) -> list[str]:
        presets = dict.fromkeys(run.preset for run, _ in trained)
        titles = (
            *("left to train", "runs", "steps", "TFLOP a step", "GB"),
            *(f"h {gpu.name}" for gpu in TRAINING_GPUS),
        )
        rows = [_row(preset, [each for run, each in trained if run.preset == preset]) for preset in presets]
        for table in TABLES:
            named = {row.preset for row in table.rows} & presets.keys()
            if len(named) > 1:  # of one alone the preset's own row tells
                rows.append(
                    _row(f"{table.name}: {len(named)} presets", [e for run, e in trained if run.preset in named])
                )
        if len(presets) > 1:
            rows.append(_row("all", [each for _, each in trained]))
        width = max(len(row[0]) for row in [titles, *rows])
        return [f"{row[0]:<{width}}" + "".join(f"{cell:>14}" for cell in row[1:]).rstrip() for row in (titles, *rows)]


def _row(name: str, rehearsals: Sequence[Rehearsal]) -> tuple[str, ...]:
    costs = [each.cost for each in rehearsals]
    steps = sum(cost.steps for cost in costs)
    return (
        name,
        str(len(costs)),
        f"{steps:,}",
        f"{sum(cost.flops for cost in costs) / steps / 1e12:.3g}",
        f"{max(cost.memory.total for cost in costs) / 1e9:.3g}",
        *(hours_text(sum(cost.hours(gpu) for cost in costs)) for gpu in TRAINING_GPUS),
    )


def rehearse_grid(runs: Sequence[Run], *, data: Path, textures: Path | None) -> RehearsedGrid:
    """Check what every run would check, and count what is left to train.

    Raises:
        ConfigError: if a folder holds other runs than these, which would end the grid before anything is run.
    """
    for run in runs:
        check_same(run, data=data)
    states = [(run, state(run)) for run in runs]
    left = [(run, found) for run, found in states if found in ("to train", "to resume")]
    rehearsals, rehearsed, failures = Rehearsals(), {}, []
    # By categories, whose pictures are then decoded once for all presets.
    for run, found in tqdm(sorted(left, key=lambda each: each[0].category), unit="run", leave=False, disable=None):
        try:
            rehearsed[run] = rehearsals.rehearse(
                run.config,
                data=data,
                category=run.category,
                textures=textures,
                output=run.folder,
                begun=read_record(run.folder) if found == "to resume" else None,
                retrained=True,
            )
        except StlmError as error:
            failures.append(Failure(run, " ".join(str(error).split())))
    return RehearsedGrid(states, [(run, rehearsed[run]) for run, _ in left if run in rehearsed], failures)
