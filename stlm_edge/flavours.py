"""The TensorRT of this machine, 10.3 to 11 (`tensorrt`) or RTX (`tensorrt_rtx`), which builds plans and runs them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any, Literal

from stlm_edge.errors import EngineError

logger = logging.getLogger(__name__)

FlavourName = Literal["tensorrt", "tensorrt-rtx"]

MODULES: dict[FlavourName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour → its module, in the order in which they are looked for."""

INSTALL: dict[FlavourName, str] = {
    "tensorrt": (
        "TensorRT: pip install tensorrt, or the system's python3-libnvinfer; on a Jetson JetPack has it, and a virtual "
        "environment sees it when made with --system-site-packages"
    ),
    "tensorrt-rtx": "TensorRT-RTX, which also builds without a GPU: pip install tensorrt-rtx-cu13",
}
"""Flavour → what to install, and how."""

OnLog = Callable[[str, str], None]
"""Takes the severity (`VERBOSE` … `INTERNAL_ERROR`) and the text of a message; called by TensorRT's own threads."""

_ERRORS = ("ERROR", "INTERNAL_ERROR")


def import_flavour(name: FlavourName) -> Any:
    """The module of a flavour, None if it is not installed. Raises `EngineError` if it is and does not work."""
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


def _broken(name: FlavourName, reason: str) -> EngineError:
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
