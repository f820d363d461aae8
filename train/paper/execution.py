"""How the runs of a grid are computed: one after the other, or each in a process of its own; and what is told of it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from pathlib import Path
from typing import Literal, Protocol

import cv2
import torch
from tqdm import tqdm

from stlm_edge.cli import INTERRUPTED, set_up_logging
from stlm_edge.datasets import load_category
from stlm_edge.errors import StlmError
from stlm_edge.files import make_folder
from stlm_edge.progress import live_lines
from train.paper.grid import Failure, Run, attempt, check_same, state

logger = logging.getLogger(__name__)

LOG_NAME = "grid.log"
"""In a run's folder: what a process of its own has to say."""
TICK_S = 1.0


@dataclass(frozen=True)
class Update:
    """What has become of a run.

    Attributes:
        where: it is computed; empty in this very process.
        reason: why it came to nothing.
    """

    run: Run
    event: Literal["begun", "finished", "failed"]
    where: str = ""
    reason: str = ""

    @classmethod
    def ended(cls, run: Run, reason: str) -> Update:
        """Args: reason: why it came to nothing; empty if it did not."""
        return cls(run, "failed" if reason else "finished", reason=reason)


class Executor(Protocol):
    """Computes runs somewhere."""

    def run(self, waiting: Sequence[Run]) -> Generator[Update | None]:
        """Compute all of them and tell of each when it begins and ends; None now and then, when nothing is new.

        Whoever closes the generator, after Ctrl-C for one, ends what it has started, such that it can be gone on with.

        Raises:
            StlmError: before anything is computed, if it cannot be computed there.
        """


def _require_data(runs: Sequence[Run], data: Path) -> None:
    """Raises `DataError`, before hours are spent, if a category is not there or cannot be used."""
    for category in dict.fromkeys(run.category for run in runs):
        load_category(data, category)


def run_all(runs: Sequence[Run], executor: Executor, *, data: Path) -> list[Failure]:
    """Train and evaluate what is not finished yet; one that fails does not end the others.

    Returns:
        Those that failed.
    Raises:
        StlmError: before anything is run, if a folder holds other runs than these, or `executor` refuses.
        KeyboardInterrupt: after Ctrl-C; the same call goes on later.
    """
    for run in runs:
        check_same(run, data=data)
    waiting, failures = [], []
    for number, run in enumerate(runs, start=1):
        if state(run) == "finished":
            logger.info("run %d of %d: %s, finished", number, len(runs), run.name)
        else:
            waiting.append(run)
    with live_lines() as show, closing(executor.run(waiting)) as updates:
        board = _Board(runs, ended=len(runs) - len(waiting))
        for update in updates:
            if update is not None:
                show(())  # what is logged stands above the table
                board.tell(update)
                if update.event == "failed":
                    failures.append(Failure(update.run, update.reason))
            show(board.lines())
    return failures


class _Board:
    """What runs where, and for how long; empty where all is computed in this process, which has bars of its own."""

    def __init__(self, runs: Sequence[Run], *, ended: int) -> None:
        self._numbers = {run.folder: number for number, run in enumerate(runs, start=1)}
        self._ended, self._failed = ended, 0
        self._running: dict[Path, tuple[Run, str, float]] = {}

    def tell(self, update: Update) -> None:
        """Take it into account, and log it."""
        run = update.run
        if update.event == "begun":
            before = "begun again" if run.folder in self._running else state(run)
            where = f", on {update.where}" if update.where else ""
            number = self._numbers[run.folder]
            logger.info("run %d of %d: %s, %s%s", number, len(self._numbers), run.name, before, where)
            self._running[run.folder] = run, update.where, time.monotonic()
            return
        _, where, _ = self._running.pop(run.folder, (run, "", 0.0))
        self._ended += 1
        if update.event == "failed":
            self._failed += 1
            logger.error("failed: %s: %s", run.name, update.reason)
        elif where:
            logger.info("finished: %s, %d of %d", run.name, self._ended, len(self._numbers))

    def lines(self) -> list[str]:
        """The table."""
        rows = [
            (f"  {run.name}", where, _epochs(run), f"{int(time.monotonic() - since) // 60} min")
            for run, where, since in self._running.values()
            if where
        ]
        if not rows:
            return []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        left = len(self._numbers) - self._ended - len(self._running)
        failed = f", {self._failed} of them failed" if self._failed else ""
        return [f"{self._ended} of {len(self._numbers)} runs have ended{failed}, {left} wait", *table]


def _epochs(run: Run) -> str:
    """How far its training is, where its folder can be seen from here."""
    try:
        done = (run.folder / "history.jsonl").read_bytes().count(b"\n")
    except OSError:
        done = 0
    return f"epoch {done} of {run.config.epochs}"


@dataclass(frozen=True)
class InOrder:
    """One after the other, in this process."""

    data: Path
    textures: Path | None

    def run(self, waiting: Sequence[Run]) -> Generator[Update | None]:
        """See `Executor`."""
        _require_data(waiting, self.data)
        for run in waiting:
            yield Update(run, "begun")
            reason = attempt(run, data=self.data, textures=self.textures)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            yield Update.ended(run, reason)


@dataclass(frozen=True)
class Jobs:
    """Several at once on this machine, each in a process of its own that gives its memory back at its end.

    They share the cores, and the GPUs by turns.

    Attributes:
        count: at once, at least 1.
    """

    data: Path
    textures: Path | None
    count: int

    def run(self, waiting: Sequence[Run]) -> Generator[Update | None]:
        """See `Executor`."""
        _require_data(waiting, self.data)
        threads = max(1, len(os.sched_getaffinity(0)) // self.count)
        left, free = deque(waiting), list(range(self.count))
        running: dict[OwnProcess, int] = {}
        try:
            while left or running:
                while left and free:
                    place = free.pop(0)
                    process = OwnProcess(
                        left.popleft(), data=self.data, textures=self.textures, threads=threads, gpu=place
                    )
                    running[process] = place
                    yield Update(process.run, "begun", where=f"process {process.pid}")
                for ended in OwnProcess.wait(running):
                    free.append(running.pop(ended))
                    yield Update.ended(ended.run, ended.reason())
                yield None
        finally:
            end(running)


class OwnProcess:
    """A new process that computes one run. It ends with this one, in whatever way this one ends.

    Ctrl-C in a terminal does not reach it, but `interrupt` does. What it says is in `LOG_NAME`.

    Args:
        threads: that it computes with.
        gpu: which of several it takes; counted on over those that there are.
    """

    def __init__(self, run: Run, *, data: Path, textures: Path | None, threads: int, gpu: int = 0) -> None:
        self.run = run
        context = get_context("spawn")
        self._answer, far_end = context.Pipe(duplex=False)
        arguments = (far_end, run, data, textures, threads, gpu)
        self._process = context.Process(target=_compute, args=arguments, name=run.name)
        os.environ.setdefault("TQDM_MININTERVAL", "60")  # its bars go to a file; tqdm reads that on being imported
        resource_tracker.ensure_running()  # which would unblock the signal again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until it has a session of its own
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        far_end.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @staticmethod
    def wait(processes: Iterable[OwnProcess], *, timeout_s: float = TICK_S) -> list[OwnProcess]:
        """Those that have ended, after `timeout_s` at most."""
        by_sentinel = {each._process.sentinel: each for each in processes}
        return [by_sentinel[ready] for ready in connection.wait(by_sentinel, timeout_s) if isinstance(ready, int)]

    def interrupt(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def reason(self) -> str:
        """Of one that has ended: why it came to nothing; empty if it did not."""
        self._process.join()
        try:
            return str(self._answer.recv())
        except EOFError:
            code = self._process.exitcode or 0
            how = (
                f"killed by {signal.Signals(-code).name}, perhaps for want of memory"
                if code < 0
                else f"ended by {code}"
            )
            return f"its process was {how}; see {self.run.folder / LOG_NAME}"


def compute_alone(run: Run, *, data: Path, textures: Path | None, threads: int) -> str:
    """Compute one in a new process. Returns why it came to nothing, empty if it did not.

    Raises `KeyboardInterrupt` after Ctrl-C, and the process has ended then.
    """
    process = OwnProcess(run, data=data, textures=textures, threads=threads)
    try:
        while not OwnProcess.wait([process]):
            pass
    finally:
        end([process])
    return process.reason()


def end(processes: Iterable[OwnProcess]) -> None:
    """Have them keep what they have learnt and end, and wait for it; another Ctrl-C leaves them less time."""
    left = list(processes)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        for each in left:
            each.interrupt(number)
        with suppress(KeyboardInterrupt):
            while left:
                for ended in OwnProcess.wait(left):
                    left.remove(ended)
            return


def _compute(
    answer: connection.Connection, run: Run, data: Path, textures: Path | None, threads: int, gpu: int
) -> None:
    """What a new process does."""
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        make_folder(run.folder)
        log = os.open(run.folder / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(log, stream)
        set_up_logging()
        tqdm.set_lock(threading.RLock())  # its own, of several processes, would be left over by a kill
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        if torch.cuda.is_available():
            torch.cuda.set_device(gpu % torch.cuda.device_count())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        answer.send(attempt(run, data=data, textures=textures))
    except (StlmError, OSError) as error:
        answer.send(str(error))
    except KeyboardInterrupt:
        logger.warning("interrupted")
        sys.exit(INTERRUPTED)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
