"""Processes that work ahead of the training: pseudo anomalies at 1024 x 1024 take a while, a GPU should not wait."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from stlm_edge.errors import ConfigError, StlmError, TrainingError
from stlm_edge.memory import ran_out

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2
"""Results that each process works ahead."""

_END = object()

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers(Generic[Task, Result]):
    """Runs a function on tasks in processes of its own, ahead of the caller, and gives the results in order.

    The processes are forked at the first task and see all that `function` refers to as it is then, without a copy. They
    stay for further tasks, until `close`. Ctrl-C is left to the main process; if that ends in any way, so do they.

    Args:
        function: its results travel through shared memory where they are tensors, and have to be picklable.
        count: of processes, at least 1.
        result_bytes: of one result, to see beforehand whether there is shared memory enough.
    """

    def __init__(self, function: Callable[[Task], Result], *, count: int, result_bytes: int) -> None:
        self._function = function
        self._count = count
        self._result_bytes = result_bytes
        self._tasks: list[Task] = []
        self._loader: DataLoader[Any] | None = None

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """The results, one for each task. A `StlmError` of the function is raised here as it was raised there.

        Raises:
            ConfigError: if there is not enough shared memory for the results.
            TrainingError: if a process was killed while this one waited for it.
        """
        self._tasks[:] = tasks
        if self._loader is None:
            self._loader = self._start()
        with _undisturbed():
            results = iter(self._loader)
        while (result := self._next(results)) is not _END:
            if isinstance(result, StlmError):
                raise result
            yield cast(Result, result)

    def close(self) -> None:
        """End the processes. No `run` may be going on."""
        self._loader = None  # nobody else holds it, and it ends its processes when it goes

    def _next(self, results: Iterator[Any]) -> Any:
        try:
            return next(results, _END)
        except Exception as error:
            if ran_out(error):
                raise TrainingError(
                    f"memory ran out in one of {self._count} worker processes; lower workers"
                ) from error
            # PyTorch notices it, or the way to the worker breaks; what the function itself raised has a traceback.
            broken = isinstance(error, EOFError | OSError) or (
                isinstance(error, RuntimeError) and "worker" in str(error)
            )
            if not broken or "Traceback" in str(error):
                raise
            raise TrainingError(
                f"one of {self._count} worker processes was killed, perhaps for want of memory; lower workers"
            ) from error

    def _start(self) -> DataLoader[Any]:
        cores = len(os.sched_getaffinity(0))
        if self._count > cores:
            logger.warning("%d workers share %d cores; as many workers as cores is enough", self._count, cores)
        _check_shared_memory((self._count * PREFETCHED + 1) * self._result_bytes)
        with _undisturbed():
            return DataLoader(
                _Tasks(self._function),
                sampler=cast(Any, self._tasks),  # read by this process only, anew in every epoch
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=self._count,
                prefetch_factor=PREFETCHED,
                persistent_workers=True,
                multiprocessing_context="fork",
                worker_init_fn=_settle,
                generator=torch.Generator(),  # its own: the training's random numbers are not touched
            )


class _Tasks(Dataset[Any]):
    """Maps a task to its result, as a loader wants it."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __getitem__(self, task: Any) -> Any:
        try:
            return self._function(task)
        except StlmError as error:  # a loader would put a traceback into its one clear line
            return error


def _as_it_is(result: Any) -> Any:
    return result


def _check_shared_memory(needed: int) -> None:
    """Without enough of it a worker is killed without a word; containers often have 64 MB."""
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise ConfigError(
            f"the workers need {needed >> 20} MB of shared memory, {SHARED_MEMORY} has {free >> 20} MB free; lower "
            "workers (0: none, which need none), or enlarge it (docker run --shm-size)"
        )


def _settle(_worker: int) -> None:
    """One thread for each worker; torch sees to its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While processes start: no Ctrl-C in one that has no say in it yet, and none of the warnings that follow.

    PyTorch's on too many workers is given above in our words. Python 3.12 and later warn of forking beside other
    threads, since a lock that one of them holds stays held in the new process; the workers use only OpenCV, which runs
    without its threads there, and NumPy and PyTorch, which prepare for it.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
            yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, before)
