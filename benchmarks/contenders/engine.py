"""Engines as contenders: run by the runtime's detector, as a user runs them."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.contenders.pictures import Pictures, batch_of
from benchmarks.turns import TOTAL, Contender
from runtime.backends import BACKEND_CHOICES, RUN_BY, BackendChoice, check_engine_file, choose_backend, vouched
from stlm_edge.errors import EngineError

if TYPE_CHECKING:
    from runtime.backends.base import Backend
    from runtime.detector import Detector
    from stlm_edge.sidecar import Sidecar

EngineBackend = BackendChoice | Literal["onnxruntime-cuda"]
ONNXRUNTIME_CUDA: Literal["onnxruntime-cuda"] = "onnxruntime-cuda"
ENGINE_BACKENDS: tuple[EngineBackend, ...] = (*BACKEND_CHOICES, ONNXRUNTIME_CUDA)
"""What the runtime has, and ONNX Runtime's CUDA provider, for comparison."""

STAGES = ("prepare", "upload", "infer", "download", "decide", TOTAL)
"""Of all contenders, with or without a GPU."""


def engine_contender(
    engine: Path, *, backend: EngineBackend = "auto", pictures: Pictures | None = None, batch: int = 1
) -> Contender:
    """An engine of any kind that the runtime opens, with the file's and the library's name.

    Args:
        batch: pictures at once; the times are those of the batch, divided by it.
    Raises:
        EngineError, SpecError: if the engine or its sidecar is missing, altered or of an unknown kind, `backend` cannot
            run it, or it does not take so many pictures. What else is wrong is found when it is opened.
    """
    check_engine_file(engine)
    sidecar = vouched(engine)
    library = library_for(engine, backend)
    most = sidecar.spec.max_batch
    if batch > most:
        raise EngineError(
            f"{engine} takes {most} picture{'s' * (most > 1)} at once, found a batch of {batch}; export it again with "
            f"--max-batch {batch}, or measure a smaller batch"
        )
    return Contender(
        f"{engine.name} on {library}",
        partial(open_engine_subject, engine, library=library, pictures=pictures or Pictures(), batch=batch),
    )


def can_run(engine: Path, backend: EngineBackend) -> bool:
    """Whether `backend` runs engines of this kind, installed or not; `auto` runs all that there are."""
    if backend == ONNXRUNTIME_CUDA:
        return engine.suffix == ".onnx"
    return backend == "auto" or backend in RUN_BY[engine.suffix]


def pairs(engines: Sequence[Path], backends: Sequence[EngineBackend]) -> Iterator[tuple[Path, EngineBackend]]:
    """Each engine with each backend that runs its kind; one that fits nothing stays in, to be refused with a reason."""
    for engine in engines:
        able = [backend for backend in backends if can_run(engine, backend)]
        idle = [backend for backend in backends if not any(can_run(other, backend) for other in engines)]
        yield from ((engine, backend) for backend in [*able, *idle] or backends)


def library_for(engine: Path, backend: EngineBackend) -> EngineBackend:
    """What runs an engine of a known kind. Raises `EngineError` if `backend` cannot, or is not there."""
    if backend != ONNXRUNTIME_CUDA:
        return choose_backend(engine, backend)
    if engine.suffix != ".onnx":
        raise EngineError(f"{backend} cannot run {engine}, expected an .onnx file; leave --backend out or give one")
    if importlib.util.find_spec("onnxruntime") is None:
        raise EngineError(f"{engine} needs ONNX Runtime, which is not installed; pip install onnxruntime-gpu")
    from benchmarks.contenders.onnxruntime_cuda import require_provider

    require_provider(engine)
    return backend


@contextmanager
def open_engine_subject(
    engine: Path, *, library: EngineBackend, pictures: Pictures, batch: int
) -> Iterator[EngineSubject]:
    """Raises `EngineError`, `SpecError`, `DataError`, `ImageError`."""
    from runtime.detector import Detector

    images = pictures.load()
    # The benchmark has told once what the engine's record says; a contender is opened twice.
    logging.getLogger("runtime").setLevel(logging.ERROR)
    backend, sidecar = _open(engine, library)
    with Detector(backend, sidecar=sidecar, threshold=sidecar.spec.require_threshold()) as detector:
        yield EngineSubject(detector, backend, images, batch)


class EngineSubject:
    """An opened engine with its pictures."""

    def __init__(self, detector: Detector, backend: Backend, images: tuple[Any, ...], batch: int) -> None:
        self._detector = detector
        self._images = images
        self._batch = batch
        record = detector.sidecar.engine
        is_plan = backend.name == "tensorrt"
        self.facts: dict[str, Any] = {
            "library": record.product if is_plan else backend.name,
            "precision": record.precision,
            "device": backend.device,
            "architecture": detector.spec.architecture,
            "parameters": None,  # a compiler folds and drops some
            "input_size": list(detector.spec.input_size),
            "note": None,
        }

    def run(self, index: int) -> Mapping[str, float]:
        """One batch; milliseconds per picture."""
        frames = batch_of(self._images, index, size=self._batch)
        start_s = time.perf_counter()
        anomalies = self._detector.submit(frames).result()
        total_ms = 1e3 * (time.perf_counter() - start_s)
        whole = anomalies[0].latency  # of a batch, each picture has the times of all, but for its own verdict
        stages = {stage: getattr(whole, f"{stage}_ms") for stage in STAGES if stage not in ("decide", TOTAL)}
        stages["decide"] = sum(anomaly.latency.decide_ms for anomaly in anomalies)
        return {stage: ms / self._batch for stage, ms in (stages | {TOTAL: total_ms}).items()}


def _open(engine: Path, library: EngineBackend) -> tuple[Backend, Sidecar]:
    if library != ONNXRUNTIME_CUDA:
        from runtime.backends import open_engine

        return open_engine(engine, backend=library)
    from benchmarks.contenders.onnxruntime_cuda import OnnxRuntimeCudaBackend

    sidecar = vouched(engine)
    return OnnxRuntimeCudaBackend(engine, spec=sidecar.spec), sidecar
