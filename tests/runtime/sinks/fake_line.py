"""A line that takes triggers and judges parts by their names, for outputs that control one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from runtime.control import LineStatus
from runtime.inspection import Inspection
from runtime.part import Part, PartVerdict
from runtime.sinks import FrameSink
from stlm_edge.errors import ControlError

from .conftest import inspection


def part(
    number: int = 0,
    *,
    part_id: str | None = None,
    verdict: PartVerdict = "good",
    score: float | None = 0.25,
    worst: Inspection | None = None,
) -> Part:
    """Args: worst: its worst frame, in place of one with `score`."""
    now_s = time.monotonic()
    if worst is None and score is not None:
        worst = inspection(number, score=score)
    return Part(
        number=number,
        part_id=part_id,
        verdict=verdict,
        frames=int(worst is not None),
        worst=worst,
        recipe=None,
        begun_s=now_s - 0.02,
        decided_s=now_s,
    )


class FakeLine:
    """Every third part is rejected, and the results come on a thread of their own, in order.

    Attributes:
        sink: is given the results; set it before the first trigger.
        triggered: names that came with the triggers.
        recipes: that were asked for; there is no recipe "99".
    """

    def __init__(self, *, judges: bool = True) -> None:
        self.sink: FrameSink | None = None
        self.triggered: list[str | None] = []
        self.recipes: list[str] = []
        self.ready = True
        self.progress_s: float | None = None
        """None while it goes on."""
        self.judged: Callable[[Part], None] = lambda _: None
        self._judges = judges
        self._worker = ThreadPoolExecutor(1)

    def trigger(self, part_id: str | None = None) -> int:
        if not self.ready:
            raise ControlError("the line is not ready")
        number = len(self.triggered)
        self.triggered.append(part_id)
        if self._judges:
            self._worker.submit(self._judge, number, part_id)
        return number

    def change_recipe(self, recipe: str) -> None:
        if recipe == "99":
            raise ControlError("there is no recipe 99")
        self.recipes.append(recipe)

    def status(self) -> LineStatus:
        number = int(self.recipes[-1]) if self.recipes and self.recipes[-1].isdecimal() else 0
        progress_s = time.monotonic() if self.progress_s is None else self.progress_s
        return LineStatus(self.ready, f"recipe {number}" if number else None, number, len(self.triggered), progress_s)

    def end(self) -> None:
        self._worker.shutdown()

    def _judge(self, number: int, part_id: str | None) -> None:
        assert self.sink is not None
        result = part(number, part_id=part_id, verdict="reject" if number % 3 == 2 else "good", score=number / 4)
        self.judged(result)
        self.sink.write_part(result)
