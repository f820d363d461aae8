"""What is compared: a reference, and an engine where it can be run, and its graph on what this machine has.

The reference is the network in PyTorch, or where there is no PyTorch its float32 graph.
"""

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

ONNX_NAME = "onnx-fp32"


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
class Reference:
    """An opened reference.

    Attributes:
        inspector: resizes pictures as the engine's graph does.
        host_resized: the network on pictures that the host resizes, where the engine's graph takes whole frames and
            there is PyTorch to tell both ways apart.
    """

    inspector: Inspector
    host_resized: Inspector | None = None


@contextmanager
def open_reference(path: Path, *, spec: ModelSpec) -> Iterator[Reference]:
    """Open a checkpoint or a float32 graph.

    Args:
        spec: of the engine that is to be compared.
    Raises:
        VerificationError: if it is another network, takes other pictures, or is not in float32.
        EngineError, CheckpointError: if it cannot be opened.
    """
    if path.suffix != ".onnx":
        yield _checkpoint(path, spec)
        return
    graph = read_graph(path)
    found = graph.spec
    _require_same_network(path, found, spec)
    if found.frame_size != spec.frame_size:
        raise VerificationError(
            f"{path} takes pictures of {_size(found)}, the engine {_size(spec)}, so that the resize could not be told "
            "from the rest; give the checkpoint, or the graph exported with the same --frame-size"
        )
    if graph.precision != "fp32" or has_half(graph.model):
        raise VerificationError(
            f"{path} is not in float32 throughout, expected the graph of: stlm export CHECKPOINT -o GRAPH.onnx"
        )
    with open_inspector(path, spec=found, backend="onnxruntime", name=ONNX_NAME) as inspector:
        yield Reference(inspector)


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

    The last only if the graph has FP16. A plan with FP16 that runs on this machine is opened alone: processors only
    imitate on its graph what it shows itself, and a small board has not the memory for so many networks. An engine that
    cannot be run on this machine is left out with a warning, if its graph lies beside it.

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
            read = read_graph(graph)
            if not (inspectors and has_half(read.model)):
                opened, widened = _run_graph(
                    read, graph, sidecar.spec, stack, repeats=repeats, is_engine=graph == engine
                )
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
    read: Graph, graph: Path, spec: ModelSpec, stack: ExitStack, *, repeats: bool, is_engine: bool
) -> tuple[list[Inspector], tuple[str, ...]]:
    """Inspectors, and the names of those that widen FP16."""
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


def _checkpoint(path: Path, spec: ModelSpec) -> Reference:
    try:  # a Jetson compares with a graph, without PyTorch
        from export.gate.network import NetworkInspector, ResizingNetworkInspector
        from stlm_edge.network.checkpoint import load
        from stlm_edge.network.inference import InferencePath
    except ImportError as error:
        raise EngineError(
            f"{path} needs PyTorch, which cannot be imported ({error}); give the float32 .onnx file instead, or "
            "pip install 'stlm-edge[export]'"
        ) from error
    loaded = load(path)
    _require_same_network(path, loaded.spec, spec)
    network = InferencePath(loaded.network, loaded.spec)
    if spec.frame_size is None:
        return Reference(NetworkInspector(network))
    return Reference(ResizingNetworkInspector(network, spec.frame_size), NetworkInspector(network))


def _require_same_network(path: Path, found: ModelSpec, spec: ModelSpec) -> None:
    """The score's rule stands in the specification too: a mean of other pixels is another score."""
    ours = (found.weights_sha256[:12], found.input_size, found.top_k)
    theirs = (spec.weights_sha256[:12], spec.input_size, spec.top_k)
    if ours != theirs:
        raise VerificationError(
            f"{path} is not the network of the engine: found weights, input size and top-k {ours}, the engine has "
            f"{theirs}; give the checkpoint that it was exported from"
        )


def _size(spec: ModelSpec) -> str:
    return "{} x {}".format(*spec.picture_size)
