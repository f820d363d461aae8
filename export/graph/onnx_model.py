"""ONNX files of this toolkit: names of their inputs and outputs, and what their metadata say."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from stlm_edge.errors import EngineError, SpecError
from stlm_edge.spec import ModelSpec

OPSET = 20
INPUT = "image"
OUTPUTS = ("anomaly_map", "score", "full_map")
"""The third is optional."""
SPEC_KEY = "stlm_edge.spec"
PRECISION_KEY = "stlm_edge.precision"
"""Of the metadata of a graph whose precision has been chosen; a graph without it is in float32 throughout."""


def read_model(path: Path) -> onnx.ModelProto:
    """Read a graph that this toolkit wrote.

    Raises:
        EngineError: if the file is missing, truncated, no ONNX file, of another opset, or was not written by stlm-edge.
    """
    if not path.is_file():
        raise EngineError(f"{path} is not a file, expected an ONNX graph; write it: python -m export onnx CHECKPOINT")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EngineError(
            f"{path} is truncated or not an ONNX file ({reason}); copy it again or export again: "
            "python -m export onnx CHECKPOINT"
        ) from error
    spec_of(model, path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset != OPSET:
        raise EngineError(
            f"{path} has opset {opset}, expected {OPSET}, which every TensorRT from 10.3 on reads alike; export again: "
            "python -m export onnx CHECKPOINT"
        )
    return model


def spec_of(model: onnx.ModelProto, path: Path) -> ModelSpec:
    """The specification in a graph's metadata. Raises `EngineError` if there is none, `SpecError` if it is damaged."""
    text = metadata(model).get(SPEC_KEY)
    if text is None:
        raise EngineError(
            f"{path} has no {SPEC_KEY} in its metadata, so nobody knows its threshold or input size; "
            "expected a file of: python -m export onnx CHECKPOINT"
        )
    try:
        return ModelSpec.from_json(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def write_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Put the specification into the metadata."""
    set_metadata(model, SPEC_KEY, spec.to_json())


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """`metadata_props` as a dictionary."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    """Set one entry of `metadata_props`."""
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    model.metadata_props.add(key=key, value=value)
