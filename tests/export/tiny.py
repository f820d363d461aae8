"""The demo's trained network at a small size, as real ONNX files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx

import train
from export.graph.deployment import DeploymentGraph
from export.graph.onnx_model import spec_of
from export.graph.to_onnx import to_onnx
from stlm_edge.files import sha256
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.design import Design
from stlm_edge.network.inference import InferencePath
from stlm_edge.sidecar import EngineRecord, Gate, Limits, Sidecar
from stlm_edge.spec import ModelSpec

PLATE = Path(train.__file__).parent / "pretrained/plate/model.safetensors"
SIZE = (64, 96)
GRID = (4, 6)
DESIGNS = [
    Design(plain_stream="stlm-tiny"),
    Design(decoder="separate", comparison="subtraction"),
    Design(layers="l1", comparison="concat"),
    Design(layers="l2", comparison="cosine", aggregation="original"),
    Design(aggregation="none"),
]
"""One of each ablation that is another network."""


def checkpoint(path: Path) -> Path:
    """Write the checkpoint."""
    loaded = load(PLATE)
    spec = dataclasses.replace(loaded.spec, input_size=SIZE, map_size=SIZE)
    save(path, Checkpoint(loaded.network, spec, {}))
    return path


@cache
def model(*, full_map: bool = False, max_batch: int = 1) -> onnx.ModelProto:
    """The graph; made once for all tests, to be copied and not to be changed."""
    loaded = load(PLATE)
    spec = dataclasses.replace(loaded.spec, input_size=SIZE, map_size=SIZE)
    deployed = DeploymentGraph(InferencePath(loaded.network, spec).eval(), full_map=full_map)
    return to_onnx(deployed, max_batch=max_batch)


def graph(
    path: Path,
    *,
    full_map: bool = False,
    max_batch: int = 1,
    product: str = "onnx",
    verified: bool | None = True,
    change: Callable[[ModelSpec], ModelSpec] = lambda spec: spec,
) -> Path:
    """Write a graph and its sidecar.

    Args:
        product, change: of the sidecar, what is not as in the graph.
        verified: what the gate says; None for no gate.
    """
    made = model(full_map=full_map, max_batch=max_batch)
    onnx.save(made, path)
    gate = None if verified is None else Gate(verified, True, "pytorch", Limits(1, 1, 0, 1, 0, 1), ())
    record = EngineRecord(
        product=product, version="1", device="any", precision="fp32", engine_sha256=sha256(path), gate=gate
    )
    Sidecar(spec=change(spec_of(made, path)), engine=record).write(path)
    return path
