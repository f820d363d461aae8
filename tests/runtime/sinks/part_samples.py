"""Results of parts to hand over, and a line that takes triggers."""

from __future__ import annotations

import time

from runtime.control import LineStatus
from runtime.inspection import Inspection
from runtime.part import Part, PartVerdict
from runtime.regions import Region
from stlm_edge.errors import ControlError

from .conftest import inspection

REGION = Region(left=4, top=5, width=6, height=7, area=30, peak=0.91234)


def part(
    number: int = 0,
    verdict: PartVerdict = "reject",
    *,
    part_id: str | None = None,
    worst: Inspection | None = None,
    is_empty: bool = False,
) -> Part:
    now_s = time.monotonic()
    shown = None if is_empty else worst or inspection(score=0.75, regions=(REGION,))
    return Part(number, part_id, verdict, 0 if is_empty else 3, shown, "plate", now_s - 0.05, now_s)


class FakeLine:
    """Takes triggers and recipes as a line does, up to `room` parts."""

    def __init__(self, *, room: int = 1000) -> None:
        self.triggers: list[str | None] = []
        self.recipes: list[str] = []
        self._room = room

    def trigger(self, part_id: str | None = None) -> int:
        if len(self.triggers) >= self._room:
            raise ControlError("found no room for another part, expected a slower trigger")
        self.triggers.append(part_id)
        return len(self.triggers) - 1

    def change_recipe(self, recipe: str) -> None:
        if recipe == "unknown":
            raise ControlError("found no recipe 'unknown', expected plate")
        self.recipes.append(recipe)

    def status(self) -> LineStatus:
        return LineStatus(True, "plate", 1, len(self.triggers), time.monotonic())
