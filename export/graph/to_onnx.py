"""From a checkpoint to its graph, one ONNX model: camera pixels in, map and score out."""

from __future__ import annotations

import ast
import dataclasses
import warnings
from collections import Counter
from pathlib import Path

import onnx
import torch

from export.graph.deployment import DeploymentGraph
from export.graph.graph import INPUT, OPSET, OUTPUTS, Graph, GraphOptions, PrecisionRecord
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from stlm_edge.spec import ModelSpec

_SCOPES = "pkg.torch.onnx.name_scopes"
_PREFIX = "node_"


def trace(checkpoint: Path, options: GraphOptions) -> Graph:
    """The graph of a checkpoint.

    Raises `CheckpointError`, or `SpecError` if it has no threshold; see `to_onnx` and `simplify`.
    """
    if options.simplify:
        from export.graph.simplify import simplify  # an extra, which is best missed before the minute of tracing
    loaded = load(checkpoint)
    loaded.spec.require_threshold()
    deployed = DeploymentGraph(
        InferencePath(loaded.network, loaded.spec).eval(),
        frame_size=options.frame_size,
        streams=options.streams,
        local_conv=options.local_conv,
        full_map=options.full_map,
    )
    graph = to_onnx(deployed, max_batch=options.max_batch)
    return simplify(graph) if options.simplify else graph


def to_onnx(graph: DeploymentGraph, *, max_batch: int = 1) -> Graph:
    """Trace the whole inference path.

    Args:
        max_batch: 1 makes a graph of fixed shapes; more, one that takes 1 … `max_batch` pictures at once.
    Returns:
        A graph in float32, its model checked: `image` (N, H, W, 3) uint8 BGR → `anomaly_map` (N, *map_size) float32,
        `score` (N,) float32, and `full_map` (N, *input_size) float32 if asked for. Nodes: `module.path|operation`.
    Raises:
        ConfigError: if stacked streams are to take several pictures at once.
        EngineError: if the exporter gives nothing, or a graph of other shapes.
    """
    spec = dataclasses.replace(
        graph.spec,
        map_size=graph.grid,
        frame_size=graph.frame_size,
        max_batch=max_batch,
        full_map=graph.full_map,
    )
    if graph.both is not None and max_batch > 1:
        raise ConfigError(
            f"found --streams stacked and --max-batch {max_batch}; stacking saves launches where one picture at a time "
            "leaves a GPU idle, so it goes with a batch of 1: leave one of the two out"
        )
    names = OUTPUTS if graph.full_map else OUTPUTS[:2]
    # A batch of one as an example would be taken for a constant.
    example = torch.zeros((min(max_batch, 2), *spec.picture_size, 3), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=max_batch) if max_batch > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter; the model itself is checked below
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=[INPUT],
            output_names=list(names),
            opset_version=OPSET,
            dynamic_shapes=None if batch is None else ({0: batch},),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise EngineError("torch.onnx.export gave no model; expected one from torch 2.6 or later")
    model = program.model_proto
    _name_nodes(model.graph)
    _take_shapes_behind_the_cast(model.graph)
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    _check_shapes(model, spec)
    return Graph(model, spec, PrecisionRecord("fp32"), f"torch {torch.__version__}")


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name each node after the module it comes from: the names survive into the engine and tell its stages apart."""
    seen: Counter[str] = Counter()
    modules: dict[str, str] = {}
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        path = [scope for scope in ast.literal_eval(scopes)[:-1] if scope and not scope.startswith("_")]
        # What the exporter's rewriting has made has no scope; it belongs to what it works on.
        known = [modules[name] for name in node.input if name in modules]
        module = path[-1] if path else "graph" if scopes != "[]" or not known else known[0]
        operation = node.name.removeprefix(_PREFIX).rstrip("0123456789").strip("_") or node.op_type
        name = f"{module}|{operation}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}.{seen[name]}"
        modules.update(dict.fromkeys(node.output, module))


def _take_shapes_behind_the_cast(graph: onnx.GraphProto) -> None:
    """Have a dynamic batch read off the pixels as floats: TensorRT takes bytes only to cast them.

    Its parser's table of operators has no UINT8 for Shape, and NVIDIA says that no other layer takes it
    (github.com/NVIDIA/TensorRT/issues/3985).
    """
    (cast,) = [node for node in graph.node if node.op_type == "Cast" and node.input[0] == INPUT]
    others = [node for node in graph.node if node is not cast]
    for node in others:
        if node.op_type == "Shape" and node.input[0] == INPUT:
            node.input[0] = cast.output[0]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (cast, *others)]
    del graph.node[:]
    graph.node.extend(nodes)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter tells about this machine: stack traces with local paths."""
    model.doc_string = ""
    graph = model.graph
    graph.doc_string = ""
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        if hasattr(item, "doc_string"):
            item.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]


def _check_shapes(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """An export can freeze or lose a dimension without a word; what was asked for must stand in the graph."""
    batch: int | str = "batch" if spec.max_batch > 1 else 1
    expected: dict[str, tuple[int | str, ...]] = {
        INPUT: (batch, *spec.picture_size, 3),
        OUTPUTS[0]: (batch, *spec.map_size),
        OUTPUTS[1]: (batch,),
    }
    if spec.full_map:
        expected[OUTPUTS[2]] = (batch, *spec.input_size)
    found = {
        value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.output)
    }
    if found != expected:
        raise EngineError(f"the exported graph has {found}, expected {expected}; report this with your torch version")
