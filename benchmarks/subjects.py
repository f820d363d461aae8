"""What is timed: engines as the runtime runs them, and pictures and stages that all subjects share.

The ways in which PyTorch runs a checkpoint are in `benchmarks.network_subjects`, which needs torch.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from benchmarks.cells import STAGES
from export.gate.pictures import choose, find_samples
from runtime.backends import (
    BACKEND_CHOICES,
    RUN_BY,
    BackendChoice,
    check_engine_file,
    choose_backend,
    open_engine,
    vouched,
)
from runtime.backends.base import Backend
from runtime.detector import Detector
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.imaging import Image, read_image
from stlm_edge.measure import TOTAL, Subject, Work
from stlm_edge.plate.part import DEFECT_KINDS, render_part
from stlm_edge.spec import Size

MOST = 32
"""Pictures of a data set that are taken, by the gate's seeded choice."""

MOST_BYTES = 200_000_000
"""Of decoded pictures in each subject's process: of large ones fewer are taken."""

DRAWN = 8

FRAME_SIZE: Size = (1080, 1920)
"""(height, width) of the parts that are drawn where there is no data."""

EngineBackend = BackendChoice | Literal["onnxruntime-cuda"]
ONNXRUNTIME_CUDA: Literal["onnxruntime-cuda"] = "onnxruntime-cuda"
ENGINE_BACKENDS: tuple[EngineBackend, ...] = (*BACKEND_CHOICES, ONNXRUNTIME_CUDA)
"""What the runtime has, and ONNX Runtime's CUDA provider, for comparison."""

_RUN_BY: dict[str, tuple[EngineBackend, ...]] = {**RUN_BY, ".onnx": (*RUN_BY[".onnx"], ONNXRUNTIME_CUDA)}

Device = Literal["cpu", "cuda"]
Base = Literal["eager", "batched"]
Trait = Literal["half", "tf32", "channels-last", "compile", "cuda-graph"]
WORDS: tuple[str, ...] = (*get_args(Base), *get_args(Trait))


@dataclass(frozen=True)
class Pictures:
    """Where a subject's pictures come from. It travels to the subject's process, the pixels do not.

    Attributes:
        folder: with pictures, or a data set whose test pictures are taken; None for parts drawn in `frame_size`.
    """

    folder: Path | None = None
    frame_size: Size = FRAME_SIZE
    category: str | None = None

    def load(self) -> tuple[Image, ...]:
        """(H, W, 3) uint8, BGR; read once in a process. Raises `DataError`, `ImageError`, `ConfigError`."""
        return _load(self)

    def describe(self) -> str:
        """What they are, in words."""
        images = self.load()
        sizes = sorted({image.shape[:2] for image in images})
        size = "{} x {}".format(*sizes[0])
        if len(sizes) > 1:
            size += " to {} x {}".format(*sizes[-1])
        source = "drawn parts" if self.folder is None else f"pictures of {self.folder.resolve().name}"
        return f"{len(images)} {source}, {size}"

    def common_size(self) -> Size | None:
        """(height, width) of all of them; None if they differ."""
        sizes = {(image.shape[0], image.shape[1]) for image in self.load()}
        return sizes.pop() if len(sizes) == 1 else None


@cache
def _load(pictures: Pictures) -> tuple[Image, ...]:
    if pictures.folder is None:
        kinds = (None, *DEFECT_KINDS)
        return tuple(
            render_part(np.random.default_rng(index), size=pictures.frame_size, defect=kinds[index % len(kinds)]).image
            for index in range(DRAWN)
        )
    samples = find_samples(pictures.folder, pictures.category)
    first = read_image(samples[0].path)
    chosen = choose(samples, max(1, min(MOST, MOST_BYTES // first.nbytes)))
    return tuple(read_image(sample.path) for sample in chosen)


def batch_of(images: Sequence[Image], index: int, *, size: int) -> list[Image]:
    """Pictures of batch number `index`: `size` of them, in rotation."""
    return [images[(index * size + place) % len(images)] for place in range(size)]


@dataclass(frozen=True)
class Way:
    """How PyTorch is to run a network; docs/benchmarks.md says what the words mean."""

    base: Base
    traits: tuple[Trait, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Way:
        """Of words joined by +, such as `half+compile`; without a base it is `batched`. Raises `ConfigError`."""
        words = text.split("+")
        base: Base = "eager" if words[0] == "eager" else "batched"
        rest = words[1:] if words[0] in get_args(Base) else words
        if len(set(rest)) < len(rest) or not set(rest) <= set(get_args(Trait)):
            raise ConfigError(
                f"found the way {text!r}, expected one of {', '.join(WORDS)}, or several joined by + (eager or batched "
                "in front only), such as half+compile"
            )
        if base == "eager" and "cuda-graph" in rest:
            raise ConfigError(
                f"found the way {text!r}, but the authors' way sends constants to the GPU each time, which no CUDA "
                "graph can hold; measure the way 'cuda-graph'"
            )
        return cls(base, tuple(trait for trait in get_args(Trait) if trait in rest))

    def __str__(self) -> str:
        if self.base == "eager":
            return " ".join(["authors' way", *self.traits])
        return " ".join(["PyTorch", *(self.traits or ("batched",))])

    def precision(self, device: Device) -> str:
        """As engines' records have it, and `tf32`."""
        if "half" in self.traits:
            return "fp16" if device == "cuda" else "bf16"
        return "tf32" if "tf32" in self.traits else "fp32"

    def require_device(self, device: Device) -> None:
        """Raises `ConfigError` if it needs another device."""
        needs = [trait for trait in self.traits if trait in ("tf32", "cuda-graph")]
        if needs and device == "cpu":
            raise ConfigError(f"found the way {needs[0]} on the processor, expected a GPU; add --device cuda")


def engine_subject(
    engine: Path,
    *,
    backend: EngineBackend = "auto",
    pictures: Pictures | None = None,
    batch: int = 1,
    name: str | None = None,
) -> Subject:
    """An engine of any kind that the runtime opens.

    Args:
        batch: pictures at once; the times are those of the batch, divided by it.
        name: without one the file's and the library's.
    Raises:
        EngineError, SpecError: for what can be told without opening it.
    """
    check_engine_file(engine)
    most = vouched(engine).spec.max_batch
    if backend != ONNXRUNTIME_CUDA:
        backend = choose_backend(engine, backend)
    elif engine.suffix != ".onnx":
        raise EngineError(f"{backend} cannot run {engine}, expected an .onnx file; leave --backend out or give one")
    elif importlib.util.find_spec("onnxruntime") is None:
        raise EngineError(f"{engine} needs ONNX Runtime, which is not installed; pip install onnxruntime-gpu")
    else:
        from benchmarks.onnxruntime_cuda import require_provider  # needs ONNX Runtime, which not every machine has

        require_provider(engine)
    if batch > most:
        raise EngineError(
            f"{engine} takes {most} picture{'s' * (most > 1)} at once, found a batch of {batch}; export it again with "
            f"--max-batch {batch}, or measure a smaller batch"
        )
    return Subject(
        name or f"{engine.name} on {backend}",
        partial(open_engine_work, engine, library=backend, pictures=pictures or Pictures(), batch=batch),
    )


def require_different(names: Iterable[str]) -> None:
    """Raises `ConfigError` if two subjects share a name, by which a record tells them apart."""
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"found two subjects of the name {twice[0]!r}, expected one; leave one out or rename a file")


def pairs(engines: Sequence[Path], backends: Sequence[EngineBackend]) -> Iterator[tuple[Path, EngineBackend]]:
    """Each engine with each backend that runs its kind; one that fits nothing stays in, to be refused with a reason."""
    fitting = [[backend for backend in backends if backend in ("auto", *_RUN_BY[one.suffix])] for one in engines]
    idle = [backend for backend in backends if not any(backend in able for able in fitting)]
    for engine, able in zip(engines, fitting, strict=True):
        yield from ((engine, backend) for backend in [*able, *idle] or backends)


@contextmanager
def open_engine_work(engine: Path, *, library: EngineBackend, pictures: Pictures, batch: int) -> Iterator[Work]:
    """Raises `EngineError`, `SpecError`, `DataError`, `ImageError`."""
    images = pictures.load()
    # The benchmark has told once what the engine's record says; a subject is opened twice.
    logging.getLogger("runtime").setLevel(logging.ERROR)
    backend: Backend
    if library == ONNXRUNTIME_CUDA:
        from benchmarks.onnxruntime_cuda import OnnxRuntimeCudaBackend  # as above

        sidecar = vouched(engine)
        backend = OnnxRuntimeCudaBackend(engine, spec=sidecar.spec)
    else:
        backend, sidecar = open_engine(engine, backend=library)
    facts = {
        "library": sidecar.engine.product if backend.name == "tensorrt" else backend.name,
        "precision": sidecar.engine.precision,
        "device": backend.device,
        "architecture": sidecar.spec.architecture,
        "parameters": None,  # a compiler folds and drops some
        "input_size": list(sidecar.spec.input_size),
        "note": None,
    }
    with Detector(backend, sidecar=sidecar, threshold=sidecar.spec.require_threshold()) as detector:

        def run(index: int) -> Mapping[str, float]:
            frames = batch_of(images, index, size=batch)
            start_s = time.perf_counter()
            anomalies = detector.submit(frames).result()
            total_ms = 1e3 * (time.perf_counter() - start_s)
            whole = anomalies[0].latency  # of a batch, each picture has the times of all, but for its own verdict
            stages = {stage: getattr(whole, f"{stage}_ms") for stage in STAGES if stage not in ("decide", TOTAL)}
            stages["decide"] = sum(anomaly.latency.decide_ms for anomaly in anomalies)
            return {stage: ms / batch for stage, ms in (stages | {TOTAL: total_ms}).items()}

        yield Work(run, facts)
