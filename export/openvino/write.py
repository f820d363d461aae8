"""From the FP32 graph to OpenVINO's own format, for machines without an NVIDIA GPU."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from export.graph.onnx_model import spec_of
from export.precision.calibration import COUNT, choose_pictures
from stlm_edge.errors import ConfigError, EngineError, OutputError
from stlm_edge.files import cannot_write, sha256, write_bytes
from stlm_edge.sidecar import EngineRecord, Sidecar, engine_sha256, weights_of

if TYPE_CHECKING:
    import openvino

    from export.sources import Source

CpuPrecision = Literal["fp32", "fp16", "bf16", "int8"]

_BY_CLASS: dict[CpuPrecision, dict[str, str]] = {
    "fp32": {},
    "fp16": {"weights": "fp16", "arithmetic": "fp32"},
    "bf16": {"weights": "fp32", "arithmetic": "bf16"},
    "int8": {"MatMul": "int8", "other": "fp32"},
}


def require_possible(output: Path, precision: CpuPrecision) -> None:
    """Before minutes of work: raises `EngineError` if a package is missing or the processor lacks the precision."""
    for package, needed in (("openvino", True), ("nncf", precision == "int8")):
        if needed and importlib.util.find_spec(package) is None:
            raise EngineError(
                f"found no {package}, expected it to make an engine of OpenVINO in {precision}; "
                "pip install 'stlm-edge[openvino-int8]'"
            )
    if precision == "bf16":
        from runtime.backends.openvino import require_bf16

        require_bf16(output)


def write_openvino(
    source: Source, output: Path, *, precision: CpuPrecision, good: Path | None, count: int = COUNT, seed: int = 0
) -> None:
    """Write `output`, the weights beside it and the sidecar.

    Args:
        source: in float32.
        output: `.xml`; the weights go to `.bin`.
        good: a folder of good pictures, which `int8` measures ranges on.
        count, seed: of their choice, see `choose_pictures`.
    Raises:
        StlmError: if pictures are missing or cannot be used, or the output cannot be written. Killed at any moment it
            leaves the old engine, or files that the runtime refuses.
    """
    import openvino

    content = source.model.SerializeToString()
    spec = spec_of(source.model, source.path)
    graph, version, calibration = openvino.Core().read_model(content), openvino.__version__, None
    if precision == "int8":
        from export.openvino.int8 import quantise

        if good is None:
            raise ConfigError(
                "INT8 needs good pictures to calibrate on and found none; give --calibration GOOD_PICTURES"
            )
        pictures, calibration = choose_pictures(good, count=count, seed=seed)
        graph = quantise(graph, pictures, spec=spec)
        version += f", nncf {importlib.metadata.version('nncf')}"
    write_graph(graph, output, compress=precision == "fp16")
    record = EngineRecord(
        product="openvino",
        version=version,
        device="cpu",
        precision=precision,
        engine_sha256=engine_sha256(output),
        onnx_sha256=hashlib.sha256(content).hexdigest() if source.is_checkpoint else sha256(source.path),
        precision_by_class=_BY_CLASS[precision],
        calibration=calibration,
    )
    Sidecar(spec=spec, engine=record).write(output)


def write_graph(graph: openvino.Model, output: Path, *, compress: bool = False) -> None:
    """Write both files of a graph, each atomically.

    Between the two writes the new weights lie beside the old graph; the sidecar, which is written last and knows the
    hash of both, tells.

    Args:
        compress: store the weights in FP16.
    Raises:
        OutputError: if they cannot be written.
    """
    import openvino

    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            staged = Path(folder) / output.name
            openvino.save_model(graph, staged, compress_to_fp16=compress)
            for part in (weights_of(staged), staged):
                assert part is not None
                write_bytes(output.parent / part.name, part.read_bytes())
    except OSError as error:
        raise cannot_write(output, error) from error
    except RuntimeError as error:  # OpenVINO says no more than that it could not
        raise OutputError(f"cannot write {output} ({error}); free space there or choose another place") from error
