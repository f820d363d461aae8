"""Inference libraries behind one small interface, and the checks an engine passes before it is run."""

from __future__ import annotations

import importlib.util
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stlm_edge.errors import EngineError
from stlm_edge.sidecar import Sidecar, engine_sha256, require_whole, weights_of
from stlm_edge.spec import ModelSpec
from stlm_edge.tensorrt import rebuild_command

if TYPE_CHECKING:
    from runtime.backends.base import Backend

logger = logging.getLogger(__name__)

BackendChoice = Literal["auto", "tensorrt", "openvino", "onnxruntime"]
BACKEND_CHOICES: tuple[BackendChoice, ...] = ("auto", "tensorrt", "openvino", "onnxruntime")

_Name = Literal["tensorrt", "openvino", "onnxruntime"]
_RUNS: dict[_Name, str] = {"tensorrt": "a .plan", "openvino": "an .onnx or .xml file", "onnxruntime": "an .onnx file"}
RUN_BY: dict[str, tuple[_Name, ...]] = {
    ".plan": ("tensorrt",),
    ".xml": ("openvino",),
    ".onnx": ("openvino", "onnxruntime"),
}
"""Suffix of an engine → what can run it."""

# ONNX is a protocol buffer without a magic number; its first field is `ir_version`, a varint with the tag 0x08.
_BEGINNINGS = {".onnx": (b"\x08", "ONNX"), ".xml": (b"<?xml", "OpenVINO")}
"""First bytes of the kinds of engines, and whose format it is."""


def open_engine(path: Path, *, backend: BackendChoice = "auto", side_by_side: bool = False) -> tuple[Backend, Sidecar]:
    """Open an engine together with the sidecar that vouches for it, and log what runs it.

    Args:
        side_by_side: where the batches never end: two are inferred at the same time if that makes more of them a
            second, which OpenVINO's are. Each takes longer then, and more memory.
    Returns:
        The backend, which the caller closes, and the sidecar; its specification has a threshold.
    Raises:
        EngineError: if the file is missing, of an unknown kind, altered, or cannot be opened.
        SpecError: if the sidecar is missing or damaged, or holds no threshold.
    """
    sidecar = vouched(path)
    sidecar.spec.require_threshold()
    if choose_backend(path, backend) == "tensorrt":
        opened = _open_plan(path, spec=sidecar.spec, sidecar=sidecar)
    else:
        precision = sidecar.engine.precision
        opened = open_backend(path, spec=sidecar.spec, backend=backend, precision=precision, side_by_side=side_by_side)
    logger.info("%s runs on %s, %s", path, opened.name, opened.device)
    return opened, sidecar


def vouched(path: Path) -> Sidecar:
    """The sidecar of an engine of any kind, if it was written for just this file.

    Raises:
        EngineError: if the file is missing, of an unknown kind, or has another hash than its sidecar says.
        SpecError: if the sidecar is missing or damaged.
    """
    check_engine_file(path)
    sidecar = Sidecar.read(path)
    found, expected = _sha256(path), sidecar.engine.engine_sha256
    if found != expected:
        raise EngineError(
            f"{path} has SHA-256 {found[:12]}…, its sidecar was written for {expected[:12]}…: the engine was changed "
            f"or the sidecar is another one's; copy both again or make it again: {rebuild_command(path)}"
        )
    return sidecar


def open_backend(
    path: Path,
    *,
    spec: ModelSpec,
    backend: BackendChoice = "auto",
    precision: str = "fp32",
    side_by_side: bool = False,
) -> Backend:
    """Open a bare graph that has no sidecar yet, as the exporter's gate does, or a plan; the caller closes it.

    `auto` takes TensorRT for a plan; for an ONNX file OpenVINO where it is installed, else ONNX Runtime. OpenVINO's own
    files need OpenVINO.

    Args:
        precision: as in the engine's record. It matters for `bf16`, which stands in no file.
        side_by_side: see `open_engine`.
    Raises:
        EngineError: if the file is not what it should be, the library is not installed, or the processor lacks the
            precision; of a plan, if it is not this machine's.
        SpecError: if a plan has no sidecar, which says what it was built for.
    """
    check_engine_file(path)
    chosen = choose_backend(path, backend)
    if chosen == "tensorrt":
        return _open_plan(path, spec=spec, sidecar=vouched(path))
    try:
        if chosen == "openvino":
            from runtime.backends.openvino import OpenVinoBackend

            return OpenVinoBackend(path, spec=spec, precision=precision, side_by_side=side_by_side)
        from runtime.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(path, spec=spec)
    except ImportError as error:
        raise EngineError(
            f"{chosen} cannot be imported ({error}), expected it for {path}; pip install 'stlm-edge[{chosen}]'"
        ) from error


def check_engine_file(path: Path) -> None:
    """Raises `EngineError` unless `path` is a file of a kind that there are engines of."""
    if not path.is_file():
        raise _missing(path)
    if path.suffix == ".plan":
        return  # a plan begins otherwise with each version; its hash says more
    if path.suffix not in _BEGINNINGS:
        raise EngineError(
            f"{path} has the suffix {path.suffix!r}, expected .plan, .onnx or .xml; give the file that the export wrote"
        )
    beginning, title = _BEGINNINGS[path.suffix]
    try:
        with path.open("rb") as file:
            first = file.read(len(beginning))
        if first == beginning and path.suffix == ".onnx":
            require_whole(path)
    except OSError as error:
        raise _cannot_read(path, error) from error
    if first != beginning:
        article = "an" if title[0] in "AEIO" else "a"
        raise EngineError(
            f"{path} is not {article} {title} file; copy it again or export again: {rebuild_command(path)}"
        )
    weights = weights_of(path)
    if weights is not None and not weights.is_file():
        raise EngineError(
            f"{path} has no {weights.name} beside it, which holds its weights; copy both files, or export again: "
            f"{rebuild_command(path)}"
        )


def _missing(path: Path) -> EngineError:
    # A plan that was never there has no graph beside it to be built from again.
    command = shlex.join(["stlm", "export", "CHECKPOINT", "-o", str(path)])
    return EngineError(f"{path} is not a file, expected an engine; build it: {command}")


def _sha256(path: Path) -> str:
    try:
        return engine_sha256(path)
    except OSError as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError) -> EngineError:
    return EngineError(f"{path} cannot be read ({error.strerror or error}); check its permissions or copy it again")


def choose_backend(path: Path, backend: BackendChoice) -> _Name:
    """What `auto` comes to for an engine of a known kind. Raises `EngineError` if `backend` cannot run it."""
    able = RUN_BY[path.suffix]
    if backend == "auto":
        return able[0] if len(able) == 1 else _first_installed()
    if backend not in able:
        raise EngineError(
            f"{path} is an engine for {' or '.join(able)}, {backend} cannot run it; leave --backend out or give "
            f"{_RUNS[backend]}"
        )
    return backend


def _first_installed() -> Literal["openvino", "onnxruntime"]:
    if importlib.util.find_spec("openvino"):
        return "openvino"
    if importlib.util.find_spec("onnxruntime"):
        return "onnxruntime"
    raise EngineError(
        "found neither OpenVINO nor ONNX Runtime, expected one of them to run an ONNX file; "
        "pip install 'stlm-edge[openvino]'"
    )


def _open_plan(path: Path, *, spec: ModelSpec, sidecar: Sidecar) -> Backend:
    from runtime.backends.tensorrt import TensorRtBackend

    return TensorRtBackend(path, spec=spec, sidecar=sidecar)
