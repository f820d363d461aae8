"""One row for each method: as JSON has it, and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.alternatives.inspecting import Facts
from benchmarks.intervals import METRICS, Figures
from benchmarks.turns import Timed


@dataclass
class Row:
    """A method with its figures, as far as they are known yet."""

    facts: Facts
    figures: Figures | None = None
    timed: Timed | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them; what is unknown or undefined is null."""
        values = asdict(self.facts)
        values["input_size"] = list(self.facts.input_size)
        for metric in METRICS:
            value = math.nan if self.figures is None else getattr(self.figures, metric)
            values[metric] = None if math.isnan(value) else round(value, 4)
        timed = self.timed
        values["p50_ms"] = None if timed is None else round(float(np.quantile(timed.pooled(), 0.5)), 3)
        values["p95_ms"] = None if timed is None else round(float(np.quantile(timed.pooled(), 0.95)), 3)
        values["running_mb"] = None if timed is None else round(timed.running_mb, 1)
        return values


_COLUMNS = (
    ("image AUROC", "image_auroc", 100.0, 1),
    ("pixel AUROC", "pixel_auroc", 100.0, 1),
    ("AUPRO", "aupro", 100.0, 1),
    ("pixel AP", "pixel_ap", 100.0, 1),
    ("p50 ms", "p50_ms", 1.0, 1),
    ("p95 ms", "p95_ms", 1.0, 1),
    ("M params", "parameters", 1e-6, 2),
    ("model MB", "model_mb", 1.0, 1),
    ("RAM MB", "running_mb", 1.0, 0),
    ("minutes", "train_minutes", 1.0, 1),
)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, accuracies in %; below it what they must be read with."""
    lines = [f"{'':<26}" + "".join(f"{head:>13}" for head, *_ in _COLUMNS)]
    for row in rows:
        values = row.to_dict()
        lines.append(
            f"{row.facts.name:<26}" + "".join(_cell(values[key], scale, digits) for _, key, scale, digits in _COLUMNS)
        )
    lines.append("")
    for row in rows:
        facts = row.facts
        start = "no backbone" if facts.backbone is None else f"{facts.backbone}, {facts.pretrained or 'random weights'}"
        size = f"{facts.input_size[0]} x {facts.input_size[1]}"
        lines.append("; ".join(part for part in (f"{facts.name}: {size}", facts.library, start, facts.note) if part))
    return "\n".join(lines)


def _cell(value: float | None, scale: float, digits: int) -> str:
    return f"{'-' if value is None else format(scale * value, f'.{digits}f'):>13}"
