"""From the FP32 graph to OpenVINO's own format, for machines without an NVIDIA GPU."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from export.calibration import COUNT, choose_pictures
from export.onnx_model import PRECISION_KEY, metadata, read_model, spec_of
from stlm_edge.errors import ConfigError, EngineError, OutputError
from stlm_edge.files import cannot_write, make_folder, sha256, write_bytes
from stlm_edge.sidecar import EngineRecord, Sidecar, engine_sha256, weights_of

if TYPE_CHECKING:
    import onnx
    import openvino

    from export.cpu_comparison import Comparison
    from export.sources import GraphOptions

CpuPrecision = Literal["fp32", "fp16", "bf16", "int8"]

_BY_CLASS: dict[CpuPrecision, dict[str, str]] = {
    "fp32": {},
    "fp16": {"weights": "fp16", "arithmetic": "fp32"},
    "bf16": {"weights": "fp32", "arithmetic": "bf16"},
    "int8": {"MatMul": "int8", "other": "fp32"},
}


def export_openvino(
    source: Path,
    output: Path,
    *,
    precision: CpuPrecision,
    data: Path | None = None,
    count: int = COUNT,
    seed: int = 0,
    options: GraphOptions | None = None,
) -> Comparison | None:
    """Write `output`, the weights beside it and the sidecar.

    Args:
        source: a checkpoint, or an ONNX file in FP32, which needs neither torch nor timm.
        output: `.xml`; the weights go to `.bin`.
        data: good pictures. `int8` needs them to measure ranges, and all but `fp32` are compared on them.
        count, seed: of the choice of pictures, see `choose_pictures`.
        options: of the graph, for a checkpoint only.
    Returns:
        How the engine differs from FP32 in answers and speed; None for FP32 itself.
    Raises:
        StlmError: if the source or a picture cannot be used, the processor lacks the precision, or the output cannot be
            written. Killed at any moment it leaves the old engine, or files that the runtime refuses.
    """
    if output.suffix != ".xml":
        raise OutputError(f"{output} has the suffix {output.suffix!r}, expected .xml; rename the output")
    if precision == "int8" and data is None:
        raise ConfigError(
            "int8 needs good pictures to measure ranges on, found none; give --data with a folder of them"
        )
    if precision == "fp32" and data is not None:
        raise ConfigError("found pictures for fp32, which needs none; leave --data out")
    _require_packages(precision)
    import openvino

    from export.cpu_comparison import compare
    from runtime.backends.openvino import require_bf16

    if precision == "bf16":
        require_bf16(output)
    make_folder(output.parent)
    pictures, calibration = (None, None) if data is None else choose_pictures(data, count=count, seed=seed)
    model, onnx_sha256 = _read(source, options)
    spec = spec_of(model, source)
    spec.require_threshold()
    graph = original = openvino.Core().read_model(model.SerializeToString())
    version = openvino.__version__
    if precision == "int8":
        from export.openvino_int8 import quantise

        assert pictures is not None
        graph = quantise(original, pictures, spec=spec)
        version += f", nncf {importlib.metadata.version('nncf')}"
    write_graph(graph, output, compress=precision == "fp16")
    record = EngineRecord(
        flavour="openvino",
        version=version,
        device="cpu",
        precision=precision,
        engine_sha256=engine_sha256(output),
        onnx_sha256=onnx_sha256,
        precision_by_class=_BY_CLASS[precision],
        calibration=calibration if precision == "int8" else None,
    )
    Sidecar(spec=spec, engine=record).write(output)
    if precision == "fp32":
        return None
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder) / "fp32.xml"
        write_graph(original, fp32)
        return compare(output, precision=precision, fp32=fp32, pictures=pictures, spec=spec)


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


def _require_packages(precision: CpuPrecision) -> None:
    for package, needed in (("openvino", True), ("nncf", precision == "int8")):
        if needed and importlib.util.find_spec(package) is None:
            raise EngineError(
                f"found no {package}, expected it to make an engine of OpenVINO in {precision}; pip install {package}"
            )


def _read(source: Path, options: GraphOptions | None) -> tuple[onnx.ModelProto, str]:
    """The graph in FP32, and the SHA-256 of its file."""
    if source.suffix == ".onnx":
        if options is not None:
            raise ConfigError(f"{source} is a graph already, its shape is settled; give a checkpoint to shape it anew")
        model = read_model(source)
        precision = metadata(model).get(PRECISION_KEY)
        if precision is not None:
            raise EngineError(
                f"{source} is in {precision}, expected a graph in FP32, from which OpenVINO's precisions are made; "
                "give the file that 'python -m export onnx CHECKPOINT' wrote"
            )
        return model, sha256(source)
    from export.graph import DeploymentGraph
    from export.sources import GraphOptions
    from export.to_onnx import to_onnx
    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.inspector import Inspector

    loaded, wanted = load(source), options or GraphOptions()
    graph = DeploymentGraph(
        Inspector(loaded.network, loaded.spec).eval(),
        frame_size=wanted.frame_size,
        streams=wanted.streams,
        full_map=wanted.full_map,
    )
    model = to_onnx(graph, max_batch=wanted.max_batch)
    return model, hashlib.sha256(model.SerializeToString()).hexdigest()
