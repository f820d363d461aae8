"""`pycuda.driver` as far as it is used, over the memory of a `FakeGpu`."""

from __future__ import annotations

import enum
import threading
import types
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .fake_cuda import FakeGpu

POISON = 0xFF
"""A float32 of these bytes is not a number."""

COPY_MS = 0.5


class _Stack(list[Any]):
    """The contexts that pycuda knows of on one thread."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__()
        self._violations = violations

    def __del__(self) -> None:
        if self:
            self._violations.append("a thread ended with a context on pycuda's stack, which aborts the program")


class Stacks(threading.local):
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


def fake_driver(gpu: FakeGpu) -> Any:  # noqa: PLR0915  # one function for each that pycuda has
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
            self._number = gpu.new_stream()

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
