"""Memory, streams and events of the GPU, and its errors in one line each; the only module that imports pycuda.

What is made here is owned by a `CudaContext` and ends with it. pycuda itself frees an object when Python drops the last
reference, which is too late where an exception's traceback holds one: the context is gone by then.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_errors import cuda_error
from runtime.closing import Closing
from stlm_edge.errors import EngineError

logger = logging.getLogger(__name__)

_INSTALL = (
    "pip install 'stlm-edge[tensorrt]', which compiles it and needs g++, Python's headers, and nvcc, the headers and "
    "libcurand of the CUDA toolkit (nvcc on the PATH: export PATH=/usr/local/cuda/bin:$PATH)"
)
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, which pycuda has no name for: such a stream does not wait for what others do by default."""


class Stream:
    """A queue of the GPU's work, done in order."""

    def __init__(self, driver: Any) -> None:
        self._stream: Any = driver.Stream(_NON_BLOCKING)

    @property
    def raw(self) -> Any:
        return self._stream

    @property
    def handle(self) -> int:
        """As TensorRT and cuda-bindings take it."""
        return int(self._stream.handle)

    def wait_for(self, event: Event) -> None:
        """Let what is queued from now on wait until `event` has happened."""
        self._stream.wait_for_event(event.raw)

    def free(self) -> None:
        self._stream = None


class Event:
    """A moment in a stream's work."""

    def __init__(self, driver: Any) -> None:
        # Waiting sleeps: spinning would take a core from the capture and the outputs for the whole inference.
        self._event: Any = driver.Event(driver.event_flags.BLOCKING_SYNC)

    @property
    def raw(self) -> Any:
        return self._event

    def record(self, stream: Stream) -> None:
        """Happen when all has been done that is queued in `stream` now."""
        self._event.record(stream.raw)

    def synchronize(self) -> None:
        """Wait until it has happened."""
        self._event.synchronize()

    def ms_until(self, later: Event) -> float:
        """Milliseconds to another one; both must have happened."""
        return float(self._event.time_till(later.raw))

    def free(self) -> None:
        self._event = None


class DeviceMemory:
    """Memory of the GPU that only the GPU reads and writes."""

    def __init__(self, driver: Any, nbytes: int) -> None:
        self.nbytes = nbytes
        self._allocation: Any = driver.mem_alloc(nbytes)
        self.address = int(self._allocation)

    def free(self) -> None:
        if self._allocation is not None:
            self._allocation.free()
            self._allocation = None


class Tensor:
    """An array that the host and the GPU both use; who writes to it must know that the other is not reading it.

    With a GPU of its own memory there are two copies, page-locked for the host, and `upload` and `download` bring one
    to the other. Where the GPU shares the host's memory there is one, and they do nothing.

    Attributes:
        host: the array; it dies with the context, so nobody is given it or a view of it.
        address: where the GPU finds it.
    """

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: DTypeLike, *, is_shared: bool) -> None:
        flags = driver.host_alloc_flags.DEVICEMAP if is_shared else 0
        self.host: NDArray[Any] = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._driver = driver
        self._pages: Any = self.host.base
        self._device: DeviceMemory | None = None
        try:
            if is_shared:
                self.address = int(self._pages.get_device_pointer())
            else:
                self._device = DeviceMemory(driver, self.host.nbytes)
                self.address = self._device.address
        except BaseException:
            self.free()
            raise

    def upload(self, stream: Stream, *, count: int) -> None:
        """Queue the copying of the first `count` along the first axis to the GPU."""
        if self._device is not None:
            self._driver.memcpy_htod_async(self.address, self.host[:count], stream.raw)

    def download(self, stream: Stream, *, count: int) -> None:
        """Queue the copying of the first `count` along the first axis to the host."""
        if self._device is not None:
            self._driver.memcpy_dtoh_async(self.host[:count], self.address, stream.raw)

    def free(self) -> None:
        self.host = np.empty(0)
        if self._pages is not None:
            self._pages.free()
            self._pages = None
        if self._device is not None:
            self._device.free()


Owned = TypeVar("Owned", Stream, Event, DeviceMemory, Tensor)


class CudaContext(Closing):
    """The first GPU's primary context, current on this thread until `close`.

    Make all that is needed before the next one is opened on this thread: pycuda ties what is made to the newest.

    Attributes:
        gpu: the GPU's name.
        is_integrated: the GPU shares the host's memory, as a Jetson's does.
    """

    def __init__(self) -> None:
        """Raises `EngineError` if pycuda is missing or CUDA does not start."""
        self._owned: list[Stream | Event | DeviceMemory | Tensor] = []
        self._driver = import_driver()
        with self.errors("start"):
            self._driver.init()
            device = self._driver.Device(0)
            self.gpu = str(device.name())
            self.is_integrated = bool(device.get_attribute(self._driver.device_attribute.INTEGRATED))
            self._context = device.retain_primary_context()
            try:
                self._context.push()
            except BaseException:
                self._context.detach()
                raise

    def stream(self) -> Stream:
        return self._own(Stream(self._driver))

    def event(self) -> Event:
        return self._own(Event(self._driver))

    def device_memory(self, nbytes: int) -> DeviceMemory:
        return self._own(DeviceMemory(self._driver, nbytes))

    def tensor(self, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        return self._own(Tensor(self._driver, shape, dtype, is_shared=self.is_integrated))

    @contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turn what CUDA raises while the GPU does `action` into an `EngineError`."""
        try:
            yield
        except self._driver.Error as error:
            text = " ".join(str(error).split())
            raise cuda_error(action, text) from error

    def wait(self) -> None:
        """Wait until the GPU has done everything; that a lost one cannot is logged."""
        if self._context is not None:
            self._attempt("wait for the GPU", self._driver.Context.synchronize)

    def close(self) -> None:
        """Wait for the GPU, free all that was made here, and give the context back.

        A GPU that was lost cannot even free, so what fails here is logged and the rest goes on.
        """
        if self._context is None:
            return
        self.wait()
        while self._owned:
            self._attempt("free memory", self._owned.pop().free)
        # Also takes it off this thread, from below that of another plan too; `pop` would take the uppermost. What is
        # left on pycuda's stack aborts the program at its end.
        self._attempt("give the context back", self._context.detach)
        self._context = None

    def _own(self, made: Owned) -> Owned:
        self._owned.append(made)
        return made

    def _attempt(self, action: str, step: Callable[[], object]) -> None:
        try:
            step()
        except self._driver.Error as error:
            logger.warning("CUDA cannot %s any more (%s)", action, " ".join(str(error).split()))


def import_driver() -> Any:
    """pycuda's driver, which makes no context by itself. Raises `EngineError` if it is missing or does not work."""
    try:
        return importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        if error.name != "pycuda":
            raise _broken(error) from error
        raise EngineError(f"found no pycuda, expected it to run a plan; {_INSTALL}") from error
    except (ImportError, OSError) as error:  # compiled for another CUDA or numpy, or no driver
        raise _broken(error) from error


def _broken(error: Exception) -> EngineError:
    text = " ".join(str(error).split())
    return EngineError(
        f"pycuda is there but does not work ({text}); compile it again for this CUDA toolkit and driver: pip install "
        "--force-reinstall --no-cache-dir --no-binary pycuda --no-deps pycuda"
    )
