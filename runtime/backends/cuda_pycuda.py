"""CUDA by pycuda.

pycuda frees an object when Python drops the last reference, which is too late where an exception's traceback holds one.
So each is held by one of the classes here alone, and no function here has one as an argument or a local variable.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_driver import NON_BLOCKING, Owned
from stlm_edge.errors import EngineError


def find_pycuda() -> PycudaDriver | None:
    """None if it is not installed. Raises `EngineError` if it does not work."""
    try:
        # Makes no context by itself.
        return PycudaDriver(importlib.import_module("pycuda.driver"))
    except ModuleNotFoundError as error:
        if error.name == "pycuda":
            return None
        raise _broken(error) from error
    except (ImportError, OSError) as error:  # compiled for another CUDA or numpy, or no driver
        raise _broken(error) from error


def _broken(error: Exception) -> EngineError:
    text = " ".join(str(error).split())
    return EngineError(
        f"pycuda is there but does not work ({text}); compile it again for this CUDA toolkit and driver: pip install "
        "--force-reinstall --no-cache-dir --no-binary pycuda --no-deps pycuda; or take it away, cuda-bindings does "
        "without a compiler: pip uninstall pycuda && pip install cuda-bindings"
    )


def libcuda() -> Any:
    """The driver's own library, which pycuda has loaded."""
    return ctypes.CDLL("libcuda.so.1")


class PycudaDriver:
    """See `Driver`."""

    gpu = ""
    is_integrated = False

    def __init__(self, api: Any) -> None:
        self.title = "pycuda"
        self.Error: type[Exception] = api.Error
        self._api = api
        self._context: Any = None

    def start(self) -> None:
        self._api.init()
        device = self._api.Device(0)
        self.gpu = str(device.name())
        self.is_integrated = bool(device.get_attribute(self._api.device_attribute.INTEGRATED))
        self._context = device.retain_primary_context()

    def push(self) -> None:
        self._context.push()

    def pop(self) -> None:
        self._context.pop()

    def release(self) -> None:
        # pycuda takes a primary context off its own stack and leaves it on the driver's; it has no function that would
        # take it off there, and off a stack of its own that is not empty it aborts the program when a thread ends.
        libcuda().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        self._context.detach()

    def abandon(self, owned: list[Owned]) -> None:
        # A destructor of pycuda that cannot make the context current ends the program, so they are kept for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))

    def synchronize(self) -> None:
        self._api.Context.synchronize()

    def stream(self) -> _Stream:
        return _Stream(self._api)

    def event(self) -> _Event:
        return _Event(self._api)

    def device_memory(self, nbytes: int) -> _DeviceMemory:
        return _DeviceMemory(self._api, nbytes)

    def host_memory(self, shape: tuple[int, ...], dtype: DTypeLike, *, is_mapped: bool) -> _HostMemory:
        return _HostMemory(self._api, shape, dtype, is_mapped=is_mapped)


class _Stream:
    def __init__(self, api: Any) -> None:
        self._api = api
        self.raw: Any = api.Stream(NON_BLOCKING)

    @property
    def handle(self) -> int:
        return int(self.raw.handle)

    def wait_for(self, event: _Event) -> None:
        self.raw.wait_for_event(event.raw)

    def upload(self, host: NDArray[Any], address: int) -> None:
        self._api.memcpy_htod_async(address, host, self.raw)

    def download(self, host: NDArray[Any], address: int) -> None:
        self._api.memcpy_dtoh_async(host, address, self.raw)

    def free(self) -> None:
        self.raw = None


class _Event:
    def __init__(self, api: Any) -> None:
        # Waiting sleeps: spinning would take a core from the capture and the outputs for the whole inference.
        self.raw: Any = api.Event(api.event_flags.BLOCKING_SYNC)

    def record(self, stream: _Stream) -> None:
        self.raw.record(stream.raw)

    def synchronize(self) -> None:
        self.raw.synchronize()

    def ms_until(self, later: _Event) -> float:
        return float(self.raw.time_till(later.raw))

    def free(self) -> None:
        self.raw = None


class _DeviceMemory:
    def __init__(self, api: Any, nbytes: int) -> None:
        self.nbytes = nbytes
        self._raw: Any = api.mem_alloc(nbytes)
        self.address = int(self._raw)

    def free(self) -> None:
        if self._raw is not None:
            self._raw.free()
            self._raw = None


class _HostMemory:
    def __init__(self, api: Any, shape: tuple[int, ...], dtype: DTypeLike, *, is_mapped: bool) -> None:
        flags = api.host_alloc_flags.DEVICEMAP if is_mapped else 0
        self.array: NDArray[Any] = api.pagelocked_empty(shape, dtype, mem_flags=flags)
        self._raw: Any = self.array.base

    def address(self) -> int:
        return int(self._raw.get_device_pointer())

    def free(self) -> None:
        self.array = np.empty(0)
        if self._raw is not None:
            self._raw.free()
            self._raw = None
