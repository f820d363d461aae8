"""A graph run through onnx-simplifier, where somebody wants that; by itself this toolkit's graph needs it nowhere.

Of the paper's network at 1024 x 1024 it makes a graph of fewer nodes and a plan of more kernels, since it joins the
projections of queries, keys and values to one product whose parts have to be copied apart (`docs/results.md`).
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import onnxsim

from export.graph.graph import INPUT, OPSET, Graph, opset_of
from stlm_edge.errors import EngineError

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""By how much map and score may move: what the graph itself may be off from its network."""


def simplify(graph: Graph) -> Graph:
    """The same answers from fewer nodes.

    Args:
        graph: in float32.
    Returns:
        A graph with the same inputs, outputs and metadata. Nodes that are new are named after the module whose result
        they compute, so that a report can tell its stages.
    Raises:
        EngineError: if it fails, or makes another opset, other inputs and outputs or other answers of the graph.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    tool = f"onnx-simplifier {onnxsim.__version__}"
    try:
        simplified, _ = onnxsim.simplify(model)
        onnx.checker.check_model(simplified, full_check=True)
    except Exception as error:  # its core raises whatever it likes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EngineError(f"{tool} failed: {reason}; leave --simplify out") from error
    if (opset_of(simplified), _ends(simplified)) != (OPSET, _ends(graph.model)):
        raise EngineError(
            f"{tool} made opset {opset_of(simplified)} with {_ends(simplified)}, expected {OPSET} with "
            f"{_ends(graph.model)}; leave --simplify out"
        )
    del simplified.metadata_props[:]  # what it did, in a dozen entries
    simplified.metadata_props.extend(graph.model.metadata_props)
    _name_new_nodes(simplified.graph, graph.model.graph)
    _require_same_answers(graph, simplified, tool)
    logger.info("%s left %d of %d nodes", tool, len(simplified.graph.node), len(graph.model.graph.node))
    return graph.with_model(simplified)


def _name_new_nodes(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Name what has no `module.path|operation` after the module that made its output before, or else its input."""
    modules = {name: node.name.split("|")[0] for node in before.node for name in node.output}
    names: Counter[str] = Counter()
    for node in graph.node:
        known = [modules[name] for name in (*node.output, *node.input) if name in modules]
        if "|" not in node.name:
            node.name = f"{known[0] if known else 'graph'}|joined_{node.op_type.lower()}"
            names[node.name] += 1
            if names[node.name] > 1:
                node.name += f".{names[node.name]}"
        modules.update(dict.fromkeys(node.output, node.name.split("|")[0]))


def _ends(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Inputs and outputs with their shapes."""
    return {
        value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.output)
    }


def _require_same_answers(graph: Graph, simplified: onnx.ModelProto, tool: str) -> None:
    """Of a picture of noise, which excites everything."""
    picture = np.random.default_rng(0).integers(0, 256, (1, *graph.spec.picture_size, 3), dtype=np.uint8)
    wanted, found = (_answers(model, picture) for model in (graph.model, simplified))
    worst = max(float(np.abs(a - b).max()) for a, b in zip(wanted, found, strict=True))
    if not worst <= TOLERANCE:  # also where it is not a number
        raise EngineError(
            f"{tool} moved the answers by {worst:.2g}, expected at most {TOLERANCE:g}; leave --simplify out"
        )


def _answers(model: onnx.ModelProto, picture: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(None, {INPUT: picture})
    return answers
