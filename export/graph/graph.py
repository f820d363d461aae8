"""The graph that travels through an export: an ONNX model with its specification and its precision."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import onnx
from google.protobuf.message import DecodeError

from export.graph.description import describe
from stlm_edge.errors import CheckpointError, ConfigError, EngineError, SpecError
from stlm_edge.files import write_bytes
from stlm_edge.records import MAY_LACK, build, parse
from stlm_edge.sidecar import Calibration, require_whole
from stlm_edge.spec import ModelSpec, Size

if TYPE_CHECKING:
    from export.graph.deployment import Streams
    from export.graph.folding import LocalConv

OPSET = 20
INPUT = "image"
OUTPUTS = ("anomaly_map", "score", "full_map")
"""The third is optional."""
MOST_TOP_K = 3840
"""Of TensorRT's TopK alone: docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/TopK.html"""
SPEC_KEY = "stlm_edge.spec"
PRECISION_KEY = "stlm_edge.precision"
"""Of the metadata of a file whose precision has been chosen; one without it is in float32 throughout."""

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class Kept:
    """Nodes of one class that stay in FP32, and why."""

    layer_class: str
    reason: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class PrecisionRecord:
    """What a graph says of its precision; in a file it stands in the metadata as `stlm_edge.precision`.

    Attributes:
        precision: as it was asked for.
        by_class: layer class → the precisions that its arithmetic has in fact, joined by `+`.
        kept: what is in FP32 although FP16 was asked for.
        calibration: the pictures that ranges were measured on; None if there were none.
    """

    precision: Precision
    by_class: dict[str, str] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    calibration: Calibration | None = field(default=None, metadata=MAY_LACK)


@dataclass(frozen=True)
class GraphOptions:
    """What a traced graph takes and gives, see `DeploymentGraph`, `to_onnx` and `simplify`."""

    frame_size: Size | None = None
    streams: Streams = "branched"
    local_conv: LocalConv = "convolution"
    full_map: bool = False
    max_batch: int = 1
    simplify: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """From camera pixels to map and score, with all that is known of it; nobody changes its parts.

    Attributes:
        model: `image` (N, H, W, 3) uint8 BGR → `anomaly_map`, `score` and perhaps `full_map`, see `to_onnx`.
        spec: what it takes and gives, and its threshold.
        record: of its precision.
        made_by: what wrote it, and its version.
        content: the file that it was read from; None for one that is in no file as it is.
    """

    model: onnx.ModelProto
    spec: ModelSpec
    record: PrecisionRecord
    made_by: str
    content: bytes | None = None

    @property
    def precision(self) -> Precision:
        return self.record.precision

    def with_model(self, model: onnx.ModelProto, record: PrecisionRecord | None = None) -> Graph:
        """The same network computed in another way."""
        return dataclasses.replace(self, model=model, record=record or self.record, content=None)

    def to_bytes(self) -> bytes:
        """The content of its file: of one that was read the very same, else with what is known of it as metadata."""
        if self.content is not None:
            return self.content
        described = onnx.ModelProto()
        described.CopyFrom(self.model)
        describe(described, self.spec, precision=self.precision)
        set_metadata(described, SPEC_KEY, self.spec.to_json())
        if self.precision != "fp32":
            set_metadata(described, PRECISION_KEY, json.dumps(dataclasses.asdict(self.record)))
        content: bytes = described.SerializeToString()
        return content

    def save(self, path: Path) -> None:
        """Write its file, atomically. Raises `OutputError`."""
        write_bytes(path, self.to_bytes())


_EXPECTED = "expected a checkpoint (.safetensors) or a graph (.onnx) to export"


def load_graph(source: Path, options: GraphOptions | None = None) -> Graph:
    """Read a graph, or trace a checkpoint.

    Args:
        options: how a checkpoint is traced; a graph has its form already.
    Raises:
        ConfigError: if a graph is to have another form.
        CheckpointError, SpecError: if a checkpoint cannot be used, or has no threshold.
        EngineError: if a graph cannot be used, or PyTorch is missing.
    """
    if source.suffix in (".plan", ".xml"):
        raise EngineError(f"{source} has the suffix of a built engine, {_EXPECTED}; name what it was built from")
    if source.suffix != ".onnx":
        try:  # a Jetson builds its plans again from graphs, without PyTorch
            from export.graph.to_onnx import trace
        except ImportError as error:
            raise EngineError(
                f"{source} is no .onnx file, and reading a checkpoint needs PyTorch, which cannot be imported "
                f"({error}); export it to ONNX on another machine, or pip install 'stlm-edge[export]'"
            ) from error
        try:
            return trace(source, options or GraphOptions())
        except CheckpointError:
            if source.suffix == ".safetensors" or not source.is_file():
                raise
            raise CheckpointError(f"{source} is not a readable checkpoint, {_EXPECTED}; name such a file") from None
    if options not in (None, GraphOptions()):
        raise ConfigError(f"{source} is a graph already, its form is settled; give its checkpoint to shape it anew")
    return read_graph(source)


def read_graph(path: Path) -> Graph:
    """Read a graph that this toolkit wrote.

    Raises:
        EngineError: if the file is missing, truncated, no ONNX file, of another opset, or was not written by stlm-edge.
        SpecError: if its specification is damaged.
    """
    if not path.is_file():
        raise EngineError(
            f"{path} is not a file, expected an ONNX graph; write it: stlm export CHECKPOINT -o GRAPH.onnx"
        )
    try:
        content = path.read_bytes()
        if content:
            require_whole(path)
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EngineError(
            f"{path} is truncated or not an ONNX file ({reason}); copy it again or export again: "
            "stlm export CHECKPOINT -o GRAPH.onnx"
        ) from error
    # What is not UTF-8 comes as bytes.
    told = {entry.key: entry.value for entry in model.metadata_props if isinstance(entry.value, str)}
    spec = _spec(told.get(SPEC_KEY), path)
    opset = opset_of(model)
    if opset != OPSET:
        raise EngineError(
            f"{path} has opset {opset}, expected {OPSET}, which every TensorRT from 10.3 on reads alike; export again: "
            "stlm export CHECKPOINT -o GRAPH.onnx"
        )
    return Graph(model, spec, _record(told.get(PRECISION_KEY), path), f"onnx {onnx.__version__}", content)


def opset_of(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    """Set one entry of `metadata_props`."""
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value
            return
    model.metadata_props.add(key=key, value=value)


def _spec(text: str | None, path: Path) -> ModelSpec:
    if text is None:
        raise EngineError(
            f"{path} has no {SPEC_KEY} in its metadata, so nobody knows its threshold or input size; "
            "expected a file of: stlm export CHECKPOINT -o GRAPH.onnx"
        )
    try:
        return ModelSpec.from_json(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _record(text: str | None, path: Path) -> PrecisionRecord:
    if text is None:
        return PrecisionRecord("fp32")
    try:
        return build(PrecisionRecord, parse(text, what=PRECISION_KEY))
    except SpecError as error:
        raise EngineError(f"{path}: the graph's {PRECISION_KEY} cannot be read: {error}") from None
