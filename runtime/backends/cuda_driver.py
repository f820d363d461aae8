"""What running a plan asks of CUDA's driver API; `cuda_pycuda` and `cuda_bindings` fulfil it.

A function of the driver that fails raises what stands in `Driver.Error`. All but `start` and `push` want the context to
be current on the thread that calls.
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, which pycuda has no name for: such a stream does not wait for what others do by default."""


class Owned(Protocol):
    """What must be freed while the context is current."""

    def free(self) -> None: ...


class Stream(Owned, Protocol):
    """A queue of the GPU's work, done in order."""

    @property
    def handle(self) -> int:
        """As TensorRT and cuda-bindings take it."""

    def wait_for(self, event: Any) -> None:
        """Let what is queued from now on wait until `event` has happened."""

    def upload(self, host: NDArray[Any], address: int) -> None:
        """Queue the copying of a page-locked array to the GPU."""

    def download(self, host: NDArray[Any], address: int) -> None:
        """Queue the copying to a page-locked array from the GPU."""


class Event(Owned, Protocol):
    """A moment in a stream's work."""

    def record(self, stream: Any) -> None:
        """Happen when all has been done that is queued in `stream` now."""

    def synchronize(self) -> None:
        """Wait until it has happened, asleep."""

    def ms_until(self, later: Any) -> float:
        """Milliseconds to another one; both must have happened."""


class DeviceMemory(Owned, Protocol):
    """Memory of the GPU that only the GPU reads and writes."""

    nbytes: int
    address: int


class HostMemory(Owned, Protocol):
    """A page-locked array of the host; `free` takes it away from under whoever still has it."""

    array: NDArray[Any]

    def address(self) -> int:
        """Where a GPU that shares the host's memory finds it; it must have been made with `is_mapped`."""


class Driver(Protocol):
    """The first GPU and its primary context.

    Attributes:
        title: the package that the driver is reached by.
        gpu: the GPU's name, once started.
        is_integrated: the GPU shares the host's memory, as a Jetson's does.
    """

    title: str
    gpu: str
    is_integrated: bool

    @property
    def Error(self) -> type[Exception]: ...  # noqa: N802  # an exception's name

    def start(self) -> None:
        """Start CUDA and retain the context, which is not made current."""

    def push(self) -> None:
        """Make the context current on this thread."""

    def pop(self) -> None:
        """Make current again what was before `push`."""

    def release(self) -> None:
        """Give the context back, and make current what was before it."""

    def abandon(self, owned: list[Owned]) -> None:
        """Let go of what cannot be freed since the context cannot be made current any more."""

    def synchronize(self) -> None:
        """Wait until the GPU has done everything."""

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def device_memory(self, nbytes: int) -> DeviceMemory: ...

    def host_memory(self, shape: tuple[int, ...], dtype: DTypeLike, *, is_mapped: bool) -> HostMemory: ...
