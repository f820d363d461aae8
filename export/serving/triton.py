"""A model repository of Triton Inference Server with one engine in it.

    repository/<name>/config.pbtxt     what Triton is to know: names, types, shapes, instances, batching
    repository/<name>/1/model.plan     the engine, or model.onnx

A client finds threshold and sizes in the parameter `stlm_edge.spec` of the model's configuration.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtime.backends import check_engine_file
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.files import replacing, sha256, write_text
from stlm_edge.sidecar import Sidecar, require_verified
from stlm_edge.spec import ModelSpec

Device = Literal["auto", "gpu", "cpu"]

SPEC_PARAMETER = "stlm_edge.spec"

_BACKENDS = {".plan": "tensorrt", ".onnx": "onnxruntime"}
_KINDS = {"auto": "KIND_AUTO", "gpu": "KIND_GPU", "cpu": "KIND_CPU"}
_VERSION = "1"


@dataclass(frozen=True)
class TritonOptions:
    """How Triton is to serve an engine.

    Attributes:
        name: of the model.
        instances: that run side by side, on each device.
        device: `auto` is the GPU for a plan, and for ONNX the GPU where there is one.
        max_queue_delay_us: how long a request may wait for others to join its batch; None for Triton's own choice,
            which is not at all. Only for engines that take several pictures at once.
    """

    name: str = "stlm"
    instances: int = 1
    device: Device = "auto"
    max_queue_delay_us: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise ConfigError(f"{self.name!r} is no name for a model; use letters, digits, '_', '.' and '-'")
        if self.instances < 1:
            raise ConfigError(f"found {self.instances} instances, expected at least 1")


def write_repository(
    engine: Path, repository: Path, *, options: TritonOptions | None = None, allow_unverified: bool = False
) -> Path:
    """Write an engine into a model repository, in the place of an older one of the same name.

    Args:
        engine: a `.plan` of TensorRT or an `.onnx`, with its sidecar.
        allow_unverified: also take an engine that no gate has verified.
    Returns:
        The model's folder.
    Raises:
        EngineError: if the engine is missing, altered, of a kind that Triton does not run, or not verified.
        SpecError: if its sidecar is missing or damaged, or has no threshold.
        ConfigError: if the options do not suit the engine.
        OutputError: if the repository cannot be written to.
    """
    options = options or TritonOptions()
    sidecar = _read(engine, allow_unverified=allow_unverified)
    text = config(sidecar, suffix=engine.suffix, options=options)
    folder = repository / options.name
    model = folder / _VERSION / f"model{engine.suffix}"
    with replacing(model) as temporary:
        shutil.copyfile(engine, temporary)
        if sha256(temporary) != sidecar.engine.engine_sha256:
            raise EngineError(f"{engine} has another SHA-256 than its sidecar says; copy both again or build it again")
    write_text(folder / "config.pbtxt", text)
    return folder


def _read(engine: Path, *, allow_unverified: bool) -> Sidecar:
    """The sidecar of an engine that Triton can run.

    Raises:
        EngineError, SpecError: see `write_repository`.
    """
    if engine.suffix not in _BACKENDS:
        raise EngineError(f"{engine} has the suffix {engine.suffix!r}, expected .plan or .onnx, which Triton runs")
    if engine.suffix == ".plan":
        if not engine.is_file():
            raise EngineError(f"{engine} is not a file, expected an engine; build it: stlm export engine")
    else:
        check_engine_file(engine)
    sidecar = Sidecar.read(engine)
    sidecar.spec.require_threshold()
    if sidecar.engine.product == "tensorrt-rtx":
        raise EngineError(
            f"{engine} was built with TensorRT-RTX, whose plans Triton does not load; build it with TensorRT, or give "
            "the .onnx file"
        )
    require_verified(engine, sidecar, allow_unverified=allow_unverified)
    return sidecar


def config(sidecar: Sidecar, *, suffix: str, options: TritonOptions) -> str:
    """`config.pbtxt` in protocol buffers' text format. Raises `ConfigError` if the options do not suit the engine.

    Triton leaves the batch out of shapes where it may batch (`max_batch_size` above 0). A score, which then has no
    dimension left, is given one by `reshape`. A graph of fixed shapes cannot be batched, and says so by 0.
    """
    spec = sidecar.spec
    batched = spec.max_batch > 1
    if options.max_queue_delay_us is not None and not batched:
        raise ConfigError(
            "the engine takes one picture at a time, so no request can wait for others; leave --max-queue-delay-us out "
            "or export with --max-batch"
        )
    if suffix == ".plan" and options.device == "cpu":
        raise ConfigError("a TensorRT plan runs on a GPU only; leave --device out or give an .onnx file")
    kind = "KIND_GPU" if suffix == ".plan" else _KINDS[options.device]
    lines = [
        f'name: "{options.name}"',
        f'backend: "{_BACKENDS[suffix]}"',
        f'default_model_filename: "model{suffix}"',
        f"max_batch_size: {spec.max_batch if batched else 0}",
        *_tensor("input", "image", "TYPE_UINT8", (*spec.picture_size, 3), batched=batched),
        *(
            line
            for name, shape in _outputs(spec)
            for line in _tensor("output", name, "TYPE_FP32", shape, batched=batched)
        ),
        f"instance_group [ {{ count: {options.instances} kind: {kind} }} ]",
    ]
    if batched:
        delay = options.max_queue_delay_us
        waits = "" if delay is None else f" max_queue_delay_microseconds: {delay}"
        lines.append(f"dynamic_batching {{{waits} }}")
    text = json.dumps(json.dumps(dataclasses.asdict(spec)))  # what JSON escapes, the text format reads likewise
    lines.append(f'parameters {{ key: "{SPEC_PARAMETER}" value {{ string_value: {text} }} }}')
    return "\n".join(lines) + "\n"


def _outputs(spec: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes without the batch."""
    yield "anomaly_map", spec.map_size
    yield "score", ()
    if spec.full_map:
        yield "full_map", spec.input_size


def _tensor(side: str, name: str, dtype: str, shape: tuple[int, ...], *, batched: bool) -> Iterator[str]:
    dims = shape if batched else (1, *shape)
    reshape = "" if dims else " reshape { shape: [ ] }"
    yield f'{side} [ {{ name: "{name}" data_type: {dtype} dims: {list(dims or (1,))}{reshape} }} ]'
