"""What of the simulated TensorRT runs plans."""

from __future__ import annotations

import enum
import json
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime.gpu.fake_cuda import INFER_MS, FakeGpu
from ..runtime.gpu.fake_pycuda import POISON
from .plan import brightness, told

KERNELS = b"kernels"


def add_runtime(trt: Any, gpu: FakeGpu, *, rtx: bool) -> None:
    """Put what runs plans into a module."""
    trt.DataType = enum.Enum("DataType", ["FLOAT", "HALF", "UINT8"])
    trt.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    trt.ExecutionContextAllocationStrategy = enum.Enum("ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"])
    error = trt.ILogger.Severity.ERROR

    class Owned:
        """Belongs to the CUDA context, which must be there until it is gone."""

        def __init__(self, parent: Any, log: Any) -> None:
            self._parent = parent
            self._log = log
            gpu.live_tensorrt += 1
            if not gpu.has_context:
                gpu.violations.append(f"{type(self).__name__} was made without a context")

        def __del__(self) -> None:
            gpu.live_tensorrt -= 1
            if not gpu.has_context:
                gpu.violations.append(f"{type(self).__name__} went after its context")
            if not gpu.is_idle and not gpu.lost:
                gpu.violations.append(f"{type(self).__name__} went while the GPU was at work")

        def _works(self, name: str, words: str = "Error Code 1: Cuda Runtime (invalid resource handle)") -> bool:
            if gpu.lost:
                self._log.log(error, told("an illegal memory access").replace("; ", "\n"))
            elif trt.is_broken == name:
                self._log.log(error, told(words))
            return not gpu.lost and trt.is_broken != name

    class IExecutionContext(Owned):
        def __init__(self, parent: Any, log: Any, *, by_user: bool) -> None:
            super().__init__(parent, log)
            self._facts = parent._facts
            self._addresses: dict[str, int] = {}
            self._scratch = 0 if by_user else -1
            self._count = self._facts["batch"]
            self._changes = 0

        def set_device_memory(self, memory: int, size: int) -> None:
            assert size >= self._facts["scratch"]
            self._changes += 1
            self._scratch = memory

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._changes += 1
            self._addresses[name] = memory
            return self._works("set_tensor_address")

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert name == "image"
            assert self._facts["batch"] == -1
            assert tuple(shape[1:]) == (*self._facts["picture"], 3)
            self._changes += 1
            self._count = shape[0]
            return self._works("set_input_shape") and 1 <= shape[0] <= self._facts["most"]

        def execute_async_v3(self, stream_handle: int) -> bool:
            names = ["image", "anomaly_map", "score", *(["full_map"] if self._facts["full"] else [])]
            assert sorted(self._addresses) == sorted(names), "a tensor has no address"
            assert self._count > 0, "the batch is not set"
            if not self._works("execute_async_v3"):
                return False
            if self._facts["scratch"] and self._scratch == 0:
                gpu.violations.append("a context has no scratch memory")
            if gpu.is_integrated:
                for address, count in self._outputs().values():
                    gpu.bytes_at(address, count)[:] = POISON
            recording = gpu.queues[stream_handle].recording is not None
            gpu.queue(stream_handle, self._work(is_recorded=recording))
            if self._parent._cache is not None:
                self._parent._cache.content = KERNELS
            return True

        def _outputs(self) -> dict[str, tuple[int, int]]:
            sizes = {"anomaly_map": int(np.prod(self._facts["map"])), "score": 1}
            if self._facts["full"]:
                sizes["full_map"] = int(np.prod(self._facts["full"]))
            return {name: (self._addresses[name], 4 * self._count * size) for name, size in sizes.items()}

        def _work(self, *, is_recorded: bool) -> Callable[[], None]:
            """The inference with the addresses of now. Keeps no reference, as the GPU does not."""
            facts, count, outputs = self._facts, self._count, self._outputs()
            shape = (count, *facts["picture"], 3)
            image, scratch, changes = self._addresses["image"], self._scratch, self._changes
            context = weakref.ref(self)

            def infer() -> None:
                if is_recorded and getattr(context(), "_changes", None) != changes:
                    gpu.violations.append("a graph was launched whose context has been changed or is gone")
                if facts["scratch"]:
                    gpu.bytes_at(scratch, facts["scratch"])[:] = POISON
                batch = gpu.bytes_at(image, int(np.prod(shape))).reshape(shape)
                maps, scores = brightness(batch, tuple(facts["map"]))
                answers = {"anomaly_map": maps, "score": scores}
                if facts["full"]:
                    answers["full_map"] = np.ones((count, *facts["full"]), np.float32)
                gpu.clock_ms += INFER_MS
                gpu.inferred.append(count)
                for name, (address, size) in outputs.items():
                    gpu.bytes_at(address, size)[:] = answers[name].reshape(-1).view(np.uint8)

            return infer

    class ICudaEngine(Owned):
        def __init__(self, parent: Any, log: Any, facts: Any) -> None:
            super().__init__(parent, log)
            self._facts = facts
            self._cache: Any = None
            self._tensors = {
                "image": ("INPUT", facts["dtype"], (facts["batch"], *facts["picture"], 3)),
                "anomaly_map": ("OUTPUT", "FLOAT", (facts["batch"], *facts["map"])),
                "score": ("OUTPUT", "FLOAT", (facts["batch"],)),
            }
            if facts["full"]:
                self._tensors["full_map"] = ("OUTPUT", "FLOAT", (facts["batch"], *facts["full"]))

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        @property
        def device_memory_size_v2(self) -> int:
            return int(self._facts["scratch"])

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode[self._tensors[name][0]]

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType[self._tensors[name][1]]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self._tensors[name][2]

        def create_execution_context(self, how: Any) -> Any:
            if not self._works("create_execution_context", "ExecutionContext::470] Error Code 2: OutOfMemory"):
                return None
            strategy = how
            if rtx:
                assert isinstance(how, IRuntimeConfig)
                assert how.cuda_graph_strategy == trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                self._cache, strategy = how._cache, how._strategy
            assert isinstance(strategy, trt.ExecutionContextAllocationStrategy)
            by_user = strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
            return IExecutionContext(self, self._log, by_user=by_user)

    class IRuntimeCache(Owned):
        content = b""

        def serialize(self) -> Any:
            if not self._works("serialize"):
                raise RuntimeError("no memory to serialise to")
            return self.content

        def deserialize(self, blob: bytes) -> bool:
            if not blob.startswith(KERNELS):
                return False
            self.content = blob
            return True

    class IRuntimeConfig(Owned):
        cuda_graph_strategy: Any = None
        _cache: Any = None
        _strategy: Any = trt.ExecutionContextAllocationStrategy.STATIC

        def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
            self._strategy = strategy

        def create_runtime_cache(self) -> Any:
            return IRuntimeCache(None, self._log)

        def set_runtime_cache(self, cache: Any) -> bool:
            self._cache = cache
            return True

    class Runtime(Owned):
        def __new__(cls, log: Any) -> Any:
            if trt.is_broken == "Runtime":
                log.log(error, told("createInferRuntime: "))
                raise TypeError("factory function returned nullptr")
            return super().__new__(cls)

        def __init__(self, log: Any) -> None:
            super().__init__(None, log)

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            if not self._works("deserialize_cuda_engine", "Current Version: 237"):
                return None
            return ICudaEngine(self, self._log, json.loads(content))

    trt.Runtime = Runtime
    # Not used by name, but their members are.
    trt.ICudaEngine, trt.IExecutionContext = ICudaEngine, IExecutionContext
    if rtx:
        _add_rtx(trt, config=IRuntimeConfig, cache=IRuntimeCache)


def _add_rtx(trt: Any, *, config: Any, cache: Any) -> None:
    trt.CudaGraphStrategy = enum.Enum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"])
    trt.EngineValidity = enum.Enum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"])
    trt.EngineInvalidityDiagnostics = enum.IntEnum(
        "EngineInvalidityDiagnostics", {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4}
    )
    trt.IRuntimeConfig, trt.IRuntimeCache = config, cache

    def create_runtime_config(self: Any) -> Any:
        return config(self, self._log)

    def get_engine_validity(self: Any, content: bytes) -> tuple[Any, int]:
        facts = json.loads(content)
        return trt.EngineValidity[facts["validity"]], facts["diagnostics"]

    trt.ICudaEngine.create_runtime_config = create_runtime_config
    trt.Runtime.get_engine_validity = get_engine_validity
