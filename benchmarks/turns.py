"""Several contenders for the same work, measured in turns, each in a process of its own.

Whatever else the machine does hits all of them alike, so the ratios of one run are worth more than its milliseconds.
Not picture by picture: the threads of one library go on spinning for a while after its work is done, and the next one
would pay for them; so a turn has several pictures, and the first ones do not count. In a process of its own a contender
has its own memory, threads and, on a GPU, context; between its turns it sleeps.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks.memory import gpu_mb, peak_mb, resident_mb
from stlm_edge.errors import EngineError, StlmError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

TOTAL = "total"
"""The stage that every subject has: from the picture to the verdict."""


class Subject(Protocol):
    """Something opened that can be timed."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a table says of it besides its times: JSON values such as parameters, precision, library."""
        ...

    def run(self, index: int) -> Mapping[str, float]:
        """Work on picture number `index`, of as many as it likes in turn; stage → milliseconds, `total` among them."""
        ...


@dataclass(frozen=True)
class Contender:
    """Attributes: open: picklable; opens the subject, in a process of its own. May raise `StlmError`."""

    name: str
    open: Callable[[], AbstractContextManager[Subject]]


@dataclass(frozen=True)
class Schedule:
    """How long and how often.

    Attributes:
        turns: of each contender.
        runs: pictures in a turn that count.
        settle: pictures at the beginning of a turn that do not.
        turn_s: a turn ends after so many seconds, settling included, with one counted picture at least.
    """

    turns: int = 10
    runs: int = 20
    settle: int = 5
    turn_s: float = 20.0


@dataclass
class Timed:
    """What was measured of a contender.

    Attributes:
        load_s: opening it, its library imported before.
        first_ms: the first inference, in full.
        before_mb, opened_mb, running_mb, peak_mb: resident memory of its process: library imported; opened; after all
            turns; the most there ever was.
        gpu_mb: of its process on the GPU after the first inference; None without one.
        turns: stage → milliseconds, for each picture of each turn.
    """

    name: str
    facts: dict[str, Any]
    load_s: float
    first_ms: float
    before_mb: float
    opened_mb: float
    gpu_mb: float | None
    running_mb: float = 0.0
    peak_mb: float = 0.0
    turns: list[list[dict[str, float]]] = field(default_factory=list)

    def quantiles(self, quantile: float, stage: str = TOTAL) -> list[float]:
        """Of each turn's milliseconds, e.g. 0.5."""
        return [float(np.quantile([run[stage] for run in turn], quantile)) for turn in self.turns]

    def pooled(self, stage: str = TOTAL) -> list[float]:
        """The milliseconds of all pictures, in order."""
        return [run[stage] for turn in self.turns for run in turn]


@dataclass(frozen=True)
class _Failure:
    """What a worker says of an exception that may not be importable, or not survive pickling, elsewhere."""

    reason: str


def take_turns(
    contenders: Sequence[Contender], schedule: Schedule, *, after_turn: Callable[[Sequence[Timed]], None] | None = None
) -> list[Timed]:
    """Measure all contenders.

    Args:
        after_turn: is told after each round of turns what there is so far, to save it or to say how far one is.
    Raises:
        EngineError: if one of them fails, with its name. All their processes end then.
    """
    with _workers(contenders) as pipes:
        timed: list[Timed] = []
        for contender, pipe in zip(contenders, pipes, strict=True):
            timed.append(_ask(pipe, contender, None))  # one after the other: none shall disturb another's start
        for _ in range(schedule.turns):
            for contender, pipe, entry in zip(contenders, pipes, timed, strict=True):
                entry.turns.append(_ask(pipe, contender, schedule))
            if after_turn is not None:
                after_turn(timed)
        for contender, pipe, entry in zip(contenders, pipes, timed, strict=True):
            entry.running_mb, entry.peak_mb = _ask(pipe, contender, None)
        return timed


@contextmanager
def _workers(contenders: Sequence[Contender]) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], []
    try:
        for contender in contenders:
            ours, theirs = context.Pipe()
            worker = context.Process(target=_serve, args=(contender, theirs), daemon=True)
            worker.start()
            theirs.close()
            workers.append(worker)
            pipes.append(ours)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()  # a worker that waits for its next turn ends by that
        for worker in workers:
            worker.join(timeout=5)
            if worker.is_alive():
                worker.kill()
                worker.join()


def _ask(pipe: Connection, contender: Contender, message: Schedule | None) -> Any:
    """What a worker answers to a message. Raises `EngineError` if it failed, or is no more."""
    try:
        pipe.send(message)
        answer = pipe.recv()
    except (EOFError, ConnectionError):
        raise EngineError(
            f"{contender.name} ended without a word, perhaps for lack of memory; measure it alone to see why"
        ) from None
    if isinstance(answer, StlmError):
        raise answer
    if isinstance(answer, _Failure):
        raise EngineError(f"{contender.name} failed ({answer.reason}); measure the others without it")
    return answer


def _serve(contender: Contender, pipe: Connection) -> None:
    """A worker's main: open, warm up, and take the turns that it is told to."""
    try:
        pipe.recv()
        with contender.open() as subject:
            pass  # the first time imports and starts the library too, which is not the loading
        before = resident_mb()
        start_s = time.perf_counter()
        with contender.open() as subject:
            load_s, opened = time.perf_counter() - start_s, resident_mb()
            start_s = time.perf_counter()
            subject.run(0)
            first_ms = 1e3 * (time.perf_counter() - start_s)
            pipe.send(Timed(contender.name, subject.facts, load_s, first_ms, before, opened, gpu_mb()))
            done = 0
            while (schedule := pipe.recv()) is not None:
                runs, done = _turn(subject, schedule, first=done)
                pipe.send(runs)
            pipe.send((resident_mb(), peak_mb()))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        pass  # the benchmark has ended
    except Exception as error:  # whatever a library raises: the benchmark says which contender it was
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        pipe.send(error if isinstance(error, StlmError) else _Failure(reason))


def _turn(subject: Subject, schedule: Schedule, *, first: int) -> tuple[list[dict[str, float]], int]:
    runs: list[dict[str, float]] = []
    start_s, index = time.perf_counter(), first
    for position in range(schedule.settle + schedule.runs):
        if runs and time.perf_counter() - start_s > schedule.turn_s:
            break
        late = time.perf_counter() - start_s > schedule.turn_s / 2
        stages = dict(subject.run(index))
        index += 1
        if position >= schedule.settle or late:  # a slow subject settles in fewer pictures
            runs.append(stages)
    return runs, index
