"""The steps of an export, in the order that leaves nothing half done."""

from __future__ import annotations

from pathlib import Path

import torch

from export.to_onnx import to_onnx
from export.verify import Drift, pictures, verify
from stlm_edge.errors import OutputError
from stlm_edge.files import make_folder, replacing, sha256
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inspector import Inspector
from stlm_edge.spec import EngineRecord, Sidecar


def export_onnx(checkpoint: Path, output: Path, *, data: Path | None) -> Drift:
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
    images = pictures(data)
    inspector = Inspector(loaded.network, loaded.spec).eval()
    with replacing(output) as temporary:
        temporary.write_bytes(to_onnx(inspector).SerializeToString())
        drift = verify(inspector, temporary, images)
    record = EngineRecord(
        flavour="onnx",
        version=f"torch {torch.__version__}",
        device="any",
        precision="fp32",
        engine_sha256=sha256(output),
        max_map_error=drift.max_map_error,
        max_score_error=drift.max_score_error,
        verified_images=drift.images,
    )
    Sidecar(spec=loaded.spec, engine=record).write(output)
    return drift
