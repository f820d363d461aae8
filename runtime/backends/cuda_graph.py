"""A CUDA graph: launches that are recorded once and then started all at once, which spares the host one call for each.

pycuda knows none, so NVIDIA's own cuda-bindings record and launch it. Both are thin layers over the same driver: the
handles of one are integers that the other takes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from runtime.backends.cuda import Stream
from runtime.backends.cuda_errors import cuda_error
from stlm_edge.errors import EngineError


class CaptureError(EngineError):
    """A graph that could not be recorded; the stream takes plain launches as before."""


def import_bindings() -> Any:
    """The driver's module of cuda-bindings; None if it is not installed. Raises `CaptureError` if it does not work."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError:
        return None
    except (ImportError, OSError, RuntimeError) as error:
        raise CaptureError(f"cuda-bindings does not work ({error}); pip install -U cuda-bindings") from error


class CudaGraph:
    """What a stream was told to do once, to be launched again and again; the memory that it uses must stay in place."""

    def __init__(self, bindings: Any, stream: Stream, enqueue: Callable[[], None]) -> None:
        """Record what `enqueue` gives to `stream`; none of it is executed.

        Raises `CaptureError`, and whatever `enqueue` raises; recording has ended then, and nothing is left.
        """
        self._bindings = bindings
        self._executable: Any = None
        # Only this thread's calls are watched: a camera's driver may allocate on the GPU meanwhile.
        mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._record("cuStreamBeginCapture", stream.handle, mode)
        try:
            enqueue()
        except BaseException:
            _, graph = bindings.cuStreamEndCapture(stream.handle)
            self._destroy(graph)
            raise
        graph = self._record("cuStreamEndCapture", stream.handle)
        try:
            self._executable = self._record("cuGraphInstantiate", graph, 0)
        finally:
            self._destroy(graph)

    def launch(self, stream: Stream) -> None:
        """Queue it. Raises `EngineError`."""
        status, *_ = self._bindings.cuGraphLaunch(self._executable, stream.handle)
        if status != self._bindings.CUresult.CUDA_SUCCESS:
            raise cuda_error("launch its graph", self._text(status))

    def free(self) -> None:
        """Give the graph back; it must not be running."""
        if self._executable is not None:
            self._bindings.cuGraphExecDestroy(self._executable)
            self._executable = None

    def _destroy(self, graph: Any) -> None:
        if graph is not None:
            self._bindings.cuGraphDestroy(graph)

    def _record(self, name: str, *arguments: object) -> Any:
        """Call a function of the driver, which answers with a status and perhaps a value."""
        try:
            status, *values = getattr(self._bindings, name)(*arguments)
        except RuntimeError as error:  # a driver that lacks the function
            raise CaptureError(f"{name} failed ({error})") from error
        if status != self._bindings.CUresult.CUDA_SUCCESS:
            raise CaptureError(f"{name} failed ({self._text(status)})")
        return values[0] if values else None

    def _text(self, status: Any) -> str:
        _, text = self._bindings.cuGetErrorString(status)
        return text.decode() if text else str(status)
