"""CUDA by NVIDIA's cuda-bindings alone, which `pip` installs without a compiler.

Its functions answer with a tuple, a status and what was asked for; versions 12 and 13 agree in all that is used here.
"""

from __future__ import annotations

import ctypes
import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from runtime.backends.cuda_driver import NON_BLOCKING, Owned
from stlm_edge.errors import EngineError


class BindingsError(Exception):
    """A function of the driver failed."""


def import_bindings() -> Any:
    """The driver's module of cuda-bindings; None if it is not installed. Raises `EngineError` if it does not work."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError:
        return None
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"cuda-bindings does not work ({error}); pip install -U cuda-bindings") from error


def find_bindings() -> BindingsDriver | None:
    """None if it is not installed. Raises `EngineError` if it does not work."""
    api = import_bindings()
    return None if api is None else BindingsDriver(api)


def call(api: Any, name: str, *arguments: object) -> Any:
    """Call a function of the driver for what it answers, None if nothing. Raises `BindingsError`."""
    try:
        status, *values = getattr(api, name)(*arguments)
    except RuntimeError as error:  # no driver, or one that lacks the function
        raise BindingsError(f"{name} failed: {error}") from error
    if status != api.CUresult.CUDA_SUCCESS:
        _, text = api.cuGetErrorString(status)
        raise BindingsError(f"{name} failed: {text.decode() if text else status}")
    return values[0] if values else None


class BindingsDriver:
    """See `Driver`."""

    title = "cuda-bindings"
    gpu = ""
    is_integrated = False
    Error: type[Exception] = BindingsError

    def __init__(self, api: Any) -> None:
        self._api = api
        self._device: Any = None
        self._context: Any = None

    def start(self) -> None:
        call(self._api, "cuInit", 0)
        self._device = call(self._api, "cuDeviceGet", 0)
        self.gpu = call(self._api, "cuDeviceGetName", 256, self._device).split(b"\0")[0].decode(errors="replace")
        attribute = self._api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
        self.is_integrated = bool(call(self._api, "cuDeviceGetAttribute", attribute, self._device))
        self._context = call(self._api, "cuDevicePrimaryCtxRetain", self._device)

    def push(self) -> None:
        call(self._api, "cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        call(self._api, "cuCtxPopCurrent")

    def release(self) -> None:
        self.pop()
        call(self._api, "cuDevicePrimaryCtxRelease", self._device)

    def abandon(self, owned: list[Owned]) -> None:
        pass  # nothing happens to it by itself

    def synchronize(self) -> None:
        call(self._api, "cuCtxSynchronize")

    def stream(self) -> _Stream:
        return _Stream(self._api)

    def event(self) -> _Event:
        return _Event(self._api)

    def device_memory(self, nbytes: int) -> _DeviceMemory:
        return _DeviceMemory(self._api, nbytes)

    def host_memory(self, shape: tuple[int, ...], dtype: DTypeLike, *, is_mapped: bool) -> _HostMemory:
        return _HostMemory(self._api, shape, dtype, is_mapped=is_mapped)


class _Held:
    """What the driver has made, by `create`, until `destroy` takes it back."""

    def __init__(self, api: Any, create: str, *arguments: object, destroy: str) -> None:
        self._api = api
        self._destroy = destroy
        self.raw: Any = call(api, create, *arguments)

    def free(self) -> None:
        raw, self.raw = self.raw, None
        if raw is not None:
            call(self._api, self._destroy, raw)


class _Stream(_Held):
    def __init__(self, api: Any) -> None:
        super().__init__(api, "cuStreamCreate", NON_BLOCKING, destroy="cuStreamDestroy")

    @property
    def handle(self) -> int:
        return int(self.raw)

    def wait_for(self, event: _Event) -> None:
        call(self._api, "cuStreamWaitEvent", self.raw, event.raw, 0)

    def upload(self, host: NDArray[Any], address: int) -> None:
        call(self._api, "cuMemcpyHtoDAsync", address, host.ctypes.data, host.nbytes, self.raw)

    def download(self, host: NDArray[Any], address: int) -> None:
        call(self._api, "cuMemcpyDtoHAsync", host.ctypes.data, address, host.nbytes, self.raw)


class _Event(_Held):
    def __init__(self, api: Any) -> None:
        # Waiting sleeps: spinning would take a core from the capture and the outputs for the whole inference.
        super().__init__(api, "cuEventCreate", int(api.CUevent_flags.CU_EVENT_BLOCKING_SYNC), destroy="cuEventDestroy")

    def record(self, stream: _Stream) -> None:
        call(self._api, "cuEventRecord", self.raw, stream.raw)

    def synchronize(self) -> None:
        call(self._api, "cuEventSynchronize", self.raw)

    def ms_until(self, later: _Event) -> float:
        return float(call(self._api, "cuEventElapsedTime", self.raw, later.raw))


class _DeviceMemory(_Held):
    def __init__(self, api: Any, nbytes: int) -> None:
        super().__init__(api, "cuMemAlloc", nbytes, destroy="cuMemFree")
        self.nbytes = nbytes
        self.address = int(self.raw)


class _HostMemory(_Held):
    def __init__(self, api: Any, shape: tuple[int, ...], dtype: DTypeLike, *, is_mapped: bool) -> None:
        flags = 0x02 if is_mapped else 0  # CU_MEMHOSTALLOC_DEVICEMAP
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        super().__init__(api, "cuMemHostAlloc", nbytes, flags, destroy="cuMemFreeHost")
        content = (ctypes.c_uint8 * nbytes).from_address(int(self.raw))
        self.array: NDArray[Any] = np.ctypeslib.as_array(content).view(dtype).reshape(shape)

    def address(self) -> int:
        return int(call(self._api, "cuMemHostGetDevicePointer", self.raw, 0))

    def free(self) -> None:
        self.array = np.empty(0)
        super().free()
