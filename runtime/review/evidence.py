"""What the threshold would have to be, by what inspectors decided of pictures that have a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.review.decisions import Decision
from stlm_edge.thresholds import f1_optimal

_MOST_ROWS = 6


@dataclass(frozen=True)
class Choice:
    """A threshold, how many good pictures reach it (`refused`) and how many defects do not (`missed`)."""

    threshold: float
    refused: int
    missed: int


@dataclass(frozen=True)
class Evidence:
    """Scores of one engine, with the thresholds that they leave to choose from.

    Attributes:
        engine_sha256: of the engine; most decisions are about scores of it.
        others: how many decided pictures have scores of other engines, and are left out.
        good, defects: scores.
        now: the threshold that the line had for the last of them.
        refusing: thresholds at which 0, 1, 2, … good pictures would be refused, and as few defects missed as then can.
        missing: those at which 0, 1, 2, … defects would be missed, and as few good pictures refused.
        best: the one with the highest F1; None without pictures of both kinds.
    """

    engine_sha256: str | None
    others: int
    good: tuple[float, ...]
    defects: tuple[float, ...]
    now: Choice | None
    refusing: tuple[Choice, ...]
    missing: tuple[Choice, ...]
    best: Choice | None


def evidence(decisions: Sequence[Decision]) -> Evidence:
    """Args: decisions: those that hold."""
    scored = [each for each in decisions if each.call != "skip" and each.score is not None]
    engines = Counter(each.engine_sha256 for each in scored)
    engine = engines.most_common(1)[0][0] if engines else None
    of_engine = [each for each in scored if each.engine_sha256 == engine]
    good, defects = (
        np.sort(np.array([each.score for each in of_engine if each.call == call], np.float64))
        for call in ("good", "defect")
    )

    def choice(threshold: float) -> Choice:
        return Choice(threshold, int(np.count_nonzero(good >= threshold)), int(np.count_nonzero(defects < threshold)))

    thresholds = [each.threshold for each in of_engine if each.threshold is not None]
    best = None
    if good.size and defects.size:
        scores = [*good.tolist(), *defects.tolist()]
        best = choice(f1_optimal(scores, [False] * good.size + [True] * defects.size).value)
    return Evidence(
        engine_sha256=engine,
        others=len(scored) - len(of_engine),
        good=tuple(good.tolist()),
        defects=tuple(defects.tolist()),
        now=choice(thresholds[-1]) if thresholds else None,
        # Just above the highest good score that is still to pass, as `stlm_edge.thresholds.choose` has it.
        refusing=tuple(
            choice(float(np.nextafter(np.float32(good[-1 - count]), np.float32(np.inf))))
            for count in range(min(_MOST_ROWS, good.size))
        ),
        missing=tuple(choice(float(defects[count])) for count in range(min(_MOST_ROWS, defects.size))),
        best=best,
    )
