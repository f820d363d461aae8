"""What an engine is compared with: the network in PyTorch, or where there is no PyTorch its float32 graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.gate.inspectors import has_half, open_inspector
from export.graph.graph import read_graph
from stlm_edge.errors import EngineError, VerificationError
from stlm_edge.inspection import Inspector
from stlm_edge.spec import ModelSpec

ONNX_NAME = "onnx-fp32"


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
            f"{path} is not in float32 throughout, expected the graph of: python -m export onnx CHECKPOINT"
        )
    with open_inspector(path, spec=found, backend="onnxruntime", name=ONNX_NAME) as inspector:
        yield Reference(inspector)


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
