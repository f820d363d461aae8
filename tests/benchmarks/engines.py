"""Small engines of kinds that a benchmark takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import openvino
from onnx import numpy_helper

from stlm_edge.sidecar import EngineRecord, Sidecar, engine_sha256

from ..runtime.conftest import INPUT_SIZE, MAP_SIZE, SPEC, brightness_graph, write_engine


def write_batch_engine(path: Path, *, max_batch: int) -> Path:
    """The brightness engine for several pictures at once."""
    model = brightness_graph()
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    shapes = {"planar": [-1, 1, *INPUT_SIZE], "map_shape": [-1, *MAP_SIZE]}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            tensor.CopyFrom(numpy_helper.from_array(np.array(shapes[tensor.name], np.int64), tensor.name))
    return write_engine(path, model=model, spec=dataclasses.replace(SPEC, max_batch=max_batch))


def write_openvino_engine(path: Path, *, onnx: Path) -> Path:
    """An engine in OpenVINO's own format."""
    openvino.save_model(openvino.Core().read_model(onnx), path, compress_to_fp16=False)
    record = EngineRecord("openvino", openvino.__version__, "cpu", "fp32", engine_sha256(path))
    Sidecar(spec=SPEC, engine=record).write(path)
    return path
