"""A GPU for machines without one: `pycuda.driver` and `cuda.bindings.driver` as far as they are used, over host memory.

It does nothing before it must, or works in an order that is allowed but inconvenient, see `FakeGpu.policy`; until then
memory that a copy will write to is poisoned. So whatever is read or overwritten too early gives a wrong answer.
What the functions are called is held to the real packages in `test_cuda_api.py`.
"""

from __future__ import annotations

import enum
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

Policy = Literal["lazy", "eager", "first stream first", "last stream first", "random"]
POLICIES: tuple[Policy, ...] = ("lazy", "eager", "first stream first", "last stream first", "random")

POISON = 0xFF
"""A float32 of these bytes is not a number."""

COPY_MS, INFER_MS = 0.5, 2.0


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
        self.stacks = _Stacks(self.violations)
        self.live_tensorrt = 0
        self.launched_graphs = 0
        self.inferred: list[int] = []
        self._next = 100
        self.driver = _driver(self)
        self.bindings = _bindings(self)
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


class _Stack(list[Any]):
    """The contexts that pycuda knows of on one thread."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__()
        self._violations = violations

    def __del__(self) -> None:
        if self:
            self._violations.append("a thread ended with a context on pycuda's stack, which aborts the program")


class _Stacks(threading.local):
    """The stacks of contexts of each thread: the driver's own, and pycuda's, of which the driver knows the top."""

    def __init__(self, violations: list[str]) -> None:
        self.drivers: list[Any] = []
        self.pycudas = _Stack(violations)


class _Ward:
    """What pycuda ties to the context that is current when it is made, and frees in it."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._ward = gpu.stacks.pycudas[-1] if gpu.stacks.pycudas else None
        self._ward_stacks = gpu.stacks
        self._ward_violations = gpu.violations

    def _require_ward(self) -> None:
        stack = self._ward_stacks.pycudas
        if not self._ward.is_valid:
            self._ward_violations.append(f"a {type(self).__name__} was freed after its context, so pycuda left it")
        elif not stack or stack[-1] is not self._ward:
            self._ward_violations.append(f"a {type(self).__name__} was freed while its context was not current")


class _Memory(_Ward):
    """An allocation, on the device or page-locked on the host; `is_mapped` is None on the device."""

    def __init__(self, gpu: FakeGpu, shape: tuple[int, ...], dtype: Any, *, is_mapped: bool | None = None) -> None:
        super().__init__(gpu)
        self._gpu = gpu
        self._array = np.empty(shape, dtype)
        self.is_mapped = is_mapped
        self.content = self._array.reshape(-1).view(np.uint8)
        # A card's memory is its own, and where memory is shared all of it counts.
        counted = [self, *gpu.memory.values()]
        used = sum(each.content.nbytes for each in counted if gpu.is_integrated or each.is_mapped is None)
        if used > gpu.capacity:
            raise gpu.driver.MemoryError("cuMemAlloc failed: out of memory")
        self.content[:] = POISON
        self.address = self.content.ctypes.data
        gpu.memory[self.address] = self

    def __int__(self) -> int:
        return self.address

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._array.__array_interface__

    def free(self) -> None:
        self._require_ward()
        self._gpu.call("cuMemFree", cleaning=True)
        if not self._gpu.is_idle and not self._gpu.lost:
            self._gpu.violations.append("memory was freed while the GPU was at work")
        if self._gpu.memory.pop(self.address, None) is None:
            self._gpu.violations.append("memory was freed twice")

    def get_device_pointer(self) -> int:
        self._gpu.call("cuMemHostGetDevicePointer")
        assert self.is_mapped
        return self.address


def _is_page_locked(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, _Memory)


def _driver(gpu: FakeGpu) -> Any:  # noqa: PLR0915  # one function for each that pycuda has
    driver: Any = types.ModuleType("pycuda.driver")
    driver.Error = type("Error", (Exception,), {})
    for name in ("MemoryError", "LogicError", "LaunchError", "RuntimeError"):
        setattr(driver, name, type(name, (driver.Error,), {}))
    driver.event_flags = enum.IntEnum("event_flags", {"BLOCKING_SYNC": 1})
    driver.device_attribute = enum.IntEnum("device_attribute", {"INTEGRATED": 18})
    driver.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)

    class Context:
        is_valid = True

        def __init__(self) -> None:
            self._thread = threading.get_ident()

        def push(self) -> None:
            stacks = gpu.stacks
            if stacks.pycudas:
                stacks.drivers.pop()
            gpu.calls += 1
            if gpu.calls == gpu.fail_at:
                raise driver.LogicError("cuCtxPushCurrent failed: invalid argument")
            stacks.drivers.append(self)
            stacks.pycudas.append(self)

        @staticmethod
        def pop() -> None:
            stacks = gpu.stacks
            stacks.drivers.pop()
            stacks.pycudas.pop()
            if stacks.pycudas:
                stacks.drivers.append(stacks.pycudas[-1])

        def detach(self) -> None:
            assert self.is_valid
            left = {name for name in gpu.left if name not in ("contexts", "current")}
            if gpu.retained == 1 and left:
                gpu.violations.append(f"the context went before {left}")
            stacks = gpu.stacks
            is_current = bool(stacks.pycudas) and stacks.pycudas[-1] is self
            if not is_current:
                if threading.get_ident() != self._thread:
                    gpu.violations.append("a context was not given back: it was not current, and of another thread")
                    return
                stacks.drivers.append(self)  # where pycuda leaves it
            self.is_valid = False
            gpu.retained -= 1
            if is_current:
                while stacks.pycudas and not stacks.pycudas[-1].is_valid:
                    stacks.pycudas.pop()
                if stacks.pycudas:
                    stacks.drivers.append(stacks.pycudas[-1])

        @staticmethod
        def synchronize() -> None:
            gpu.call("cuCtxSynchronize")
            gpu.run_all()

    class Device:
        def __init__(self, index: int) -> None:
            assert index == 0

        def name(self) -> str:
            return "Fake RTX 3090"

        def get_attribute(self, attribute: Any) -> int:
            assert attribute == driver.device_attribute.INTEGRATED
            return int(gpu.is_integrated)

        def retain_primary_context(self) -> Any:
            gpu.retained += 1
            return Context()

    def record(event: int, stream: Any) -> None:
        handle = stream.handle
        del stream
        gpu.call("cuEventRecord")
        recorded = (handle, gpu.queues[handle].queued + 1)
        gpu.events[event] = recorded
        gpu.queue(handle, lambda: gpu.happened.update({event: (recorded, gpu.clock_ms)}))

    def wait_for_event(handle: int, event: Any) -> None:
        recorded = gpu.events[event.number]
        del event
        gpu.call("cuStreamWaitEvent")
        if recorded is not None:
            gpu.queue(handle, partial(gpu.run, *recorded))

    def synchronize_event(event: int) -> None:
        gpu.call("cuEventSynchronize")
        if (recorded := gpu.events[event]) is not None:
            gpu.run(*recorded)

    def time_till(event: int, later: Any) -> float:
        other = later.number
        del later
        gpu.call("cuEventElapsedTime")
        moments = []
        for number in (event, other):
            recorded, moment_ms = gpu.happened.get(number, (None, 0.0))
            if recorded is None or recorded != gpu.events[number]:
                raise driver.RuntimeError("cuEventElapsedTime failed: device not ready")
            moments.append(moment_ms)
        return moments[1] - moments[0]

    # Their methods are functions of a number: the traceback of an error must not keep the object itself.
    class Stream(_Ward):
        def __init__(self, flags: int = 0) -> None:
            super().__init__(gpu)
            self._number = 0
            gpu.call("cuStreamCreate")
            self._number = gpu.new()
            gpu.queues[self._number] = _Queue()

        @property
        def handle(self) -> int:
            return self._number

        @property
        def wait_for_event(self) -> Any:
            return partial(wait_for_event, self._number)

        def __del__(self) -> None:
            if self._number:
                self._require_ward()
                gpu.call("cuStreamDestroy", cleaning=True)
                del gpu.queues[self._number]

    class Event(_Ward):
        def __init__(self, flags: int = 0) -> None:
            super().__init__(gpu)
            self.number = 0
            assert flags == driver.event_flags.BLOCKING_SYNC
            gpu.call("cuEventCreate")
            self.number = gpu.new()
            gpu.events[self.number] = None

        @property
        def record(self) -> Any:
            return partial(record, self.number)

        @property
        def synchronize(self) -> Any:
            return partial(synchronize_event, self.number)

        @property
        def time_till(self) -> Any:
            return partial(time_till, self.number)

        def __del__(self) -> None:
            if self.number:
                self._require_ward()
                gpu.call("cuEventDestroy", cleaning=True)
                del gpu.events[self.number]

    def init() -> None:
        pass

    def mem_alloc(count: int) -> Any:
        gpu.call("cuMemAlloc")
        return _Memory(gpu, (count,), np.uint8)

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        gpu.call("cuMemHostAlloc")
        is_mapped = bool(mem_flags & driver.host_alloc_flags.DEVICEMAP)
        return np.asarray(_Memory(gpu, shape, dtype, is_mapped=is_mapped))

    def memcpy_htod_async(address: int, source: np.ndarray, stream: Any) -> None:
        handle = stream.handle
        del stream
        gpu.call("cuMemcpyHtoDAsync")
        if not _is_page_locked(source):
            gpu.violations.append("memory that is not page-locked was uploaded")

        def copy() -> None:
            gpu.clock_ms += COPY_MS
            gpu.bytes_at(address, source.nbytes)[:] = source.reshape(-1).view(np.uint8)

        gpu.queue(handle, copy)

    def memcpy_dtoh_async(destination: np.ndarray, address: int, stream: Any) -> None:
        handle = stream.handle
        del stream
        gpu.call("cuMemcpyDtoHAsync")
        if not _is_page_locked(destination):
            gpu.violations.append("memory that is not page-locked was downloaded to")
        flat = destination.reshape(-1).view(np.uint8)
        flat[:] = POISON

        def copy() -> None:
            gpu.clock_ms += COPY_MS
            flat[:] = gpu.bytes_at(address, flat.nbytes)

        gpu.queue(handle, copy)

    driver.Context, driver.Device, driver.Stream, driver.Event = Context, Device, Stream, Event
    driver.init, driver.mem_alloc = init, mem_alloc
    driver.pagelocked_empty = pagelocked_empty
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
    # Not used by name, but their members are.
    driver.PagelockedHostAllocation = driver.DeviceAllocation = _Memory
    return driver


def _bindings(gpu: FakeGpu) -> Any:
    bindings: Any = types.ModuleType("cuda.bindings.driver")
    bindings.CUresult = enum.IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_LAUNCH_FAILED": 719, "FAILED": 901})
    bindings.CUstreamCaptureMode = enum.IntEnum("CUstreamCaptureMode", {"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": 1})
    done = bindings.CUresult.CUDA_SUCCESS

    def fails(name: str) -> bool:
        gpu.calls += 1
        return gpu.fail_capture == name or gpu.calls == gpu.fail_at

    def begin(stream: int, mode: Any) -> tuple[Any]:
        assert mode == bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        if fails("cuStreamBeginCapture"):
            return (bindings.CUresult.FAILED,)
        assert gpu.queues[stream].recording is None
        gpu.queues[stream].recording = []
        return (done,)

    def end(stream: int) -> tuple[Any, Any]:
        recorded, gpu.queues[stream].recording = gpu.queues[stream].recording, None
        assert recorded is not None
        if fails("cuStreamEndCapture"):
            return bindings.CUresult.FAILED, None
        number = gpu.new()
        gpu.graphs[number] = recorded
        return done, number

    def instantiate(graph: int, flags: int) -> tuple[Any, Any]:
        assert flags == 0
        if fails("cuGraphInstantiate"):
            return bindings.CUresult.FAILED, None
        number = gpu.new()
        gpu.graphs[number] = gpu.graphs[graph]
        return done, number

    def launch(graph: int, stream: int) -> tuple[Any]:
        if gpu.lost:
            return (bindings.CUresult.CUDA_ERROR_LAUNCH_FAILED,)
        if fails("cuGraphLaunch"):
            return (bindings.CUresult.FAILED,)
        gpu.launched_graphs += 1
        for work in gpu.graphs[graph]:
            gpu.queue(stream, work)
        return (done,)

    def destroy(graph: int) -> tuple[Any]:
        if not gpu.is_idle and not gpu.lost:
            gpu.violations.append("a graph was destroyed while the GPU was at work")
        del gpu.graphs[graph]
        return (done,)

    def text(status: Any) -> tuple[Any, bytes]:
        lost = bindings.CUresult.CUDA_ERROR_LAUNCH_FAILED
        return (
            done,
            b"unspecified launch failure"
            if status == lost
            else b"operation failed due to a previous error during capture",
        )

    bindings.cuStreamBeginCapture, bindings.cuStreamEndCapture = begin, end
    bindings.cuGraphInstantiate, bindings.cuGraphLaunch = instantiate, launch
    bindings.cuGraphDestroy = bindings.cuGraphExecDestroy = destroy
    bindings.cuGetErrorString = text
    return bindings
