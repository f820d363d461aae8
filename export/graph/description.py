"""What an exported graph says of itself to programs that know nothing of this toolkit.

The specification stands in the metadata as one JSON too (`stlm_edge.spec`), and that is what this toolkit reads. The
flat entries here are for a host program of a hundred lines, which has no parser of JSON.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from stlm_edge import __version__
from stlm_edge.names import escaped
from stlm_edge.spec import ModelSpec, Size

PRODUCER = "stlm-edge"
PREFIX = "stlm_edge."


def describe(model: onnx.ModelProto, spec: ModelSpec, *, precision: str) -> None:
    """Write producer, text and flat entries into a model, in the place of what stood there.

    An entry of something that the model does not have (no second threshold, no frames that it resizes) is absent.
    """
    model.producer_name, model.producer_version = PRODUCER, __version__
    model.doc_string = _text(model, spec)
    kept = [(entry.key, entry.value) for entry in model.metadata_props if not entry.key.startswith(PREFIX)]
    del model.metadata_props[:]
    for key, value in (*kept, *((PREFIX + name, text) for name, text in _entries(spec, precision))):
        model.metadata_props.add(key=key, value=value)


def _entries(spec: ModelSpec, precision: str) -> Iterator[tuple[str, str]]:
    yield "toolkit_version", __version__
    yield "category", escaped(spec.category)
    yield "architecture", spec.architecture
    yield "precision_name", precision  # `precision` is the whole record
    yield "channel_order", spec.channel_order
    yield "input_size", _size(spec.input_size)
    if spec.frame_size is not None:
        yield "frame_size", _size(spec.frame_size)
    yield "map_size", _size(spec.map_size)
    yield "max_batch", str(spec.max_batch)
    if spec.highest_score is not None:
        yield "highest_score", repr(spec.highest_score)
    if spec.threshold is not None:
        yield "threshold", repr(float(spec.threshold.value))
        if spec.threshold.unclear is not None:
            yield "unclear_threshold", repr(float(spec.threshold.unclear))
    yield "weights_sha256", spec.weights_sha256


def _size(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _text(model: onnx.ModelProto, spec: ModelSpec) -> str:
    (pixels,) = model.graph.input
    axes = " x ".join(str(axis.dim_param or axis.dim_value) for axis in pixels.type.tensor_type.shape.dim)
    dtype = onnx.TensorProto.DataType.Name(pixels.type.tensor_type.elem_type).lower()
    lines = [
        f"Anomaly detection (STLM) on {escaped(spec.category)}, by stlm-edge {__version__}.",
        f"{pixels.name}: {axes} {dtype}, {spec.channel_order}, 0 to 255, neither scaled nor normalised.",
        "score: one number for each picture, higher is more anomalous; anomaly_map: where.",
    ]
    if spec.frame_size is not None:
        lines.append("Give whole camera frames of this very size: the graph resizes them itself.")
    if spec.threshold is not None:
        lines.append(f"A picture is anomalous where score >= {float(spec.threshold.value)!r}.")
    return "\n".join(lines)
