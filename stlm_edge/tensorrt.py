"""What is known of TensorRT: its products, the GPUs that plans are for, and what lies beside a plan.

TensorRT is here twice: 10.3 to 11 (`tensorrt`), and TensorRT-RTX (`tensorrt_rtx`), which also builds without a GPU.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stlm_edge.errors import EngineError

logger = logging.getLogger(__name__)

ProductName = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[ProductName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Product → its module, in the order in which they are looked for."""

INSTALL: dict[ProductName, str] = {
    "tensorrt": (
        "TensorRT: pip install tensorrt, or the system's python3-libnvinfer; on a Jetson JetPack has it, and a virtual "
        "environment sees it when made with --system-site-packages"
    ),
    "tensorrt-rtx": "TensorRT-RTX, which also builds without a GPU: pip install tensorrt-rtx-cu13",
}
"""Product → what to install, and how."""

OnLog = Callable[[str, str], None]
"""Takes the severity (`VERBOSE` … `INTERNAL_ERROR`) and the text of a message; called by TensorRT's own threads."""

_ERRORS = ("ERROR", "INTERNAL_ERROR")


def import_product(name: ProductName) -> Any:
    """The module of a product, None if it is not installed. Raises `EngineError` if it is and does not work."""
    try:
        module = importlib.import_module(MODULES[name])
    except ModuleNotFoundError as error:
        if error.name == MODULES[name]:
            return None
        raise _broken(name, str(error)) from error
    except (ImportError, OSError, RuntimeError) as error:  # bindings without their libraries, or of another driver
        raise _broken(name, str(error)) from error
    if not hasattr(module, "Builder"):
        raise _broken(name, f"{getattr(module, '__file__', None) or 'a folder of that name'} has no Builder")
    return module


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


TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
"""What `EngineRecord.product` says of a plan → the product's name."""

PORTABLE = "sm80+"
"""What `EngineRecord.device` says of a plan for compute capability 8.0 and every later one."""


def kept_graph(plan: Path) -> Path:
    """The copy beside a plan of the ONNX file that it was built from."""
    return plan.with_name(plan.name + ".onnx")


def rebuild_command(engine: Path, *, product: str | None = None, targets: Sequence[str] = ()) -> str:
    """What a user types to get `engine` again.

    Args:
        product: for a plan, the product to build with if not the first that is found.
        targets: for a plan, the compute capabilities to build for, where the product takes any.
    """
    if engine.suffix != ".plan":
        command = "openvino" if engine.suffix == ".xml" else "onnx"
        return f"python -m export {command} CHECKPOINT -o {shlex.quote(str(engine))}"
    words = ["python", "-m", "export", "engine", str(kept_graph(engine)), "-o", str(engine)]
    if product is not None:
        words += ["--product", product]
    if targets:
        words += ["--target", ",".join(targets)]
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
_MAJOR, _MINOR = 75, 76
"""Numbers of the driver's attributes for the two parts of the compute capability."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: the product's, such as `NVIDIA GeForce RTX 3090`.
        compute_capability: such as `sm86`.
    """

    name: str
    compute_capability: str


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
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    if (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    ):
        return None
    return Gpu(name.value.decode(errors="replace"), f"sm{major.value}{minor.value}")
