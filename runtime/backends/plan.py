"""A TensorRT plan on this machine's GPU: which TensorRT runs it, what it takes and gives, contexts to execute it.

TensorRT 10.3 to 11 and TensorRT-RTX differ in features, which are looked for; versions are never compared.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from runtime.backends.base import Port
from runtime.backends.cuda import CudaContext
from runtime.backends.cuda_driver import DeviceMemory, Stream
from runtime.backends.kernel_cache import KernelCache
from runtime.closing import Closing
from runtime.plan_check import Machine, check_plan, on_another_gpu
from stlm_edge.errors import EngineError
from stlm_edge.gpu_errors import CHECK_DRIVER, remedy_for
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.tensorrt import (
    INSTALL,
    MODULES,
    TITLES,
    ProductName,
    find_gpu,
    import_product,
    process_logger,
    rebuild_command,
)

logger = logging.getLogger(__name__)

_DTYPES = {"UINT8": "uint8", "FLOAT": "float32"}


def find_tensorrt(path: Path, sidecar: Sidecar) -> tuple[ProductName, Any]:
    """The product that runs a plan and its module, if the plan was built by just this version and for this GPU.

    Warns of a plan that was built on another GPU of the same compute capability. Raises `EngineError`.
    """
    wanted = sidecar.engine.product
    for name in sorted(MODULES, key=lambda product: product != wanted):
        module = import_product(name)
        if module is not None:
            machine = Machine(name, str(module.__version__), find_gpu())
            check_plan(path, sidecar, machine)
            warning = on_another_gpu(path, sidecar, machine)
            if warning is not None:
                logger.warning("%s", warning)
            return name, module
    built = TITLES.get(wanted, wanted)
    how = next((text for name, text in INSTALL.items() if name == wanted), ". ".join(INSTALL.values()))
    raise EngineError(
        f"found neither TensorRT nor TensorRT-RTX, expected {built} {sidecar.engine.version} to run {path}; {how}"
    )


class Plan(Closing):
    """A deserialised plan and the contexts made of it; the CUDA context must outlive it.

    Attributes:
        title: the product and its version.
        captures_itself: it records its own CUDA graphs.
    """

    def __init__(self, path: Path, trt: Any, *, product: ProductName, record: EngineRecord, cuda: CudaContext) -> None:
        """Raises `EngineError` if TensorRT does not take the plan."""
        self.title = f"{TITLES[product]} {trt.__version__}"
        self.captures_itself = False
        self._path = path
        self._trt = trt
        self._cuda = cuda
        self._kernels: KernelCache | None = None
        # An exception that is kept would keep local variables alive, so what TensorRT makes is held here alone.
        self._runtime: Any = None
        self._engine: Any = None
        self._config: Any = None
        self._executions: list[Execution] = []
        self._activations: DeviceMemory | None = None
        self._errors: list[str] = []
        try:
            self._deserialise(process_logger(trt, self._errors, None))
            # What TensorRT-RTX alone has: it compiles for the GPU when it starts.
            if hasattr(trt, "CudaGraphStrategy"):
                self._configure(record)
            self._allocate()
        except BaseException:
            self.close()
            raise

    def ports(self) -> tuple[list[Port], list[Port]]:
        """Inputs and outputs."""
        inputs: list[Port] = []
        outputs: list[Port] = []
        for name in [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]:
            is_input = self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(self._port(name))
        return inputs, outputs

    def execution(self, addresses: dict[str, int]) -> Execution:
        """What reads and writes at these addresses of the GPU, and nowhere else as long as it lives.

        So a graph that is captured from it stays valid. All share one scratch memory, which for a large network is most
        of what it needs; they must be executed one after the other, in one stream.

        Raises `EngineError`.
        """
        how = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._config is not None:
            self._config.set_execution_context_allocation_strategy(how)
            how = self._config
        self._executions.append(Execution(self, self._engine.create_execution_context(how)))
        self._executions[-1].bind(addresses, activations=self._activations)
        return self._executions[-1]

    def save_kernels(self) -> None:
        """Keep for the next start what TensorRT-RTX has compiled in this one."""
        if self._kernels is not None:
            self._kernels.save()

    def failed(self, action: str, *, otherwise: str | None = None) -> EngineError:
        """The one line for what TensorRT could not do, in the words that it has logged.

        Args:
            otherwise: what to do where these words blame neither GPU nor driver, if not to build the plan again.
        """
        told = "; ".join(dict.fromkeys(self._errors)) or "it gives no reason"
        self._errors.clear()
        remedy = remedy_for(told) or otherwise or f"build it again: {rebuild_command(self._path)}"
        return EngineError(f"{self.title} cannot {action} {self._path} ({told}); {remedy}")

    def close(self) -> None:
        self._kernels = None
        while self._executions:
            self._executions.pop().free()
        self._config = self._engine = self._runtime = None

    def _port(self, name: str) -> Port:
        dtype = self._engine.get_tensor_dtype(name).name
        shape = tuple(int(side) for side in self._engine.get_tensor_shape(name))
        return Port(name, _DTYPES.get(dtype, dtype), shape)

    def _deserialise(self, log: Any) -> None:
        try:
            self._runtime = self._trt.Runtime(log)
        except (TypeError, RuntimeError) as error:  # what a binding does with a null pointer
            self._errors.append(str(error))
            raise self.failed("start for", otherwise=CHECK_DRIVER) from error
        try:
            content = self._path.read_bytes()
        except OSError as error:
            raise EngineError(
                f"{self._path} cannot be read ({error.strerror or error}); check its permissions or copy it again"
            ) from error
        if hasattr(self._runtime, "get_engine_validity"):
            self._check_validity(content)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise self.failed("load")

    def _check_validity(self, content: bytes) -> None:
        validity, diagnostics = self._runtime.get_engine_validity(content)
        reasons = self._trt.EngineInvalidityDiagnostics.__members__.items()
        found = [name.lower().replace("_", " ") for name, reason in reasons if int(diagnostics) & int(reason.value)]
        if validity == self._trt.EngineValidity.INVALID:
            self._errors.extend(found)
            raise self.failed("load")
        if validity == self._trt.EngineValidity.SUBOPTIMAL:
            gpu = find_gpu()
            targets = () if gpu is None else (gpu.compute_capability,)
            logger.warning(
                "%s was not built for just this GPU and runs slower than it could (%s); rebuild: %s",
                self._path,
                ", ".join(found) or "no reason is given",
                rebuild_command(self._path, product="tensorrt-rtx", targets=targets),
            )

    def _allocate(self) -> None:
        size = int(self._engine.device_memory_size_v2)
        self._activations = self._cuda.device_memory(size) if size else None

    def _configure(self, record: EngineRecord) -> None:
        self._config = self._engine.create_runtime_config()
        self._config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self.captures_itself = True
        self._kernels = KernelCache(record, gpu=self._cuda.gpu, cache=self._config.create_runtime_cache())
        self._config.set_runtime_cache(self._kernels.cache)


class Execution:
    """One execution context. Holds it alone, since it must be gone before the CUDA context is."""

    def __init__(self, plan: Plan, context: Any) -> None:
        self._plan = plan
        self._context = context

    def bind(self, addresses: dict[str, int], *, activations: DeviceMemory | None) -> None:
        """Tell where everything lies. Raises `EngineError`."""
        if self._context is None:
            raise self._plan.failed("make a context for")
        if activations is not None:
            self._context.set_device_memory(activations.address, activations.nbytes)
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._plan.failed(f"bind {name} of")

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Tell how large an input is that the plan leaves open. Raises `EngineError`."""
        if not self._context.set_input_shape(name, shape):
            raise self._plan.failed(f"take {name} of {shape} for")

    def enqueue(self, stream: Stream) -> None:
        """Queue one inference. Raises `EngineError`."""
        if not self._context.execute_async_v3(stream.handle):
            raise self._plan.failed("run")

    def free(self) -> None:
        self._context = None
