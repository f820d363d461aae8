"""Write a trained network as one ONNX graph: camera pixels in, map and score out."""

from __future__ import annotations

import warnings

import onnx
import torch

from stlm_edge.errors import EngineError
from stlm_edge.network.inspector import Inspector

OPSET = 20
INPUT = "image"
OUTPUTS = ("anomaly_map", "score")
SPEC_KEY = "stlm_edge.spec"


def to_onnx(inspector: Inspector) -> onnx.ModelProto:
    """Trace the whole inference path with a batch of one.

    Returns:
        A checked model: `image` (1, H, W, 3) uint8 BGR → `anomaly_map` (1, *map_size) float32, `score` (1,) float32;
        the specification stands in `metadata_props` under `stlm_edge.spec`.
    """
    height, width = inspector.spec.input_size
    example = torch.zeros((1, height, width, 3), dtype=torch.uint8)
    inspector = inspector.eval().cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter; the model itself is checked below
        program = torch.onnx.export(
            inspector,
            (example,),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise EngineError("torch.onnx.export gave no model; expected one from torch 2.6 or later")
    model = program.model_proto
    _strip(model)
    model.metadata_props.add(key=SPEC_KEY, value=inspector.spec.to_json())
    onnx.checker.check_model(model, full_check=True)
    _check_shapes(model, inspector)
    return model


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


def _check_shapes(model: onnx.ModelProto, inspector: Inspector) -> None:
    """An export can freeze or lose a dimension without a word; what was asked for must stand in the graph."""
    spec = inspector.spec
    expected = {INPUT: (1, *spec.input_size, 3), OUTPUTS[0]: (1, *spec.map_size), OUTPUTS[1]: (1,)}
    found = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.output)
    }
    if found != expected:
        raise EngineError(f"the exported graph has {found}, expected {expected}; report this with your torch version")
