"""What is compared with the network: an engine where it can be run, and its graph on what this machine has."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.graph.graph import Graph, read_graph
from export.precision.rounded import rounded
from runtime.backends import BackendChoice, open_backend, open_engine
from runtime.backends.base import Backend
from stlm_edge.errors import EngineError, VerificationError
from stlm_edge.files import sha256
from stlm_edge.imaging import Image, to_input
from stlm_edge.inspection import Answer, Inspector
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import kept_graph

logger = logging.getLogger(__name__)


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
def exact_inspector(graph: Graph) -> Iterator[BackendInspector]:
    """A graph on ONNX Runtime, as near to what an engine computes as a processor comes: its FP16 is rounded as FP16.

    Raises `EngineError` if it cannot be opened.
    """
    half = has_half(graph.model)
    model = rounded(graph.model) if half else graph.model
    name = "rounded to float16" if half else "onnxruntime"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(model.SerializeToString())
        with open_inspector(path, spec=graph.spec, backend="onnxruntime", name=name) as inspector:
            yield inspector


@dataclass(frozen=True)
class Subjects:
    """Everything opened for one engine.

    Attributes:
        inspectors: at least one.
        executed: the engine itself is among them.
        widened: names of those that compute a graph with FP16 in float32, which says nothing about FP16.
    """

    inspectors: tuple[Inspector, ...]
    executed: bool
    widened: tuple[str, ...]


def graph_of(engine: Path) -> Path:
    """The ONNX file of an engine: itself, or the one beside it that it was built from."""
    return engine if engine.suffix == ".onnx" else kept_graph(engine)


@contextmanager
def open_subjects(engine: Path, sidecar: Sidecar, *, reference: Path) -> Iterator[Subjects]:
    """Open an engine, and its graph in ONNX Runtime, in OpenVINO where that is installed, and rounded as FP16 rounds.

    The last only if the graph has FP16. An engine that cannot be run on this machine is left out with a warning, if
    its graph lies beside it.

    Args:
        reference: what it is compared with; the same graph in ONNX Runtime would only repeat it.
    Raises:
        EngineError: if nothing can be opened.
        VerificationError: if the graph beside the engine is not the one that it was built from, or it would be
            compared with itself only.
    """
    graph = graph_of(engine)
    with ExitStack() as stack:
        inspectors: list[Inspector] = []
        if graph != engine:
            inspectors += _run_itself(engine, sidecar.spec, stack, may_fail=graph.is_file())
        repeats = graph.is_file() and _is_same(graph, reference)
        if repeats and not inspectors:
            raise VerificationError(
                f"{reference} is the graph of {engine} itself, which cannot vouch for itself; give the checkpoint that "
                "it was exported from"
            )
        executed = graph == engine or bool(inspectors)
        widened: tuple[str, ...] = ()
        if graph.is_file():
            _require_origin(graph, engine, sidecar)
            opened, widened = _run_graph(graph, sidecar.spec, stack, repeats=repeats, is_engine=graph == engine)
            inspectors += opened
        yield Subjects(tuple(inspectors), executed, widened)


def has_half(model: onnx.ModelProto) -> bool:
    """Whether anything in a graph is FP16."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer) or any(
        attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT16
        for node in model.graph.node
        for attribute in node.attribute
    )


def _run_itself(engine: Path, spec: ModelSpec, stack: ExitStack, *, may_fail: bool) -> list[Inspector]:
    try:
        backend, _ = open_engine(engine)
    except EngineError as error:
        if not may_fail:
            raise
        logger.warning("NOT EXECUTED: %s cannot be run here, so its graph is judged instead (%s)", engine, error)
        return []
    return [BackendInspector(stack.enter_context(backend), spec=spec, name=backend.name)]


def _run_graph(
    graph: Path, spec: ModelSpec, stack: ExitStack, *, repeats: bool, is_engine: bool
) -> tuple[list[Inspector], tuple[str, ...]]:
    """Inspectors, and the names of those that widen FP16."""
    read = read_graph(graph)
    half = has_half(read.model)
    widening = " in float32" if half else ""
    inspectors: list[Inspector] = []
    if not repeats:
        name = f"onnxruntime{widening}"
        inspectors.append(stack.enter_context(open_inspector(graph, spec=spec, backend="onnxruntime", name=name)))
    # OpenVINO has integer kernels of its own, which a plan has nothing to do with.
    quantised = any(node.op_type == "QuantizeLinear" for node in read.model.graph.node)
    if importlib.util.find_spec("openvino") and (is_engine or not quantised):
        name = f"openvino{widening}"
        inspectors.append(stack.enter_context(open_inspector(graph, spec=spec, backend="openvino", name=name)))
    widened = tuple(inspector.name for inspector in inspectors) if half else ()
    if half:
        inspectors.append(stack.enter_context(exact_inspector(read)))
    return inspectors, widened


def _require_origin(graph: Path, engine: Path, sidecar: Sidecar) -> None:
    expected = sidecar.engine.engine_sha256 if graph == engine else sidecar.engine.onnx_sha256
    found = sha256(graph)
    if found != expected:
        raise VerificationError(
            f"{graph} has SHA-256 {found[:12]}…, {engine} was built from {(expected or 'nothing')[:12]}…; "
            "build the engine again from this graph"
        )


def _is_same(graph: Path, reference: Path) -> bool:
    return reference.is_file() and sha256(graph) == sha256(reference)
