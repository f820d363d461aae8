"""A graph on some backend, asked about pictures as the runtime asks it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends import BackendChoice, open_backend
from stlm_edge.imaging import Image, to_input
from stlm_edge.inspection import Answer
from stlm_edge.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

    from runtime.backends.base import Backend


class BackendInspector:
    """An opened graph, given pictures as the runtime gives them. The backend stays its owner's."""

    def __init__(self, backend: Backend, *, spec: ModelSpec, name: str) -> None:
        self.name = name
        self._backend = backend
        self._spec = spec

    def inspect(self, image: Image) -> Answer:
        maps, scores = self._backend.infer(to_input(image, spec=self._spec))
        return Answer(maps[0], float(scores[0]))


@contextmanager
def open_inspector(path: Path, *, spec: ModelSpec, backend: BackendChoice, name: str) -> Iterator[BackendInspector]:
    """A graph on disk. Raises `EngineError` if it cannot be opened."""
    with open_backend(path, spec=spec, backend=backend) as opened:
        yield BackendInspector(opened, spec=spec, name=name)


@contextmanager
def model_inspector(model: onnx.ModelProto, *, spec: ModelSpec, name: str) -> Iterator[BackendInspector]:
    """A graph in memory, run by ONNX Runtime. Raises `EngineError` if it cannot be opened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        with open_inspector(path, spec=spec, backend="onnxruntime", name=name) as inspector:
            yield inspector
