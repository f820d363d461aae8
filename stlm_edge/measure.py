"""The one timing harness: several subjects of the same work take turns, each in a process of its own.

Whatever else the machine does hits all of them alike, so the ratios of one run are worth more than its milliseconds.
Not picture by picture: the threads of one library go on spinning for a while after its work is done, and the next one
would pay for them; so a turn has several pictures, and the first ones do not count. In a process of its own a subject
has its own memory, threads and, on a GPU, context; between its turns it sleeps.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np

from stlm_edge.errors import EngineError, StlmError

TOTAL = "total"
"""The stage that every subject has: all of the work."""


class Workload(Protocol):
    """What an opened subject is."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a table says of it besides its times: JSON values such as parameters, precision, library."""
        ...

    def run(self, index: int) -> Mapping[str, float]:
        """Work on picture number `index`, of as many as it likes in turn; stage → milliseconds, `total` among them."""
        ...


def program(module: str) -> list[str]:
    """The start of a command like `python -m MODULE` that finds our packages, whatever lies in the current folder."""
    code = f"import runpy, sys; sys.path[0] = {sys.path[0]!r}; runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, "-c", code]


@dataclass(frozen=True)
class Work:
    """A workload that is a function."""

    run: Callable[[int], Mapping[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def timed(cls, work: Callable[[int], object], facts: Mapping[str, Any] | None = None) -> Work:
        """One whose stages are not told apart: `work` is given the picture's number, and all of it is `total`."""

        def run(index: int) -> dict[str, float]:
            start_s = time.perf_counter()
            work(index)
            return {TOTAL: 1e3 * (time.perf_counter() - start_s)}

        return cls(run, dict(facts or {}))


@dataclass(frozen=True)
class Subject:
    """What is to be measured.

    Attributes:
        open: picklable; opens the workload, in a process of its own. May raise `StlmError`.
    """

    name: str
    open: Callable[[], AbstractContextManager[Workload]]


@dataclass(frozen=True)
class Schedule:
    """How long and how often.

    Attributes:
        turns: of each subject.
        runs: pictures in a turn that count.
        settle: pictures at the beginning of a turn that do not.
        turn_s: a turn ends after so many seconds, settling included, with one counted picture at least.
        loads_apart: open each subject twice, first to start its library, so that `load_s` is the loading alone.
    """

    turns: int = 10
    runs: int = 20
    settle: int = 5
    turn_s: float = 20.0
    loads_apart: bool = True


@dataclass(frozen=True)
class Ratio:
    """Of two subjects' times: the median over turns, and the lowest and the highest turn."""

    median: float
    low: float
    high: float


@dataclass
class Measured:
    """What was measured of a subject.

    Attributes:
        load_s: opening it; see `Schedule.loads_apart`.
        first_ms: the first inference, in full.
        before_mb, opened_mb, running_mb, peak_mb: resident memory of its process in 10⁶ bytes: before it was opened;
            opened; after all turns; the most there ever was. The last two are 0 until all turns are over.
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

    def quantile(self, quantile: float, stage: str = TOTAL) -> float:
        """Of all pictures' milliseconds, e.g. 0.95."""
        return float(np.quantile(self.pooled(stage), quantile))

    def quantiles(self, quantile: float, stage: str = TOTAL) -> list[float]:
        """Of each turn's milliseconds, e.g. 0.5."""
        return [float(np.quantile([run[stage] for run in turn], quantile)) for turn in self.turns]

    def pooled(self, stage: str = TOTAL) -> list[float]:
        """The milliseconds of all pictures, in order."""
        return [run[stage] for turn in self.turns for run in turn]

    def ratios(self, base: Measured) -> list[float]:
        """This one's median time as a share of the other's, turn by turn."""
        return [own / other for own, other in zip(self.quantiles(0.5), base.quantiles(0.5), strict=True)]

    def ratio(self, base: Measured) -> Ratio:
        """This one's time as a share of the other's."""
        ratios = self.ratios(base)
        return Ratio(median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class _Failure:
    """What a worker says of an exception that may not be importable, or not survive pickling, elsewhere."""

    reason: str


def measure(
    subjects: Sequence[Subject],
    schedule: Schedule,
    *,
    after_turn: Callable[[Sequence[Measured]], None] | None = None,
) -> list[Measured]:
    """Measure all subjects. A script that calls this needs `if __name__ == "__main__":`, since processes are spawned.

    Args:
        after_turn: is told after each round of turns what there is so far, to save it or to say how far one is.
    Raises:
        EngineError: if one of them fails, with its name. All their processes end then.
    """
    with _workers(subjects) as pipes:
        measured: list[Measured] = []
        for subject, pipe in zip(subjects, pipes, strict=True):
            measured.append(_ask(pipe, subject, schedule))  # one after the other: none shall disturb another's start
        for _ in range(schedule.turns):
            for subject, pipe, entry in zip(subjects, pipes, measured, strict=True):
                entry.turns.append(_ask(pipe, subject, schedule))
            if after_turn is not None:
                after_turn(measured)
        for subject, pipe, entry in zip(subjects, pipes, measured, strict=True):
            entry.running_mb, entry.peak_mb = _ask(pipe, subject, None)
        return measured


def resident_mb() -> float:
    """This process's resident set now, in 10⁶ bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """This process's largest resident set ever, in 10⁶ bytes."""
    # Not getrusage's: on Linux a process that was started by a larger one begins with that one's peak.
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def gpu_mb() -> float | None:
    """What this process holds on the first GPU, by NVML, in 10⁶ bytes; None where that cannot be told."""
    try:
        import pynvml  # only some machines with a GPU have it
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    mine = [entry.usedGpuMemory for entry in processes if entry.pid == os.getpid()]
    return mine[0] / 1e6 if mine and mine[0] is not None else None


@contextmanager
def _workers(subjects: Sequence[Subject]) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], []
    try:
        for subject in subjects:
            ours, theirs = context.Pipe()
            # No daemon, which could not start processes of its own; it ends when its pipe is closed, however that is.
            worker = context.Process(target=_serve, args=(subject, theirs))
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


def _ask(pipe: Connection, subject: Subject, message: Schedule | None) -> Any:
    """What a worker answers to a message. Raises `EngineError` if it failed, or is no more."""
    try:
        pipe.send(message)
        answer = pipe.recv()
    except (EOFError, ConnectionError):
        raise EngineError(
            f"{subject.name} ended without a word, perhaps for lack of memory; measure it alone to see why"
        ) from None
    if isinstance(answer, StlmError):
        raise answer
    if isinstance(answer, _Failure):
        raise EngineError(f"{subject.name} failed ({answer.reason}); measure the others without it")
    return answer


def _serve(subject: Subject, pipe: Connection) -> None:
    """A worker's main: open, warm up, and take the turns that it is told to."""
    try:
        if pipe.recv().loads_apart:
            with subject.open():
                pass  # the first time imports and starts the library too, which is not the loading
        before = resident_mb()
        start_s = time.perf_counter()
        with subject.open() as workload:
            load_s, opened = time.perf_counter() - start_s, resident_mb()
            start_s = time.perf_counter()
            workload.run(0)
            first_ms = 1e3 * (time.perf_counter() - start_s)
            pipe.send(Measured(subject.name, workload.facts, load_s, first_ms, before, opened, gpu_mb()))
            done = 0
            while (schedule := pipe.recv()) is not None:
                runs, done = _turn(workload, schedule, first=done)
                pipe.send(runs)
            pipe.send((resident_mb(), peak_mb()))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        pass  # the measurement has ended
    except Exception as error:  # whatever a library raises: the parent says which subject it was
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        pipe.send(error if isinstance(error, StlmError) else _Failure(reason))


def _turn(workload: Workload, schedule: Schedule, *, first: int) -> tuple[list[dict[str, float]], int]:
    runs: list[dict[str, float]] = []
    start_s, index = time.perf_counter(), first
    for position in range(schedule.settle + schedule.runs):
        if runs and time.perf_counter() - start_s > schedule.turn_s:
            break
        late = time.perf_counter() - start_s > schedule.turn_s / 2
        stages = dict(workload.run(index))
        index += 1
        if position >= schedule.settle or late:  # a slow subject settles in fewer pictures
            runs.append(stages)
    return runs, index
