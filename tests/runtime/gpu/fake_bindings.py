"""`cuda.bindings.driver` as far as it is used, for a `FakeGpu`."""

from __future__ import annotations

import enum
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fake_cuda import FakeGpu


def fake_bindings(gpu: FakeGpu) -> Any:
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
