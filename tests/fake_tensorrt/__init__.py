"""TensorRT's Python module as far as this project uses it, on a `FakeGpu`: the real one needs a GPU.

A plan is a few words of JSON. Built from a graph of this project it can be run, and computes the brightness of
`conftest.brightness_graph` whatever the graph is. A version has the names that were recorded of its bindings and no
other, see `test_tensorrt_api.py`; what it writes when it fails is quoted from public reports in `gpu_errors.json`.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runtime.gpu.fake_cuda import FakeGpu
from .builder import CACHE, add_builder
from .plan import SCRATCH, brightness, fake_plan
from .runtime import KERNELS, add_runtime

__all__ = ["BINDINGS", "CACHE", "KERNELS", "SCRATCH", "brightness", "fake_plan", "fake_tensorrt"]

BINDINGS: dict[str, list[str]] = json.loads((Path(__file__).parents[1] / "tensorrt_api/bindings.json").read_text())
"""Version → the names that its published bindings have, of those that are used."""


def fake_tensorrt(version: str, gpu: FakeGpu | None = None) -> Any:
    """A module that looks like `tensorrt` of a version, or like `tensorrt_rtx` if that begins with `1.`.

    Its `is_broken` can be set to the name of a function that is to fail.
    """
    rtx = version.startswith("1.")
    trt: Any = types.ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    trt.__version__, trt.is_broken = version, None

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

        def log(self, severity: Any, message: str) -> None:
            raise NotImplementedError

    trt.ILogger = ILogger
    has = _known(version)
    add_builder(trt, rtx=rtx, has=has)
    add_runtime(trt, gpu or FakeGpu(), rtx=rtx)
    _forget(trt, has)
    return trt


def _known(version: str) -> Callable[[str], bool]:
    """Whether a version has a name, as far as that has been recorded."""
    recorded = set().union(*BINDINGS.values())
    absent = recorded - set(BINDINGS.get(version, recorded))
    return lambda name: name not in absent


def _forget(trt: Any, has: Callable[[str], bool]) -> None:
    """Take away what a version does not have yet; enumerations lack it from the start."""
    for name, kind in list(vars(trt).items()):
        if not isinstance(kind, type):
            continue
        if not has(name):
            delattr(trt, name)
        elif not issubclass(kind, enum.Enum):
            for member in [member for member in vars(kind) if not member.startswith("_") and not has(member)]:
                delattr(kind, member)
