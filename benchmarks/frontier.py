"""Which of several settings are worth taking: the frontier of accuracy against latency, and advice in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.backends import vouched
from stlm_edge.spec import Size

DECISIVE = {"aupro": "AUPRO", "image_auroc": "image AUROC"}
"""Where the defects are, and whether a part has one."""

SAME = 0.001
"""By a tenth of a point figures differ for nothing but the order in which a library adds, or 8 bits in place of 32."""

CLOSE = 0.01
"""So far below the best a figure still counts as about as good: one point of 100."""


@dataclass(frozen=True)
class Candidate:
    """An engine that may be advised.

    Attributes:
        trained_at: (height, width) that its weights were trained at; None where that is not known.
        verified: by the gate; None if nobody has compared it with its network.
        objections: of the gate.
    """

    name: str
    path: Path
    architecture: str
    input_size: Size
    precision: str
    trained_at: Size | None
    verified: bool | None
    objections: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path, *, name: str, trained_at: Size | None = None) -> Candidate:
        """An engine that is there. Raises `EngineError`, `SpecError` if it is missing or not the one of its sidecar."""
        sidecar = vouched(path)
        gate = sidecar.engine.gate
        return cls(
            name=name,
            path=path,
            architecture=sidecar.spec.architecture,
            input_size=sidecar.spec.input_size,
            precision=sidecar.engine.precision,
            trained_at=trained_at,
            verified=None if gate is None else gate.verified,
            objections=() if gate is None else gate.objections,
        )


@dataclass(frozen=True)
class Point:
    """A candidate with what was measured of it.

    Attributes:
        runs: frames that count.
        turns_ms: median time from frame to verdict of each turn; all points took turns with each other.
        figures: accuracy by name, in 0 … 1, those of `DECISIVE` among them; None where undefined.
    """

    candidate: Candidate
    runs: int
    turns_ms: tuple[float, ...]
    p50_ms: float
    p95_ms: float
    figures: dict[str, float | None]

    @property
    def name(self) -> str:
        return self.candidate.name

    def figure(self, metric: str) -> float:
        """An undefined one counts as worse than all others."""
        value = self.figures[metric]
        return -1.0 if value is None else value


def dominates(one: Point, other: Point) -> bool:
    """Whether one point makes another one pointless: faster in each turn, and as good in each decisive figure.

    Turns share whatever else the machine did, so that one was always faster is more than that its median is. With ten
    turns, two equally fast ones look so once in a thousand times. An engine that is not verified dominates nothing.
    """
    is_faster = all(ours < theirs for ours, theirs in zip(one.turns_ms, other.turns_ms, strict=True))
    is_as_good = all(one.figure(metric) >= other.figure(metric) - SAME for metric in DECISIVE)
    return bool(one.candidate.verified) and is_faster and is_as_good


def dominator(point: Point, points: Sequence[Point]) -> Point | None:
    """The fastest of those that dominate a point."""
    return min((other for other in points if dominates(other, point)), key=lambda other: other.p50_ms, default=None)


def on_frontier(point: Point, points: Sequence[Point]) -> bool:
    """Whether a point is verified and nothing dominates it."""
    return bool(point.candidate.verified) and dominator(point, points) is None


def advise(points: Sequence[Point], *, budget_ms: float | None = None) -> list[str]:
    """What to take on this device, and what to leave, one sentence each.

    Args:
        budget_ms: for 95 % of the frames, from frame to verdict.
    """
    verified = [point for point in points if point.candidate.verified]
    sentences, advised = [], []
    if not verified:
        sentences.append("No engine is verified, so none is advised.")
    for metric, title in DECISIVE.items() if verified else ():
        best = max(verified, key=lambda point: (point.figure(metric), -point.p50_ms))
        close = [point for point in verified if point.figure(metric) >= best.figure(metric) - CLOSE]
        chosen = min(close, key=lambda point: point.p50_ms)
        advised.append(chosen)
        sentences.append(_choice(chosen, best, metric=metric, title=title))
    if budget_ms is not None and verified:
        within = [point for point in verified if point.p95_ms <= budget_ms]
        advised += [max(within, key=lambda point: point.figure(metric)) for metric in DECISIVE if within]
        sentences.append(_within(within, verified, budget_ms=budget_ms))
    return [*sentences, *_warnings(points, advised)]


def _choice(chosen: Point, best: Point, *, metric: str, title: str) -> str:
    figure = f"{100 * chosen.figure(metric):.1f} in {chosen.p50_ms:.1f} ms (p50)"
    if chosen is best:
        return f"For {title} take {chosen.name}: {figure}, the best."
    return (
        f"For {title} take {chosen.name}: {figure}, the fastest within {100 * CLOSE:g} point of the best "
        f"({best.name}, {100 * best.figure(metric):.1f} in {best.p50_ms:.1f} ms)."
    )


def _within(within: Sequence[Point], verified: Sequence[Point], *, budget_ms: float) -> str:
    if not within:
        fastest = min(verified, key=lambda point: point.p95_ms)
        return f"None keeps within {budget_ms:g} ms (p95); the fastest, {fastest.name}, takes {fastest.p95_ms:.1f} ms."
    parts = []
    for metric, title in DECISIVE.items():
        best = max(within, key=lambda point: point.figure(metric))
        parts.append(f"{best.name} has the best {title} ({100 * best.figure(metric):.1f}, {best.p95_ms:.1f} ms)")
    return f"Within {budget_ms:g} ms (p95), {' and '.join(parts)}."


def _warnings(points: Sequence[Point], advised: Sequence[Point]) -> Iterator[str]:
    for point in points:
        candidate = point.candidate
        if candidate.verified is None:
            yield f"{point.name} is not advised: nobody has compared it with its network (python -m export verify)."
        elif not candidate.verified:
            yield f"{point.name} is not advised: the gate refuses it ({'; '.join(candidate.objections[:2])})."
        elif (better := dominator(point, points)) is not None:
            yield f"{point.name} is dominated: {better.name} is faster and as good."
        elif point in advised and candidate.trained_at not in (None, candidate.input_size):
            assert candidate.trained_at is not None
            yield (
                "{} was trained at {} x {}: choose its threshold again before it is used (python -m export calibrate), "
                "or train it at this size.".format(point.name, *candidate.trained_at)
            )
