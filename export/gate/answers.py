"""What answers a picture with a map and a score: the network in PyTorch, or a graph on some backend."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runtime.backends import BackendChoice, open_backend
from stlm_edge.imaging import Image, Map, to_input
from stlm_edge.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

    from runtime.backends.base import Backend


@dataclass(frozen=True, eq=False)
class Answer:
    """To one picture.

    Attributes:
        coarse: (h, w) float32, the map as it comes out of the network.
        score: of the whole picture.
    """

    coarse: Map
    score: float


class Answers(Protocol):
    """Something that inspects pictures."""

    @property
    def name(self) -> str:
        """For people and for the record."""

    def answer(self, image: Image) -> Answer:
        """
        Args:
            image: (H, W, 3) uint8, BGR.
        Raises:
            ImageError: if the picture is not of a size that it takes.
            EngineError: if it fails, or its answer is not finite.
        """


class BackendAnswers:
    """An opened graph, given pictures as the runtime gives them. The backend stays its owner's."""

    def __init__(self, backend: Backend, *, spec: ModelSpec, name: str) -> None:
        self.name = name
        self._backend = backend
        self._spec = spec

    def answer(self, image: Image) -> Answer:
        maps, scores = self._backend.infer(to_input(image, spec=self._spec))
        return Answer(maps[0], float(scores[0]))


@contextmanager
def open_answers(path: Path, *, spec: ModelSpec, backend: BackendChoice, name: str) -> Iterator[BackendAnswers]:
    """A graph on disk. Raises `EngineError` if it cannot be opened."""
    with open_backend(path, spec=spec, backend=backend) as opened:
        yield BackendAnswers(opened, spec=spec, name=name)


@contextmanager
def model_answers(model: onnx.ModelProto, *, spec: ModelSpec, name: str) -> Iterator[BackendAnswers]:
    """A graph in memory, run by ONNX Runtime. Raises `EngineError` if it cannot be opened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        with open_answers(path, spec=spec, backend="onnxruntime", name=name) as answers:
            yield answers
