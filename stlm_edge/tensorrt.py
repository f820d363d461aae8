"""What is known of TensorRT: its products, the GPUs that plans are for, how fast they can be, what lies beside a plan.

TensorRT is here twice: 10.3 to 11 (`tensorrt`), and TensorRT-RTX (`tensorrt_rtx`), which also builds without a GPU.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import math
import shlex
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from stlm_edge.errors import ConfigError, EngineError

logger = logging.getLogger(__name__)

ProductName = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[ProductName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Product → its module, in the order in which they are looked for."""

TITLES: dict[str, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""What `EngineRecord.product` says of a plan → the product's name."""

INSTALL: dict[ProductName, str] = {
    "tensorrt": (
        "TensorRT: pip install tensorrt-cu13, or tensorrt-cu12 where nvidia-smi shows CUDA 12, or the system's "
        "python3-libnvinfer (on a Jetson JetPack has it from 6.1 on, and a virtual environment sees it when made with "
        "--system-site-packages)"
    ),
    "tensorrt-rtx": (
        "TensorRT-RTX, which also builds without a GPU: pip install tensorrt-rtx-cu13, or tensorrt-rtx-cu12 where "
        "nvidia-smi shows CUDA 12"
    ),
}
"""Product → what to install, and how."""

_OLDEST: dict[ProductName, tuple[str, str]] = {
    "tensorrt": (
        "10.3",
        "on a Jetson upgrade to JetPack 6.1 or later, elsewhere pip install --upgrade tensorrt-cu13, or tensorrt-cu12 "
        "where nvidia-smi shows CUDA 12",
    ),
    "tensorrt-rtx": (
        "1.7",
        "pip install --upgrade tensorrt-rtx-cu13, or tensorrt-rtx-cu12 where nvidia-smi shows CUDA 12",
    ),
}
"""Product → the oldest version that it is used with, and how to get that or a later one."""

FEATURES = (
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "IProgressMonitor",
    "ExecutionContextAllocationStrategy.USER_MANAGED",
    "ICudaEngine.device_memory_size_v2",
    "IExecutionContext.set_device_memory",
)
"""What is used of a product's module and is not in every version that is still met. By the tags of its sources TensorRT
has the first two in 9.1 and not in 8.6, the third from 10.0 on, the others from 10.1; nothing else is newer."""

OnLog = Callable[[str, str], None]
"""Takes the severity (`VERBOSE` … `INTERNAL_ERROR`) and the text of a message; called by TensorRT's own threads."""

_ERRORS = ("ERROR", "INTERNAL_ERROR")


def import_product(name: ProductName) -> Any:
    """The module of a product, None if it is not installed.

    Raises `EngineError` if it is and does not work, or is too old.
    """
    try:
        module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError as error:
        if error.name == MODULES[name]:
            return None
        raise _broken(name, str(error)) from error
    except Exception as error:  # bindings without their libraries, or of another driver, numpy or Python
        raise _broken(name, f"{type(error).__name__}: {error}") from error
    for part in ("Builder", "__version__"):
        if not hasattr(module, part):
            raise _broken(name, f"{getattr(module, '__file__', None) or 'a folder of that name'} has no {part}")
    require_features(name, module)
    return module


def require_features(name: ProductName, module: Any) -> None:
    """Raises `EngineError` if the module of a product lacks one of `FEATURES`: the builder, the runtime and the doctor
    refuse the same versions in the same words.
    """
    lacking = next((feature for feature in FEATURES if not _has(module, feature)), None)
    if lacking is not None:
        oldest, remedy = _OLDEST[name]
        raise EngineError(
            f"found {TITLES[name]} {module.__version__}, which has no {lacking}, expected {oldest} or later; {remedy}"
        )


def _has(module: Any, feature: str) -> bool:
    for part in feature.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True


def _broken(name: ProductName, reason: str) -> EngineError:
    return EngineError(f"{MODULES[name]} is there but does not work ({reason}); install {INSTALL[name]}")


_loggers: dict[Any, Any] = {}
"""Module → its logger."""


def process_logger(trt: Any, errors: list[str], on_log: OnLog | None) -> Any:
    """The `ILogger` of this process: each warning is logged once, errors collected for the exception that follows.

    TensorRT wants one for a process: while an object with another lives, it warns that it ignores the new one. So there
    is one, and what it is told goes to the build or the engine that began last.
    """
    if trt not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc]  # a class of whichever module there is
            errors: list[str]
            on_log: OnLog | None
            warned_of: set[str]

            def log(self, severity: Any, message: str) -> None:
                if severity.name in _ERRORS:
                    self.errors.append(" ".join(message.split()))
                elif severity.name == "WARNING" and message not in self.warned_of:  # some come for every layer
                    self.warned_of.add(message)
                    logger.warning("%s: %s", trt.__name__, " ".join(message.split()))
                if self.on_log is not None:
                    self.on_log(severity.name, message)

        _loggers[trt] = Logger()
    _loggers[trt].errors, _loggers[trt].on_log, _loggers[trt].warned_of = errors, on_log, set()
    return _loggers[trt]


PORTABLE = "sm80+"
"""What `EngineRecord.device` says of a plan for compute capability 8.0 and every later one."""


def kept_graph(plan: Path) -> Path:
    """The copy beside a plan of the ONNX file that it was built from."""
    return plan.with_name(plan.name + ".onnx")


def rebuild_command(
    engine: Path, *, product: str | None = None, targets: Sequence[str] = (), portable: bool = False
) -> str:
    """What a user types to get `engine` again.

    Args:
        product: for a plan, the product to build with if not the first that is found.
        targets: for a plan, the compute capabilities to build for, where the product takes any.
        portable: for a plan, that other GPUs are to run it too.
    """
    source = str(kept_graph(engine)) if engine.suffix == ".plan" else "CHECKPOINT"
    words = ["stlm", "export", source, "-o", str(engine)]
    if product is not None:
        words += ["--product", product]
    if targets:
        words += ["--target", ",".join(targets)]
    if portable:
        words.append("--portable")
    return shlex.join(words)


def is_for(device: str, compute_capability: str) -> bool:
    """Whether a plan for `device`, see `EngineRecord`, runs on a GPU.

    Args:
        compute_capability: such as `sm86`.
    """
    if device == PORTABLE:
        return int(compute_capability.removeprefix("sm")) >= int(PORTABLE.removeprefix("sm").removesuffix("+"))
    return compute_capability in device.split(",")


_DRIVER = "libcuda.so.1"
_NO_DEVICE = 100
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
"""Numbers of the driver's attributes; the last two are the parts of the compute capability."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: the product's, such as `NVIDIA GeForce RTX 3090`; `Orin` for all modules with an Orin.
        compute_capability: such as `sm86`.
        multiprocessors: how many are switched on; None if nobody has asked.
        uuid: as NVML and nvidia-smi write it, `GPU-9196782c-…`; None if the driver does not tell.
        shares_memory: it has none of its own, as a Jetson's.
    """

    name: str
    compute_capability: str
    multiprocessors: int | None = None
    uuid: str | None = None
    shares_memory: bool = False

    def __str__(self) -> str:
        size = "" if self.multiprocessors is None else f" with {self.multiprocessors} multiprocessors"
        return f"{self.name}{size}"


def find_gpu() -> Gpu | None:
    """The first GPU that CUDA offers, without making a context on it; None where there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    status = driver.cuInit(0)
    if status != 0:
        if status != _NO_DEVICE:
            logger.warning("the NVIDIA driver does not start (CUDA error %d), so no GPU can be used", status)
        return None
    device, value, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, len(name), device):
        return None
    values = {}
    for attribute in (_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return None
        values[attribute] = value.value
    return Gpu(
        name.value.decode(errors="replace"),
        f"sm{values[_MAJOR]}{values[_MINOR]}",
        values[_MULTIPROCESSORS],
        _uuid(driver, device),
        shares_memory=values[_INTEGRATED] == 1,
    )


def _uuid(driver: ctypes.CDLL, device: ctypes.c_int) -> str | None:
    content = ctypes.create_string_buffer(16)
    if not hasattr(driver, "cuDeviceGetUuid") or driver.cuDeviceGetUuid(content, device):
        return None
    return f"GPU-{uuid.UUID(bytes=content.raw)}"


class Work(Protocol):
    """A kernel, or what else computes and moves bytes: two FLOPs for each multiply-add."""

    @property
    def flops(self) -> int: ...

    @property
    def dtype(self) -> str: ...

    @property
    def bytes_moved(self) -> int: ...


@dataclass(frozen=True)
class GpuPeaks:
    """What bounds a kernel on a GPU; no kernel is faster than its arithmetic or its memory traffic allows.

    Peaks are those of dense tensor cores that accumulate in FP32, as TensorRT's kernels do; GeForce cards halve FP16
    then. FP32 is that of the ordinary cores, since plans are built without TF32. Bytes count as if all passed the
    memory once; a kernel whose operands are still in the cache can be faster than its floor.

    Attributes:
        name: as `--gpu` takes it.
        fp16_tflops, int8_tops, fp32_tflops: dense peaks.
        memory_gb_s: bandwidth of the memory, in 10⁹ bytes a second.
    """

    name: str
    fp16_tflops: float
    int8_tops: float
    fp32_tflops: float
    memory_gb_s: float

    def peak_flops_s(self, dtype: str) -> float:
        """For products of numbers of `dtype`."""
        if dtype in ("fp16", "bf16"):
            return self.fp16_tflops * 1e12
        return (self.int8_tops if dtype in ("int8", "uint8", "fp8", "bool") else self.fp32_tflops) * 1e12

    def compute_ms(self, kernel: Work) -> float:
        return 1e3 * kernel.flops / self.peak_flops_s(kernel.dtype)

    def memory_ms(self, kernel: Work) -> float:
        return kernel.bytes_moved / self.memory_gb_s / 1e6

    def floor_ms(self, kernel: Work) -> float:
        """What `kernel` takes at least, without its launch."""
        return max(self.compute_ms(kernel), self.memory_ms(kernel))


GPU_PEAKS = {
    gpu.name: gpu
    for gpu in (
        # NVIDIA Ampere GA102 whitepaper v2, appendix A; FP16 with FP16 accumulation would be 142.
        GpuPeaks("rtx3090", fp16_tflops=71, int8_tops=284, fp32_tflops=35.6, memory_gb_s=936),
        # NVIDIA Ada whitepaper v2, appendix A; FP16 with FP16 accumulation would be 330.3.
        GpuPeaks("rtx4090", fp16_tflops=165.2, int8_tops=660.6, fp32_tflops=82.6, memory_gb_s=1008),
        # Jetson AGX Orin technical brief v1.2: 170 sparse INT8 TOPS of the GPU (its DLAs are not used), so half of them
        # dense, a quarter for FP16; FP32 is two operations of 2048 cores at 1.3 GHz.
        GpuPeaks("agx-orin", fp16_tflops=42.5, int8_tops=85, fp32_tflops=5.3, memory_gb_s=204.8),
        # Jetson Orin Nano 8 GB data sheet: 40 sparse INT8 TOPS, 68 GB/s, 1024 cores at 625 MHz.
        GpuPeaks("orin-nano", fp16_tflops=10, int8_tops=20, fp32_tflops=1.28, memory_gb_s=68),
        # Jetson Orin Nano Super developer kit data sheet: 67 sparse INT8 TOPS, 102 GB/s, 1024 cores at 1020 MHz.
        GpuPeaks("orin-nano-super", fp16_tflops=16.75, int8_tops=33.5, fp32_tflops=2.09, memory_gb_s=102),
        # NVIDIA A100 80 GB data sheet, SXM4, dense.
        GpuPeaks("a100", fp16_tflops=312, int8_tops=624, fp32_tflops=19.5, memory_gb_s=2039),
        # NVIDIA H100 data sheet, SXM5, dense.
        GpuPeaks("h100", fp16_tflops=989.4, int8_tops=1978.9, fp32_tflops=66.9, memory_gb_s=3350),
    )
}
"""The GPUs that have a name here; AGX Orin is the 64 GB module at its highest clock, MAXN."""

OWN_GPU = "name=fp16_tflops:int8_tops:fp32_tflops:memory_gb_s"


def peaks_of(texts: Sequence[str]) -> tuple[GpuPeaks, ...]:
    """The GPUs that a user asks for: names of `GPU_PEAKS`, or `name=tflops16:tflops8:tflops32:gb_s`; all without any.

    Raises:
        ConfigError: if a name is unknown or given twice, or a GPU of one's own has no four positive numbers.
    """
    gpus = [_peaks(text) for text in texts] or list(GPU_PEAKS.values())
    names = [gpu.name for gpu in gpus]
    if len(set(names)) < len(names):
        raise ConfigError(f"found the GPUs {', '.join(names)}, expected each name once; leave one out")
    return tuple(gpus)


def _peaks(text: str) -> GpuPeaks:
    name, has_figures, figures = text.partition("=")
    if not has_figures:
        if name not in GPU_PEAKS:
            raise ConfigError(f"found the GPU {text!r}, expected one of {', '.join(GPU_PEAKS)}, or your own: {OWN_GPU}")
        return GPU_PEAKS[name]
    try:
        fp16, int8, fp32, memory = (float(figure) for figure in figures.split(":"))
        if not (name and all(0 < figure < math.inf for figure in (fp16, int8, fp32, memory))):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"found the GPU {text!r}, expected {OWN_GPU} with four positive numbers, for example mine=71:284:35.6:936"
        ) from None
    return GpuPeaks(name, fp16, int8, fp32, memory)
