"""What every backend does alike: check the graph when it is opened, input and answer at each inference."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from runtime.closing import Closing
from runtime.watchdog import Watchdog
from stlm_edge.errors import EngineError
from stlm_edge.imaging import Input
from stlm_edge.memory import NO_THREAD, lacks_threads, ran_out
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import rebuild_command

Maps = NDArray[np.float32]
"""(N, h, w) float32, higher is more anomalous; (h, w) = spec.map_size."""
Scores = NDArray[np.float32]
"""(N,) float32, one image score per map."""


@dataclass(frozen=True)
class Port:
    """One input or output of a graph; a dimension that the file leaves open is -1."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {self.shape}"


PROCESSOR = "CPU"
"""The device of backends that have no GPU."""

IN_FLIGHT = 2
"""Batches that a backend takes before it must be asked for the first one's answer: one is inferred, one is prepared."""


@dataclass(frozen=True, eq=False)
class BatchAnswer:
    """What the network says of a batch; whoever asked owns the arrays.

    Attributes:
        maps: (N, h, w) float32.
        scores: (N,) float32.
        infer_ms: the network itself.
        upload_ms: pixels into memory that the GPU can read, and from there to it; 0 where there is no GPU.
        download_ms: the answer back; 0 where there is no GPU or it shares the memory.
    """

    maps: Maps
    scores: Scores
    infer_ms: float
    upload_ms: float = 0.0
    download_ms: float = 0.0


class Ticket:
    """A batch that was submitted; `result` waits for its answer."""

    def __init__(self, finish: Callable[[], BatchAnswer], *, lock: AbstractContextManager[object]) -> None:
        self._finish = finish
        self._lock = lock
        self._answer: BatchAnswer | None = None

    def result(self) -> BatchAnswer:
        """Wait for the answer; asked again, it is the same. Raises `EngineError`."""
        with self._lock:
            if self._answer is None:
                self._answer = self._finish()
            return self._answer


class Backend(Closing):
    """An opened engine. Owns the inference library's session until `close`; use as a context manager.

    Any thread may call it; calls wait for one another.

    A subclass opens its session in `__init__`, calls `_check_ports` and fills in `_start` and `_release`.

    Attributes:
        watchdog: is told of each inference, where there is one.
    """

    name: ClassVar[str]
    watchdog: Watchdog | None = None

    def __init__(self, path: Path, *, spec: ModelSpec) -> None:
        self._path = path
        self._spec = spec
        self._closed = False
        self._lock = threading.RLock()
        self._in_flight = 0

    @property
    def device(self) -> str:
        """Where it runs, in words."""
        return PROCESSOR

    @property
    def path(self) -> Path:
        """Of the engine's file."""
        return self._path

    @property
    def runs_by(self) -> str:
        """The name of the backend that does the work, also where several share it."""
        return self.name

    @property
    def in_hand(self) -> int:
        """How many batches of one caller may be in hand with a gain, `IN_FLIGHT` at most."""
        return IN_FLIGHT

    def infer(self, batch: Input) -> tuple[Maps, Scores]:
        """Run the network and wait for it; arguments and errors as for `submit`.

        Returns:
            Anomaly maps and scores; the caller owns both arrays.
        """
        answer = self.submit(batch).result()
        return answer.maps, answer.scores

    def submit(self, batch: Input) -> Ticket:
        """Start the network and return at once; answers come in the order of the batches.

        Args:
            batch: (N, H, W, 3) uint8, BGR; 1 <= N <= spec.max_batch, (H, W) = spec.picture_size. Not to be written to
                before the answer is there.
        Raises:
            EngineError: if the engine is closed, `IN_FLIGHT` batches have not been asked for, or the batch does not
                fit. The ticket's `result` raises it if the network fails or answers with values that are not finite.
        """
        with self._lock:
            started = self._submit(batch)
        return Ticket(lambda: self._finish(started, pictures=len(batch)), lock=self._lock)

    def close(self) -> None:
        """Release the session, and what is in flight with it; harmless when called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                with self._watched("closing"):
                    self._release()

    def _submit(self, batch: Input) -> Callable[[], BatchAnswer]:
        if self._closed:
            raise EngineError(f"{self._path} has been closed; open it again to inspect more frames")
        if self._in_flight >= IN_FLIGHT:
            raise EngineError(f"{self._path} has {IN_FLIGHT} batches in hand; ask for the result of the first one")
        most, expected = self._spec.max_batch, (*self._spec.picture_size, 3)
        if batch.shape[1:] != expected or not 1 <= batch.shape[0] <= most or batch.dtype != np.uint8:
            wanted = f"{'1' if most == 1 else f'1 to {most}'} x {expected}"
            raise EngineError(
                f"found a batch of shape {batch.shape} and type {batch.dtype}, {self._path} expects {wanted} uint8; "
                "prepare frames by stlm_edge.imaging.to_input"
            )
        with self._watched("inference", pictures=len(batch)):
            started = self._start(batch)
        self._in_flight += 1
        return started

    def _finish(self, started: Callable[[], BatchAnswer], *, pictures: int) -> BatchAnswer:
        try:
            with self._watched("inference", pictures=pictures):
                answer = started()
        finally:
            self._in_flight -= 1
        # No threshold is ever exceeded by NaN: unchecked, an overflow inside the network would pass every defect.
        if not (np.isfinite(answer.scores).all() and np.isfinite(answer.maps).all()):
            raise EngineError(
                f"{self._path} answered with values that are not finite on {self.name}, expected a map and a "
                "score; verify the engine and export it again, in fp32 if it was not"
            )
        return answer

    @abstractmethod
    def _start(self, batch: Input) -> Callable[[], BatchAnswer]:
        """The work of `submit`, on a checked batch; what it returns waits for the answer, and is called once."""

    @abstractmethod
    def _release(self) -> None:
        """The work of `close`, called once."""

    def _watched(self, what: str, *, pictures: int = 1) -> AbstractContextManager[None]:
        if self.watchdog is None:
            return nullcontext()
        return self.watchdog.watching(f"{what} by {self._path} on {self.name}", pictures=pictures)

    def _check_ports(self, *, inputs: list[Port], outputs: list[Port]) -> None:
        expected = _expected_ports(self._spec)
        found = (_by_name(inputs), _by_name(outputs))
        if found != expected:
            raise EngineError(
                f"{self._path} has {_listed(found)}, its sidecar expects {_listed(expected)}; "
                f"export the engine again: {rebuild_command(self._path)}"
            )

    def _failed(self, action: str, error: Exception) -> EngineError:
        """The one line for what the inference library could not do."""
        remedy = "try another --backend or export the engine again"
        if ran_out(error):
            remedy = "memory ran out: end other programs that use it, or take a machine with more"
        elif lacks_threads(error):
            remedy = NO_THREAD
        return EngineError(f"{self.name} cannot {action} {self._path} ({error}); {remedy}")


Ports = tuple[list[Port], list[Port]]


def _expected_ports(spec: ModelSpec) -> Ports:
    batch = 1 if spec.max_batch == 1 else -1
    outputs = [Port("anomaly_map", "float32", (batch, *spec.map_size)), Port("score", "float32", (batch,))]
    if spec.full_map:
        outputs.append(Port("full_map", "float32", (batch, *spec.input_size)))
    return [Port("image", "uint8", (batch, *spec.picture_size, 3))], sorted(outputs, key=lambda port: port.name)


def _by_name(ports: list[Port]) -> list[Port]:
    return sorted(ports, key=lambda port: port.name)


def _listed(ports: Ports) -> str:
    inputs, outputs = (", ".join(map(str, side)) for side in ports)
    return f"the inputs {inputs} and the outputs {outputs}"
