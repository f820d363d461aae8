"""How figures are written in tables, and the names that records give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

NOTHING = "–"
"""In place of a figure that was not or cannot be measured."""

AREAS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "pixel_ap": "pixel AP"}
"""Heads by what they are called in records."""

STAGES = ("prepare", "upload", "infer", "download", "decide", "total")
"""Of the way from a frame in memory to its verdict, with or without a GPU."""

Entry = Mapping[str, Any]
"""A JSON object of a record's details."""


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells in columns, the first one to the left and the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def figure(value: float | None) -> str:
    """With three significant digits, and all those before the point."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".removesuffix(".")


def percent(share: float | None, *, digits: int = 1, sign: str = "") -> str:
    """A share of 1 as percent; a five behind the last digit is rounded up, as one does by hand, whatever its bits."""
    if share is None:
        return NOTHING
    exact = Decimal(repr(100 * share)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{exact:{sign}}"


def size(height_width: Sequence[int] | None) -> str:
    """Height and width."""
    return NOTHING if height_width is None else " x ".join(map(str, height_width))


def figures_of(entry: Entry, *keys: str) -> list[str]:
    return [figure(entry[key]) for key in keys]


def areas_of(entry: Entry, keys: Iterable[str] = AREAS) -> list[str]:
    return [percent(entry[key]) for key in keys]


def ratio_of(turns: Mapping[str, float] | None) -> str:
    return NOTHING if turns is None else "{} [{}, {}]".format(*figures_of(turns, "median", "low", "high"))


def run_by(entry: Entry) -> str:
    return f"{entry['library'] or NOTHING}, {entry['precision'] or NOTHING}"
