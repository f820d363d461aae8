"""A GPU for machines without one: `pycuda.driver` and `cuda.bindings.driver` as far as they are used, over host memory.

This is its state; the two libraries are in `fake_pycuda.py` and `fake_bindings.py`.

It does nothing before it must, or works in an order that is allowed but inconvenient, see `FakeGpu.policy`; until then
memory that a copy will write to is poisoned. So whatever is read or overwritten too early gives a wrong answer.
What the functions are called is held to the real packages in `test_cuda_api.py`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .fake_bindings import fake_bindings
from .fake_pycuda import Stacks, fake_driver

Policy = Literal["lazy", "eager", "first stream first", "last stream first", "random"]
POLICIES: tuple[Policy, ...] = ("lazy", "eager", "first stream first", "last stream first", "random")

INFER_MS = 2.0


@dataclass
class _Queue:
    """The work of a stream by its number, `queued` so far and `done` of it."""

    work: dict[int, Callable[[], None]] = field(default_factory=dict)
    queued: int = 0
    done: int = 0
    recording: list[Callable[[], None]] | None = None


@dataclass
class FakeGpu:
    """The state of the GPU, and what is to go wrong with it.

    Attributes:
        policy: `lazy` works when the host waits, `eager` at once, the next two have one stream work at once and the
            others when the host waits, `random` does some of it at some time.
        is_integrated: shares the host's memory.
        capacity: bytes that can be allocated.
        fail_at: number of the call of CUDA that fails.
        lost: the GPU fails from now on.
        fail_capture: the function of the driver that fails during a capture.
        violations: what no program may do, such as freeing memory that is in use.
        calls: of CUDA, so far.
    """

    policy: Policy = "lazy"
    seed: int = 0
    is_integrated: bool = False
    capacity: int = 1 << 30
    fail_at: int | None = None
    lost: bool = False
    fail_capture: str = ""
    violations: list[str] = field(default_factory=list)
    calls: int = 0
    clock_ms: float = 0.0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.queues: dict[int, _Queue] = {}
        self.events: dict[int, tuple[int, int] | None] = {}
        self.happened: dict[int, tuple[tuple[int, int], float]] = {}
        self.memory: dict[int, Any] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.retained = 0
        self.stacks = Stacks(self.violations)
        self.live_tensorrt = 0
        self.launched_graphs = 0
        self.inferred: list[int] = []
        self._next = 100
        self.driver = fake_driver(self)
        self.bindings = fake_bindings(self)
        self.libcuda = types.SimpleNamespace(cuCtxPopCurrent_v2=lambda _: self.stacks.drivers.pop())

    @property
    def left(self) -> dict[str, int]:
        """What has been made and not been given back."""
        counts = {
            "memory": len(self.memory),
            "streams": len(self.queues),
            "events": len(self.events),
            "graphs": len(self.graphs),
            "contexts": self.retained,
            "current": len(self.stacks.drivers) + len(self.stacks.pycudas),
            "TensorRT": self.live_tensorrt,
        }
        return {name: count for name, count in counts.items() if count}

    def new(self) -> int:
        self._next += 1
        return self._next

    def new_stream(self) -> int:
        number = self.new()
        self.queues[number] = _Queue()
        return number

    def call(self, name: str, *, cleaning: bool = False) -> None:
        """Every function of CUDA that needs a context begins with this."""
        self.calls += 1
        if any(queue.recording is not None for queue in self.queues.values()):
            self.violations.append(f"{name} during a capture")
        if not cleaning and self.calls == self.fail_at:
            raise self.driver.LogicError(f"{name} failed: invalid argument")
        if self.lost and not cleaning:
            raise self.driver.LaunchError(f"{name} failed: unspecified launch failure")
        if not self.has_context:
            if cleaning:
                self.violations.append(f"{name} without a context")
            else:
                raise self.driver.LogicError(f"{name} failed: invalid device context")

    @property
    def has_context(self) -> bool:
        """One is current on this thread, and has not been given back."""
        return bool(self.stacks.drivers) and self.retained > 0

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work into a stream."""
        queue = self.queues[stream]
        if queue.recording is not None:
            queue.recording.append(work)
            return
        queue.queued += 1
        queue.work[queue.queued] = work
        self._go_on()

    def run(self, stream: int, until: int) -> None:
        """Execute the first `until` works of a stream."""
        queue = self.queues[stream]
        while queue.done < until:
            queue.done += 1
            queue.work.pop(queue.done)()

    def run_all(self) -> None:
        for stream in list(self.queues):
            self.run(stream, self.queues[stream].queued)

    @property
    def is_idle(self) -> bool:
        return all(queue.done == queue.queued for queue in self.queues.values())

    def bytes_at(self, address: int, count: int) -> np.ndarray:
        """Memory as the GPU sees it."""
        for allocation in self.memory.values():
            offset = address - allocation.address
            if 0 <= offset < allocation.content.nbytes:
                if allocation.is_mapped is False:
                    break
                return allocation.content[offset : offset + count]
        self.violations.append("the GPU used memory that is not its own")
        return np.zeros(count, np.uint8)

    def _go_on(self) -> None:
        streams = list(self.queues)
        if self.policy == "eager":
            self.run_all()
        elif self.policy == "first stream first":
            self.run(streams[0], self.queues[streams[0]].queued)
        elif self.policy == "last stream first":
            self.run(streams[-1], self.queues[streams[-1]].queued)
        elif self.policy == "random":
            stream = streams[self.random.integers(len(streams))]
            queue = self.queues[stream]
            self.run(stream, int(self.random.integers(queue.done, queue.queued + 1)))
