"""The steps of an export, in the order that leaves nothing half done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from export.graph import DeploymentGraph, Streams
from export.onnx_model import spec_of
from export.to_onnx import to_onnx
from export.verify import export_pictures, verify_export
from stlm_edge.errors import OutputError
from stlm_edge.files import make_folder, replacing, sha256
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inspector import Inspector
from stlm_edge.sidecar import Drift, EngineRecord, Sidecar
from stlm_edge.spec import Size


@dataclass(frozen=True)
class GraphOptions:
    """What the exported graph takes and gives, see `DeploymentGraph` and `to_onnx`."""

    frame_size: Size | None = None
    streams: Streams = "branched"
    full_map: bool = False
    max_batch: int = 1


def export_onnx(checkpoint: Path, output: Path, *, data: Path | None, options: GraphOptions | None = None) -> Drift:
    """Write `output` and its sidecar, if the graph agrees with the network on the pictures of `data`.

    Raises:
        StlmError: if checkpoint or pictures cannot be used, the checkpoint has no threshold, the answers differ, or
            the output cannot be written; an older file at `output` is left as it was.
    """
    if output.suffix != ".onnx":
        raise OutputError(f"{output} has the suffix {output.suffix!r}, expected .onnx; rename the output")
    make_folder(output.parent)
    loaded = load(checkpoint)
    loaded.spec.require_threshold()
    options = options or GraphOptions()
    pictures = export_pictures(data, frame_size=options.frame_size)
    inspector = Inspector(loaded.network, loaded.spec).eval()
    graph = DeploymentGraph(
        inspector, frame_size=options.frame_size, streams=options.streams, full_map=options.full_map
    )
    model = to_onnx(graph, max_batch=options.max_batch)
    spec = spec_of(model, output)
    with replacing(output) as temporary:
        temporary.write_bytes(model.SerializeToString())
        gate = verify_export(inspector, temporary, pictures, spec=spec)
    record = EngineRecord(
        flavour="onnx",
        version=f"torch {torch.__version__}",
        device="any",
        precision="fp32",
        engine_sha256=sha256(output),
        gate=gate,
    )
    Sidecar(spec=spec, engine=record).write(output)
    return gate.drifts[0]
