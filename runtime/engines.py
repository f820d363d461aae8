"""Engines that several recipes or cameras have in common: each is opened once, and works on one batch after another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from runtime.backends import BackendChoice, open_engine
from runtime.backends.base import IN_FLIGHT, Backend, BatchAnswer, Ticket
from runtime.watchdog import Watchdog
from stlm_edge.errors import EngineError, StlmError
from stlm_edge.imaging import Input
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class _Request:
    """Pictures of one camera, and the answer that it waits for."""

    batch: Input
    answer: Future[BatchAnswer] = field(default_factory=Future)


class _Queue:
    """What the cameras ask of one engine, in the order in which they ask. Owns a thread until `close`.

    Requests that wait at the same time share a batch, as far as the graph has room for them.
    """

    def __init__(self, backend: Backend, *, max_batch: int) -> None:
        self._backend = backend
        self._max_batch = max_batch
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        # A daemon, since an engine may hang.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, batch: Input) -> Ticket:
        request = _Request(batch)
        with self._changed:
            if self._is_closed:
                raise EngineError("the engine has been closed; open it again to inspect more frames")
            self._waiting.append(request)
            self._changed.notify()
        return Ticket(request.answer.result, lock=nullcontext())

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        started: deque[tuple[Ticket, list[_Request]]] = deque()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or started or self._is_closed)
                requests = self._next()
            if not requests and not started:
                return
            if requests:
                try:
                    batch = (
                        requests[0].batch if len(requests) == 1 else np.concatenate([each.batch for each in requests])
                    )
                    started.append((self._backend.submit(batch), requests))
                except Exception as error:
                    _fail(requests, error)
            # Where another batch waits it is started before the first one's answer is asked for.
            if started and (len(started) == IN_FLIGHT or not self._waiting):
                _answer(*started.popleft())

    def _next(self) -> list[_Request]:
        """As many as fit into a batch, one at least if there are any."""
        taken: list[_Request] = []
        pictures = 0
        while self._waiting and (not taken or pictures + len(self._waiting[0].batch) <= self._max_batch):
            taken.append(self._waiting.popleft())
            pictures += len(taken[-1].batch)
        return taken


def _answer(ticket: Ticket, requests: list[_Request]) -> None:
    try:
        found = ticket.result()
    except Exception as error:
        _fail(requests, error)
        return
    begin = 0
    for request in requests:
        end = begin + len(request.batch)
        maps, scores = found.maps[begin:end], found.scores[begin:end]
        request.answer.set_result(BatchAnswer(maps, scores, found.infer_ms, found.upload_ms, found.download_ms))
        begin = end


def _fail(requests: list[_Request], error: Exception) -> None:
    for request in requests:
        request.answer.set_exception(error)


@dataclass(eq=False)
class _Opened:
    """An engine in memory.

    Attributes:
        queue: where several threads ask it.
        users: leases that are not closed.
    """

    backend: Backend
    sidecar: Sidecar
    queue: _Queue | None
    users: int = 0


class Engines:
    """Opens each engine once, however many detectors use it, and closes it with the last of them.

    Any thread may call it; opening one holds up nobody who uses or closes another.
    """

    def __init__(self, *, watchdog: Watchdog, cameras: int) -> None:
        """
        Args:
            watchdog: of each inference.
            cameras: so many threads ask for inferences; with one, engines are asked by that itself.
        """
        self._watchdog = watchdog
        self._cameras = cameras
        self._opening, self._lock = threading.Lock(), threading.Lock()
        self._opened: dict[tuple[object, ...], _Opened] = {}

    def open(self, path: Path, *, backend: BackendChoice = "auto") -> tuple[Backend, Sidecar]:
        """As `runtime.backends.open_engine`, with the sidecar as it is now; the caller closes its own backend."""
        with self._opening:
            key = (*_identity(path), backend)
            with self._lock:
                known = self._opened.get(key)
                if known is not None:
                    known.users += 1
            if known is not None:
                try:
                    sidecar = _same(path, known.sidecar)
                except StlmError:
                    self._give_back(key)
                    raise
                return _Lease(path, known, spec=sidecar.spec, on_close=lambda: self._give_back(key)), sidecar
            opened, sidecar = open_engine(path, backend=backend, side_by_side=self._cameras > 1)
            opened.watchdog = self._watchdog
            queue = _Queue(opened, max_batch=sidecar.spec.max_batch) if self._cameras > 1 else None
            entry = _Opened(opened, sidecar, queue, users=1)
            with self._lock:
                self._opened[key] = entry
            return _Lease(path, entry, spec=sidecar.spec, on_close=lambda: self._give_back(key)), sidecar

    def _give_back(self, key: tuple[object, ...]) -> None:
        with self._lock:
            entry = self._opened[key]
            entry.users -= 1
            if entry.users:
                return
            del self._opened[key]
        if entry.queue is not None:
            entry.queue.close()
        entry.backend.close()


class _Lease(Backend):
    """One detector's share of an engine, which checks its own batches; closing it ends that share alone."""

    name = "shared"

    def __init__(self, path: Path, entry: _Opened, *, spec: ModelSpec, on_close: Callable[[], None]) -> None:
        super().__init__(path, spec=spec)
        self._entry = entry
        self._on_close = on_close

    @property
    def device(self) -> str:
        return self._entry.backend.device

    @property
    def runs_by(self) -> str:
        return self._entry.backend.runs_by

    @property
    def in_hand(self) -> int:
        # The others' frames keep the engine busy meanwhile, and each waits for those before it.
        return 1 if self._entry.users >= 2 * self._spec.max_batch else IN_FLIGHT

    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        return (self._entry.queue or self._entry.backend).submit(batch).result

    def _release(self) -> None:
        self._on_close()


def _identity(path: Path) -> tuple[object, ...]:
    """What tells one engine's file from another; of a file that is not there, nothing does."""
    try:
        stat = path.stat()
    except OSError:
        return (path,)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _same(path: Path, known: Sidecar) -> Sidecar:
    """The sidecar as it is now, whose threshold may be a new one. Raises `EngineError`, `SpecError`."""
    sidecar = Sidecar.read(path)
    sidecar.spec.require_threshold()
    if sidecar.engine.engine_sha256 != known.engine.engine_sha256:
        raise EngineError(f"{path} has another engine's sidecar; copy both again")
    return sidecar
