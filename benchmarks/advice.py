"""Which of the engines that `benchmarks.sizes` has measured to take, and which to leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cells import AREAS

DECISIVE = ("aupro", "image_auroc")
"""Where the defects are, and whether a part has one."""

SAME = 0.001
"""By a tenth of a point figures differ for nothing but the order in which a library adds, or 8 bits in place of 32."""

CLOSE = 0.01
"""So far below the best a figure still counts as about as good: one point of 100."""

Point = dict[str, Any]
"""What was measured of an engine, as the record has it; `turns_ms` are the medians of its turns, frame to verdict."""


def dominates(one: Point, other: Point) -> bool:
    """Whether one point makes another pointless: verified, faster in each turn, and as good in each decisive figure.

    Of two equally fast ones, one looks so once in a thousand times with ten turns.
    """
    is_faster = all(ours < theirs for ours, theirs in zip(one["turns_ms"], other["turns_ms"], strict=True))
    is_as_good = all(_figure(one, metric) >= _figure(other, metric) - SAME for metric in DECISIVE)
    return bool(one["verified"]) and is_faster and is_as_good


def _figure(point: Point, metric: str) -> float:
    """An undefined one counts as worse than all others."""
    return -1.0 if point[metric] is None else float(point[metric])


def advise(points: Sequence[Point], *, budget_ms: float | None = None) -> list[str]:
    """What to take on this device, and what to leave, one sentence each; a budget is for 95 % of the frames."""
    verified = [point for point in points if point["verified"]]
    if not verified:
        return ["No engine is verified, so none is advised.", *_warnings(points, [])]
    sentences, advised = [], []
    for metric in DECISIVE:
        best = max(verified, key=lambda point: (_figure(point, metric), -point["p50_ms"]))
        close = [point for point in verified if _figure(point, metric) >= _figure(best, metric) - CLOSE]
        chosen = min(close, key=lambda point: point["p50_ms"])
        advised.append(chosen)
        why = f"the fastest within {100 * CLOSE:g} point of the best ({best['name']}, {_value(best, metric, 'p50')})"
        why = "the best" if chosen is best else why
        sentences.append(f"For {AREAS[metric]} take {chosen['name']}: {_value(chosen, metric, 'p50')}, {why}.")
    within = [point for point in verified if budget_ms is not None and point["p95_ms"] <= budget_ms]
    for metric in DECISIVE if within else ():
        chosen = max(within, key=lambda point: _figure(point, metric))
        advised.append(chosen)
        said = f"{chosen['name']} has the best {AREAS[metric]}: {_value(chosen, metric, 'p95')}"
        sentences.append(f"Within {budget_ms:g} ms {said}.")
    if budget_ms is not None and not within:
        fastest = min(verified, key=lambda point: point["p95_ms"])
        said = f"the fastest, {fastest['name']}, takes {fastest['p95_ms']:.1f} ms"
        sentences.append(f"None keeps within {budget_ms:g} ms (p95); {said}.")
    return [*sentences, *_warnings(points, advised)]


def _value(point: Point, metric: str, time: str) -> str:
    return f"{100 * _figure(point, metric):.1f} in {point[f'{time}_ms']:.1f} ms ({time})"


def _warnings(points: Sequence[Point], advised: Sequence[Point]) -> Iterator[str]:
    for point in points:
        better = [one for one in points if dominates(one, point)]
        if point["verified"] is None:
            yield f"{point['name']} is not advised: nobody has compared it with its network (stlm verify)."
        elif not point["verified"]:
            yield f"{point['name']} is not advised: the gate refuses it ({'; '.join(point['objections'][:2])})."
        elif better:
            fastest = min(better, key=lambda one: one["p50_ms"])
            yield f"{point['name']} is dominated: {fastest['name']} is faster and as good."
        elif point in advised and point["trained_at"] not in (None, point["input_size"]):
            yield (
                "{} was trained at {} x {}: choose its threshold again before it is used (stlm threshold), "
                "or train it at this size.".format(point["name"], *point["trained_at"])
            )
