"""`ModelSpec`, the only carrier of the facts that training, export and runtime must agree on.

Its way: checkpoint → ONNX `metadata_props` → `<engine>.json` beside the engine → runtime.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from stlm_edge.errors import SpecError
from stlm_edge.files import write_text

SCHEMA_VERSION = 1

Size = tuple[int, int]
"""(height, width) in pixels."""

ThresholdMethod = Literal["good-quantile", "f1-optimal", "manual"]

SIZE_MULTIPLE = 32

_MAY_LACK = {"may_lack": True}
"""Marks a field that records of the same schema version lack if they were written before there was such a field."""


@dataclass(frozen=True)
class Threshold:
    """The image score from which on a picture is called anomalous (`score >= value`), and how it was chosen.

    Attributes:
        value: on the scale of the image score.
        method: `good-quantile`, an order statistic of held-out good pictures; `f1-optimal`, needs labels;
            `manual`, given by whoever runs the engine.
        images: how many pictures it was chosen from; 0 for `manual`.
        false_alarm_rate: for `good-quantile`, the expected share of good pictures at or above `value`.
        false_alarm_interval: for `good-quantile`, lowest and highest such share that so many pictures leave open, with
            95 % confidence; None in records from before it was computed.
    """

    value: float
    method: ThresholdMethod
    images: int
    false_alarm_rate: float | None = None
    false_alarm_interval: tuple[float, float] | None = field(default=None, metadata=_MAY_LACK)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise SpecError(f"threshold is {self.value}, expected a finite number; calibrate it again")


@dataclass(frozen=True)
class ModelSpec:
    """What a model expects, what it answers and from where on the answer means a defect.

    Attributes:
        category: the part the model was trained on.
        architecture: name of the network's widths and depths (`stlm`, `stlm-tiny`).
        input_size: (height, width) of the network's input; both multiples of 32.
        map_size: (height, width) of the anomaly map that comes out.
        weights_sha256: over the names, shapes and values of all trained tensors.
        threshold: None until it has been calibrated.
        normal_score_range: lowest and highest image score on the held-out good pictures.
        resize: the rule of `stlm_edge.imaging.resize`.
        channel_order: of the pixels that the exported graph takes.
        pixel_mean, pixel_std: per channel in RGB order, for pixels in 0 … 255 (SAM's values).
        top_k: the image score is the mean of this many highest pixels of the up-sampled map (paper, 4.1.3).
        schema_version: of this record.
    """

    category: str
    architecture: str
    input_size: Size
    map_size: Size
    weights_sha256: str
    threshold: Threshold | None = None
    normal_score_range: tuple[float, float] | None = None
    resize: str = "halve-linear"
    channel_order: str = "BGR"
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    top_k: int = 100
    schema_version: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise SpecError(
                f"the model specification has schema version {self.schema_version}, this toolkit reads "
                f"{SCHEMA_VERSION}; export the model again with this version"
            )
        for name, expected in (("resize", "halve-linear"), ("channel_order", "BGR")):
            if getattr(self, name) != expected:
                raise SpecError(
                    f"the model specification asks for {name} {getattr(self, name)!r}, this toolkit knows "
                    f"{expected!r}; export the model again with this version"
                )
        check_input_size(self.input_size)
        if self.top_k < 1:
            raise SpecError(f"top_k is {self.top_k}, expected at least 1")

    def require_threshold(self) -> Threshold:
        """The threshold; raises `SpecError` if it has not been calibrated yet."""
        if self.threshold is None:
            raise SpecError(
                f"the model of {self.category!r} has no threshold yet; calibrate it on held-out good pictures: "
                "python -m train threshold CHECKPOINT --data DIR"
            )
        return self.threshold

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Raises `SpecError` on anything that `to_json` does not write."""
        return _spec_from(_parse(text))


@dataclass(frozen=True)
class EngineRecord:
    """What an engine was built by and for, and how far it was seen to drift.

    Attributes:
        flavour: `onnx`, later also `tensorrt`, `tensorrt-rtx`, `openvino`.
        version: of the compiler or exporter.
        device: GPU and compute capability, `any` for ONNX.
        precision: of the weights and activations.
        engine_sha256: of the engine file.
        max_map_error, max_score_error: largest absolute difference to PyTorch, both on a scale of 0 … 1.
        verified_images: how many pictures that was measured on.
    """

    flavour: str
    version: str
    device: str
    precision: str
    engine_sha256: str
    max_map_error: float
    max_score_error: float
    verified_images: int


@dataclass(frozen=True)
class Sidecar:
    """What stands in `<engine>.json`: the specification of the model and the record of the engine."""

    spec: ModelSpec
    engine: EngineRecord

    @staticmethod
    def path_for(engine: Path) -> Path:
        return engine.with_name(engine.name + ".json")

    def write(self, engine: Path) -> None:
        """Write the sidecar of `engine`, atomically."""
        write_text(self.path_for(engine), json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, engine: Path) -> Sidecar:
        """Read the sidecar of `engine`; raises `SpecError` if it is missing or damaged."""
        path = cls.path_for(engine)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SpecError(
                f"{engine} has no {path.name} beside it, which holds its threshold and input size; copy it from "
                "where the engine was built, or export again: python -m export onnx CHECKPOINT -o " + engine.name
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"{path} cannot be read ({error}); export the engine again") from None
        try:
            data = _parse(text)
            if set(data) != {"spec", "engine"}:
                raise SpecError(f"found the keys {sorted(data)}, expected engine and spec")
            return cls(spec=_spec_from(_object(data["spec"])), engine=_build(EngineRecord, _object(data["engine"])))
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None


def check_input_size(size: Size) -> None:
    """Raises `SpecError` unless both sides are positive multiples of 32."""
    if len(size) != 2 or any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size):
        found = " x ".join(map(str, size))
        raise SpecError(f"input size is {found}, expected multiples of {SIZE_MULTIPLE}, for example 256 x 256")


def _parse(text: str) -> dict[str, Any]:
    try:
        return _object(json.loads(text))
    except json.JSONDecodeError as error:
        raise SpecError(f"not JSON ({error}); export the engine again") from None


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"found {type(value).__name__} where an object was expected; export the engine again")
    return value


def _spec_from(data: dict[str, Any]) -> ModelSpec:
    values = dict(data)
    if values.get("threshold") is not None:
        values["threshold"] = _build(Threshold, _object(values["threshold"]))
    return _build(ModelSpec, values)


T = TypeVar("T", Threshold, ModelSpec, EngineRecord)


def _build(kind: type[T], data: dict[str, Any]) -> T:
    entries = dataclasses.fields(kind)
    names = {entry.name for entry in entries}
    required = {entry.name for entry in entries if not entry.metadata.get("may_lack")}
    unknown, missing = sorted(set(data) - names), sorted(required - set(data))
    if unknown or missing:
        raise SpecError(
            f"{kind.__name__} has unknown keys {unknown} and lacks {missing}; export with this version of stlm-edge"
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    try:
        return kind(**values)  # type: ignore[arg-type]  # checked below and in __post_init__
    except (TypeError, ValueError) as error:
        raise SpecError(f"{kind.__name__} cannot be read ({error}); export with this version of stlm-edge") from None
