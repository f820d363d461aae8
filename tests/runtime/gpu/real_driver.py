"""A program that runs plans by the real pycuda or cuda-bindings over the driver of `libcuda.c`.

TensorRT is the simulated one; what it computes is done in the memory that the driver has given.

    LD_LIBRARY_PATH=… python -m tests.runtime.gpu.real_driver SCENARIO DRIVER FOLDER

as `test_real_drivers.py` does.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.backends import open_engine
from runtime.backends.cuda import CudaContext, open_driver
from runtime.detector import Detector
from stlm_edge.errors import EngineError

from ..conftest import picture
from .conftest import BATCHED, Machine, NotThere, batches, check, run_two_in_hand

libcuda = ctypes.CDLL("libcuda.so.1")
libcuda.gpu_failed.restype = ctypes.c_char_p
for _name in ("gpu_calls", "gpu_allocations"):
    getattr(libcuda, _name).restype = ctypes.c_long
libcuda.gpu_set.argtypes = [ctypes.c_int, ctypes.c_size_t]
libcuda.gpu_fail.argtypes = [ctypes.c_long, ctypes.c_int]
libcuda.gpu_capturing.argtypes = [ctypes.c_void_p]
libcuda.gpu_has.argtypes = [ctypes.c_ulonglong, ctypes.c_size_t]

ROOM = 1 << 30
NEVER = -1
INVALID_VALUE, OUT_OF_MEMORY = 1, 2
CALLS = 200


class RealGpu:
    """What `fake_tensorrt` wants of a GPU, from the driver."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.live_tensorrt = 0
        self.lost = False
        self.clock_ms = 0.0
        self.inferred: list[int] = []
        self.is_integrated = False
        self.is_idle = True
        self._recorded: dict[int, list[Callable[[], None]]] = defaultdict(list)
        self._on_launch = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._launch)
        libcuda.gpu_on_launch(self._on_launch)

    @property
    def has_context(self) -> bool:
        return bool(libcuda.gpu_depth() and libcuda.gpu_retained())

    @property
    def queues(self) -> Any:
        class Queues(dict[int, Any]):
            def __missing__(self, stream: int) -> Any:
                return SimpleNamespace(recording=libcuda.gpu_capturing(stream) or None)

        return Queues()

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        number = libcuda.gpu_capturing(stream)
        if number:
            self._recorded[number].append(work)
        else:
            work()

    def bytes_at(self, address: int, count: int) -> np.ndarray:
        if not libcuda.gpu_has(address, count):
            self.violations.append("the GPU used memory that is not its own")
            return np.zeros(count, np.uint8)
        return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))

    def _launch(self, number: int) -> None:
        for work in self._recorded[number]:
            work()

    def lose(self, *, is_lost: bool) -> None:
        self.lost = is_lost
        libcuda.gpu_lose(is_lost)


class RealMachine(Machine):
    """A computer whose packages are real; `main` hides those that it has not."""

    gpu: Any

    def install_drivers(self, *, bindings: bool = True) -> None:
        pass

    def expect_nothing_left(self, *, taken_along: int = 0) -> None:
        """Args: taken_along: how many things only the end of the context may have freed."""
        gc.collect()
        assert libcuda.gpu_left(-1) == 0
        assert libcuda.gpu_orphans() <= taken_along
        assert libcuda.gpu_depth() == 0
        assert (self.gpu.live_tensorrt, self.gpu.violations) == (0, [])


def two_in_hand(machine: RealMachine) -> None:
    words = {"pycuda": "a CUDA graph", "pycuda alone": "plain launches", "cuda-bindings": "a CUDA graph"}
    with machine.open() as backend:
        assert backend.device == f"Stub of a GPU, {words[sys.argv[2]]}"
        assert libcuda.gpu_depth() == 0, "between calls no context is current"
        run_two_in_hand(backend, batches(20))
        assert libcuda.gpu_depth() == 0
        answer = backend.submit(batches(1)[0]).result()
        assert 0 <= answer.infer_ms < 10_000
    assert libcuda.gpu_retained() == 0


def shared_memory(machine: RealMachine) -> None:
    """As on a Jetson: nothing is copied, so there is no memory of the GPU but the scratch memory."""
    libcuda.gpu_set(1, ROOM)
    machine.gpu.is_integrated = True
    with machine.open() as backend:
        assert [libcuda.gpu_left(kind) for kind in (0, 1)] == [1, 6], "scratch; image, map and score of each slot"
        run_two_in_hand(backend, batches(20))


def dynamic_batch(machine: RealMachine) -> None:
    with machine.open(BATCHED) as backend:
        run_two_in_hand(backend, batches(20, sizes=(1, 2, 3)))


def thirty_reopenings(machine: RealMachine) -> None:
    """Also while somebody else, as TensorRT's own CUDA runtime, keeps the context."""
    libcuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)
    machine.install()
    path = machine.plan()
    before = None
    for _ in range(30):
        start = libcuda.gpu_allocations()
        with open_engine(path)[0] as backend:
            check(backend.submit(batches(1)[0]).result(), batches(1)[0])
        made = libcuda.gpu_allocations() - start
        assert before in (None, made)
        before = made
        assert (libcuda.gpu_left(-1), libcuda.gpu_retained(), libcuda.gpu_depth()) == (0, 1, 0)
    assert libcuda.gpu_orphans() == 0


def three_at_once(machine: RealMachine) -> None:
    machine.install()
    path = machine.plan()
    backends = [open_engine(path)[0] for _ in range(3)]
    for closed in (1, 0, 2):
        for backend in backends:
            if not backend._closed:
                run_two_in_hand(backend, batches(3))
        backends[closed].close()


def context_of_somebody_else(machine: RealMachine) -> None:
    """What was current on the thread before is so after each call, also by pycuda's own count."""
    context = ctypes.c_void_p()
    if sys.argv[2] == "cuda-bindings":
        libcuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        libcuda.cuCtxPushCurrent_v2(context)
    else:
        import pycuda.driver

        pycuda.driver.init()
        other = pycuda.driver.Device(0).retain_primary_context()
        other.push()
    with machine.open() as backend:
        assert libcuda.gpu_depth() == 1
        run_two_in_hand(backend, batches(3))
        assert libcuda.gpu_depth() == 1
    assert (libcuda.gpu_depth(), libcuda.gpu_retained(), libcuda.gpu_left(-1)) == (1, 1, 0)
    libcuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    if sys.argv[2] == "cuda-bindings":
        libcuda.cuDevicePrimaryCtxRelease_v2(0)
    else:
        other.detach()


def other_threads(machine: RealMachine) -> None:
    """Opened on one thread, used on four, closed on another; what was made on one is freed on another."""
    machine.install()
    opened: list[Detector] = []
    _in_thread(lambda: opened.append(Detector.open(machine.plan())))
    (detector,) = opened
    found: list[bool] = []

    def inspect() -> None:
        for value in (250, 10) * 20:
            found.append(detector.inspect(picture(value)).is_anomalous == (value > 100))
        assert libcuda.gpu_depth() == 0

    threads = [threading.Thread(target=inspect) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 160
    _in_thread(detector.close)


def thread_ends(machine: RealMachine) -> None:
    """With an open detector, which is closed when the program ends."""
    machine.install()

    def inspect() -> None:
        detector = Detector.open(machine.plan())
        assert detector.inspect(picture(250)).is_anomalous

    _in_thread(inspect)
    assert libcuda.gpu_retained() == 1
    print("the thread has ended")


def program_ends(machine: RealMachine) -> None:
    """With an open detector and a batch in hand."""
    machine.install()
    backend, _ = open_engine(machine.plan())
    backend.submit(batches(1)[0])
    print("open", libcuda.gpu_retained())


def program_raises(machine: RealMachine) -> None:
    program_ends(machine)
    raise SystemExit("on purpose")


def program_ends_while_a_thread_hangs(machine: RealMachine) -> None:
    """It waits for a moment and ends all the same."""
    machine.patch.setattr("runtime.backends.tensorrt._LAST_WAIT_S", 0.2)
    backend = machine.open()
    ticket = backend.submit(batches(1)[0])
    libcuda.gpu_wait(60_000)
    threading.Thread(target=ticket.result, daemon=True).start()
    time.sleep(0.2)
    print("open", libcuda.gpu_retained())


def each_call_fails(machine: RealMachine) -> None:
    """One after the other: the outcome is an `EngineError` or the right answers, and nothing is left."""
    machine.install()
    path = machine.plan()

    def use() -> None:
        with open_engine(path)[0] as backend:
            run_two_in_hand(backend, batches(3))

    libcuda.gpu_fail(NEVER, 0)
    use()
    total = libcuda.gpu_calls()
    assert total > 100
    refused, survived = set(), set()
    for number in range(1, total + 1):
        libcuda.gpu_fail(number, OUT_OF_MEMORY if number % 2 else INVALID_VALUE)
        error: EngineError | None = None
        try:
            use()
        except EngineError as caught:
            error = caught  # which keeps its traceback while it is looked whether something is left
        name = libcuda.gpu_failed().decode()
        assert name, number
        (survived if error is None else refused).add(name)
        if error is not None:
            assert ("out of memory" if number % 2 else "invalid argument") in str(error)
            assert "\n" not in str(error)
        # What the driver refuses to take back goes with the context, and the context with the program.
        is_cleaning = "Destroy" in name or "Free" in name
        if name == "cuDevicePrimaryCtxRelease_v2":
            assert libcuda.gpu_retained() == 1
            libcuda.cuDevicePrimaryCtxRelease_v2(0)
        assert libcuda.gpu_retained() == 0, name
        machine.expect_nothing_left(taken_along=int(is_cleaning))
    libcuda.gpu_fail(NEVER, 0)
    use()
    assert {"cuInit", "cuDevicePrimaryCtxRetain", "cuMemAlloc_v2", "cuMemHostAlloc", "cuEventSynchronize"} <= refused
    assert {"cuMemFree_v2", "cuMemFreeHost", "cuStreamDestroy_v2", "cuEventDestroy_v2", "cuCtxSynchronize"} <= survived


def no_room(machine: RealMachine) -> None:
    libcuda.gpu_set(0, 50_000)
    with pytest.raises(EngineError, match=r"cannot open .*out of memory\); free GPU memory"):
        machine.open()


def gpu_is_lost(machine: RealMachine) -> None:
    backend = machine.open()
    ticket = backend.submit(batches(1)[0])
    machine.gpu.lose(is_lost=True)
    for use in (ticket.result, lambda: backend.submit(batches(1)[0])):
        with pytest.raises(EngineError, match=r"unspecified launch failure\); the GPU .* was lost"):
            use()
    backend.close()
    assert libcuda.gpu_retained() == 0
    libcuda.gpu_orphans()


def context_is_gone(machine: RealMachine) -> None:
    """Another library has reset the GPU, so that the context cannot even be made current."""
    backend = machine.open()
    libcuda.gpu_destroy_context()
    with pytest.raises(EngineError, match=r"context is destroyed\); the GPU .* cannot use it again"):
        backend.submit(batches(1)[0])
    backend.close()
    print("closed")
    machine.gpu.violations.clear()  # TensorRT's own runtime finds the context by itself


def waiting_lets_others_work(machine: RealMachine) -> None:
    """The interpreter's lock is released while the host waits for the GPU."""
    with machine.open() as backend:
        libcuda.gpu_wait(300)
        counted = [0]
        is_over = threading.Event()

        def count() -> None:
            while not is_over.is_set():
                counted[0] += 1
                time.sleep(0.001)

        thread = threading.Thread(target=count)
        thread.start()
        backend.infer(batches(1)[0])
        is_over.set()
        thread.join()
        libcuda.gpu_wait(0)
    assert counted[0] > 20


def price_of_a_context(machine: RealMachine) -> None:
    """Prints what making it current and taking it off again costs."""
    context = CudaContext()
    took_s = []
    for _ in range(CALLS):
        start_s = time.perf_counter()
        with context.current("be measured"):
            pass
        took_s.append(time.perf_counter() - start_s)
    print(f"{1e6 * sorted(took_s)[CALLS // 2]:.1f} us")
    with context.closing():
        pass


def _in_thread(work: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed, failed


def main(scenario: str, driver: str, folder: str) -> None:
    if driver != "pycuda":
        sys.meta_path.insert(0, NotThere("cuda" if driver == "pycuda alone" else "pycuda"))
    sys.setdlopenflags(os.RTLD_LAZY)  # pycuda could call much that the driver lacks
    assert open_driver().title == driver.removesuffix(" alone")
    machine = RealMachine(Path(folder), pytest.MonkeyPatch(), RealGpu())
    gc.freeze()  # what has been imported is not looked through again and again
    run = globals()[scenario]
    run(machine)
    if run not in (thread_ends, program_ends, program_raises, program_ends_while_a_thread_hangs, context_is_gone):
        machine.expect_nothing_left()


if __name__ == "__main__":
    main(*sys.argv[1:])
