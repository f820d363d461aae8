"""Memory, streams and events of the GPU, who owns them, and CUDA's errors in one line each.

What is made here is owned by a `CudaContext` and ends with it. The context is current on a thread only while a call
into the backend lasts: so any thread may call, and pycuda, which aborts a program when a thread ends whose stack of
contexts is not empty, finds it empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_bindings import find_bindings
from runtime.backends.cuda_driver import DeviceMemory, Driver, Event, Owned, Stream
from runtime.backends.cuda_errors import cuda_error
from runtime.backends.cuda_pycuda import find_pycuda
from stlm_edge.errors import EngineError

logger = logging.getLogger(__name__)

_INSTALL = (
    "pip install cuda-bindings, which needs no compiler, or pip install 'stlm-edge[tensorrt]', which compiles pycuda "
    "and needs g++, Python's headers, and nvcc, the headers and libcurand of the CUDA toolkit (nvcc on the PATH: "
    "export PATH=/usr/local/cuda/bin:$PATH)"
)


class Tensor:
    """An array that the host and the GPU both use; who writes to it must know that the other is not reading it.

    With a GPU of its own memory there are two copies, page-locked for the host, and `upload` and `download` bring one
    to the other. Where the GPU shares the host's memory there is one, and they do nothing.

    Attributes:
        host: the array; it dies with the context, so nobody is given it or a view of it.
        address: where the GPU finds it.
    """

    def __init__(self, driver: Driver, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._memory = driver.host_memory(shape, dtype, is_mapped=driver.is_integrated)
        self._device: DeviceMemory | None = None
        try:
            if driver.is_integrated:
                self.address = self._memory.address()
            else:
                self._device = driver.device_memory(self._memory.array.nbytes)
                self.address = self._device.address
        except BaseException:
            self.free()
            raise

    @property
    def host(self) -> NDArray[Any]:
        return self._memory.array

    def upload(self, stream: Stream, *, count: int) -> None:
        """Queue the copying of the first `count` along the first axis to the GPU."""
        if self._device is not None:
            stream.upload(self.host[:count], self.address)

    def download(self, stream: Stream, *, count: int) -> None:
        """Queue the copying of the first `count` along the first axis to the host."""
        if self._device is not None:
            stream.download(self.host[:count], self.address)

    def free(self) -> None:
        try:
            self._memory.free()
        finally:
            if self._device is not None:
                self._device.free()


Made = TypeVar("Made", bound=Owned)


class CudaContext:
    """The first GPU's primary context; whoever opens one leaves it by `closing`.

    Everything is made and used within `current`.

    Attributes:
        gpu: the GPU's name.
    """

    def __init__(self) -> None:
        """Raises `EngineError` if there is no driver's package or CUDA does not start."""
        self._owned: list[Owned] = []
        self._failed: set[str] = set()
        self._driver = open_driver()
        with self._errors("start"):
            self._driver.start()
        self.gpu = self._driver.gpu

    def stream(self) -> Stream:
        return self._own(self._driver.stream())

    def event(self) -> Event:
        return self._own(self._driver.event())

    def device_memory(self, nbytes: int) -> DeviceMemory:
        return self._own(self._driver.device_memory(nbytes))

    def tensor(self, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        return self._own(Tensor(self._driver, shape, dtype))

    @contextmanager
    def current(self, action: str) -> Iterator[None]:
        """Have the context current on this thread while the GPU does `action`.

        What CUDA raises meanwhile becomes an `EngineError`.
        """
        with self._errors(action):
            self._driver.push()
            try:
                yield
            finally:
                self._driver.pop()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Wait for the GPU, do the block, free all that was made here, and give the context back; to be used once.

        A GPU that was lost cannot even free, so what fails here is logged and the rest goes on.
        """
        is_current = self._attempt("be used", self._driver.push)
        if is_current:
            self._attempt("wait for the GPU", self._driver.synchronize)
        try:
            yield
        finally:
            if is_current:
                while self._owned:
                    self._attempt("free memory", self._owned.pop().free)
                self._attempt("give the context back", self._driver.release)
            else:
                self._driver.abandon(self._owned)

    def _own(self, made: Made) -> Made:
        self._owned.append(made)
        return made

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise cuda_error(action, " ".join(str(error).split())) from error

    def _attempt(self, action: str, step: Callable[[], object]) -> bool:
        try:
            step()
        except self._driver.Error as error:
            if action not in self._failed:
                logger.warning("CUDA cannot %s any more (%s)", action, " ".join(str(error).split()))
            self._failed.add(action)
            return False
        return True


def open_driver() -> Driver:
    """pycuda, or where it is not installed cuda-bindings alone. Raises `EngineError` if neither is or it is broken."""
    driver: Driver | None = find_pycuda() or find_bindings()
    if driver is None:
        raise EngineError(f"found neither pycuda nor cuda-bindings, expected one of them to run a plan; {_INSTALL}")
    logger.info("CUDA by %s", driver.title)
    return driver
