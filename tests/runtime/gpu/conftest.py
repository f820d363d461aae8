"""A computer with a simulated GPU; see `fake_cuda.py` for what it holds against whoever uses it carelessly."""

from __future__ import annotations

import dataclasses
import gc
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.backends import open_engine
from runtime.backends.base import Backend
from stlm_edge import EngineRecord, Sidecar
from stlm_edge.files import sha256
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import Gpu

from ...fake_tensorrt import brightness, fake_plan, fake_tensorrt
from ..conftest import INPUT_SIZE, SPEC
from .fake_cuda import FakeGpu

BATCHED = dataclasses.replace(SPEC, max_batch=3)
RTX_VERSION = "1.7.1.116"


@dataclass(frozen=True)
class NotThere:
    """A finder that does not find a package, also where there is one."""

    package: str

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@dataclass
class Machine:
    """A computer with a GPU; its GPU, TensorRT and what is installed can be changed before a plan is opened."""

    folder: Path
    patch: pytest.MonkeyPatch
    gpu: FakeGpu = field(default_factory=FakeGpu)

    def install(self, *, version: str = "10.3.0", bindings: bool = True) -> Any:
        """TensorRT of a version; TensorRT-RTX if it begins with `1.`. Returns the module."""
        rtx = version.startswith("1.")
        trt = fake_tensorrt(version, self.gpu)
        for name, module in zip(("tensorrt", "tensorrt_rtx"), (None, trt) if rtx else (trt, None), strict=True):
            self.patch.setitem(sys.modules, name, module)
        self.patch.setattr("runtime.backends.plan.find_gpu", lambda: Gpu("Fake RTX 3090", "sm86", multiprocessors=82))
        self.install_drivers(bindings=bindings)
        return trt

    def install_drivers(self, *, bindings: bool = True) -> None:
        """pycuda, and with it cuda-bindings."""
        packages = {"pycuda": types.ModuleType("pycuda"), "pycuda.driver": self.gpu.driver}
        packages["cuda.bindings.driver"] = self.gpu.bindings if bindings else None
        for name in ("cuda", "cuda.bindings"):
            packages[name] = types.ModuleType(name) if bindings else None
        for name, module in packages.items():
            self.patch.setitem(sys.modules, name, module)
        self.patch.setattr("runtime.backends.cuda_pycuda.libcuda", lambda: self.gpu.libcuda)

    def plan(self, spec: ModelSpec = SPEC, *, version: str = "10.3.0", device: str = "sm86", **changes: Any) -> Path:
        """A plan that was built by a version for a GPU."""
        path = self.folder / "plate.plan"
        path.write_bytes(fake_plan(spec, **changes))
        record = EngineRecord(
            product="tensorrt-rtx" if version.startswith("1.") else "tensorrt",
            version=version,
            device=device,
            precision="fp16",
            engine_sha256=sha256(path),
        )
        Sidecar(spec=spec, engine=record).write(path)
        return path

    def open(self, spec: ModelSpec = SPEC, *, version: str = "10.3.0", **changes: Any) -> Backend:
        self.install(version=version)
        return open_engine(self.plan(spec, version=version, **changes))[0]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """At the end everything must have been given back, and nothing done that no GPU forgives."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Machine(tmp_path, monkeypatch)
    gc.freeze()  # what torch and others hold is not looked through after each test
    yield made
    gc.collect()
    gc.unfreeze()
    assert made.gpu.violations == []
    assert made.gpu.left == {}


def batches(count: int, *, sizes: tuple[int, ...] = (1,)) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (int(random.choice(sizes)), *INPUT_SIZE, 3), np.uint8) for _ in range(count)]


def check(answer: Any, batch: np.ndarray) -> None:
    maps, scores = brightness(batch, SPEC.map_size)
    np.testing.assert_array_equal(answer.maps, maps)
    np.testing.assert_array_equal(answer.scores, scores)


def run_two_in_hand(backend: Backend, given: list[np.ndarray]) -> None:
    """As the line does: the next batch is submitted before the answer to the last one is asked for."""
    waiting: list[tuple[Any, np.ndarray]] = []
    for batch in given:
        waiting.append((backend.submit(batch), batch))
        if len(waiting) == 2:
            ticket, first = waiting.pop(0)
            check(ticket.result(), first)
    for ticket, batch in waiting:
        check(ticket.result(), batch)
