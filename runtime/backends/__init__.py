"""Inference libraries behind one small interface, and the checks an engine passes before it is run."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stlm_edge.errors import EngineError
from stlm_edge.files import sha256
from stlm_edge.plans import rebuild_command
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec

if TYPE_CHECKING:
    from runtime.backends.base import Backend

logger = logging.getLogger(__name__)

BackendChoice = Literal["auto", "openvino", "onnxruntime"]
BACKEND_CHOICES: tuple[BackendChoice, ...] = ("auto", "openvino", "onnxruntime")

# ONNX is a protocol buffer without a magic number; its first field is `ir_version`, a varint with the tag 0x08.
_ONNX_FIRST_BYTE = b"\x08"


def open_engine(path: Path, *, backend: BackendChoice = "auto") -> tuple[Backend, Sidecar]:
    """Open an engine together with the sidecar that vouches for it.

    Returns:
        The backend, which the caller closes, and the sidecar; its specification has a threshold.
    Raises:
        EngineError: if the file is missing, of an unknown kind, altered, or cannot be opened.
        SpecError: if the sidecar is missing or damaged, or holds no threshold.
    """
    check_engine_file(path)
    sidecar = Sidecar.read(path)
    found, expected = _sha256(path), sidecar.engine.engine_sha256
    if found != expected:
        raise EngineError(
            f"{path} has SHA-256 {found[:12]}…, its sidecar was written for {expected[:12]}…: the engine was changed "
            f"or the sidecar is another one's; copy both again or make it again: {rebuild_command(path)}"
        )
    sidecar.spec.require_threshold()
    return open_backend(path, spec=sidecar.spec, backend=backend), sidecar


def open_backend(path: Path, *, spec: ModelSpec, backend: BackendChoice = "auto") -> Backend:
    """Open a bare graph that has no sidecar yet, as the exporter's gate does; the caller closes it.

    `auto` takes OpenVINO where it is installed, else ONNX Runtime, and logs which.
    Raises `EngineError` if the file is not what it should be or the library is not installed.
    """
    check_engine_file(path)
    if path.suffix == ".plan":
        raise EngineError(
            f"{path} is a TensorRT plan, which this version does not run yet; "
            "give the .onnx file that 'python -m export onnx' wrote, it runs on the CPU"
        )
    chosen = _first_installed() if backend == "auto" else backend
    try:
        opened = _open(path, spec=spec, name=chosen)
    except ImportError as error:
        raise EngineError(
            f"{chosen} cannot be imported ({error}), expected it for {path}; pip install 'stlm-edge[{chosen}]'"
        ) from error
    logger.info("%s runs on %s, CPU", path, opened.name)
    return opened


def check_engine_file(path: Path) -> None:
    """Raises `EngineError` unless `path` is a file of a kind that there are engines of."""
    if not path.is_file():
        raise EngineError(f"{path} is not a file, expected an engine; build it: python -m export onnx CHECKPOINT")
    if path.suffix == ".plan":
        return  # a plan begins otherwise with each version; its hash says more
    if path.suffix != ".onnx":
        raise EngineError(f"{path} has the suffix {path.suffix!r}, expected .onnx; give the file that the export wrote")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise _cannot_read(path, error) from error
    if first != _ONNX_FIRST_BYTE:
        raise EngineError(
            f"{path} is not an ONNX file; copy it again or export again: python -m export onnx CHECKPOINT"
        )


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError) -> EngineError:
    return EngineError(f"{path} cannot be read ({error.strerror or error}); check its permissions or copy it again")


def _first_installed() -> Literal["openvino", "onnxruntime"]:
    if importlib.util.find_spec("openvino"):
        return "openvino"
    if importlib.util.find_spec("onnxruntime"):
        return "onnxruntime"
    raise EngineError(
        "found neither OpenVINO nor ONNX Runtime, expected one of them to run an ONNX file; "
        "pip install 'stlm-edge[openvino]'"
    )


def _open(path: Path, *, spec: ModelSpec, name: Literal["openvino", "onnxruntime"]) -> Backend:
    if name == "openvino":
        from runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, spec=spec)
    from runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, spec=spec)
