"""What a line says of one part: exactly one result for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from runtime.inspection import Inspection

PartVerdict = Literal["good", "unclear", "reject", "missed", "fault"]
"""`missed`: not all of it was seen and judged by its deadline; `fault`: a frame of it shows nothing or came damaged, or
the camera was lost; `unclear`: it scores between two thresholds. docs/runtime.md has the exact rules.
Only `good` is proven good; whatever else a part is, it must not pass as a good one."""

VERDICTS: tuple[PartVerdict, ...] = get_args(PartVerdict)


@dataclass(frozen=True, eq=False)
class Part:
    """The result of one part, once it is decided.

    Attributes:
        number: counted by the line from 0, in the order in which parts began; results come in that order, none is left
            out and none comes twice.
        part_id: what whoever triggered it calls it, None where nobody said.
        verdict: of the whole part.
        frames: of it that were judged.
        worst: the frame with the highest score, with its regions and map; None where none was judged. Without pixels
            for outputs that take no pictures.
        recipe: the name of the recipe that it was judged by, None where there are none.
        begun_s: when it was triggered, or its first frame captured, on the clock of `time.monotonic`.
        decided_s: when the result was known, on the same clock.
        engine_sha256: of the engine that judged it; None where the outputs know it from the start.
    """

    number: int
    part_id: str | None
    verdict: PartVerdict
    frames: int
    worst: Inspection | None
    recipe: str | None
    begun_s: float
    decided_s: float
    engine_sha256: str | None = None

    @property
    def score(self) -> float | None:
        """Of the worst frame."""
        return None if self.worst is None or self.worst.anomaly is None else self.worst.anomaly.score

    @property
    def latency_ms(self) -> float:
        """From the trigger, or the first frame, to the result."""
        return 1e3 * (self.decided_s - self.begun_s)
