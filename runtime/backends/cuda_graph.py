"""A CUDA graph: launches that are recorded once and then started all at once, which spares the host one call for each.

pycuda knows none, so NVIDIA's own cuda-bindings record and launch it, whichever of the two made the stream. Both are
thin layers over the same driver: the handles of one are integers that the other takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.backends.cuda_bindings import BindingsError, call
from runtime.backends.cuda_driver import Stream
from runtime.backends.cuda_errors import cuda_error
from stlm_edge.errors import EngineError


class CaptureError(EngineError):
    """A graph that could not be recorded; the stream takes plain launches as before."""


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
        try:
            call(self._bindings, "cuGraphLaunch", self._executable, stream.handle)
        except BindingsError as error:
            raise cuda_error("launch its graph", str(error)) from error

    def free(self) -> None:
        """Give the graph back; it must not be running."""
        if self._executable is not None:
            self._bindings.cuGraphExecDestroy(self._executable)
            self._executable = None

    def _destroy(self, graph: Any) -> None:
        if graph is not None:
            self._bindings.cuGraphDestroy(graph)

    def _record(self, name: str, *arguments: object) -> Any:
        try:
            return call(self._bindings, name, *arguments)
        except BindingsError as error:
            raise CaptureError(str(error)) from error
