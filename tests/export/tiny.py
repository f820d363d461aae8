"""The demo's trained network at a small size, as a checkpoint and as real ONNX files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import train
from export.graph.graph import Graph
from stlm_edge.files import sha256
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.design import Design
from stlm_edge.sidecar import EngineRecord, Gate, Limits, Sidecar

PLATE = Path(train.__file__).parent / "pretrained/plate/model.safetensors"
SIZE = (64, 96)
GRID = (4, 6)
DESIGNS = [
    Design(plain_stream="stlm-tiny"),
    Design(decoder="separate", comparison="subtraction"),
    Design(layers="l1", comparison="concat"),
    Design(layers="l2", comparison="cosine", aggregation="original"),
    Design(aggregation="none"),
    Design(plain_stream="timm:test_efficientnet"),
    Design(layers="block1"),
    Design(layers="block1+block2", decoder="separate"),
]
"""One of each ablation that is another network."""


def checkpoint(path: Path) -> Path:
    """Write the checkpoint."""
    loaded = load(PLATE)
    spec = dataclasses.replace(loaded.spec, input_size=SIZE, map_size=SIZE)
    save(path, Checkpoint(loaded.network, spec, {}))
    return path


def write_engine(
    graph: Graph,
    path: Path,
    *,
    product: str = "onnx",
    verified: bool | None = True,
) -> Path:
    """Write a graph and its sidecar.

    Args:
        product: of the sidecar.
        verified: what the gate says; None for no gate.
    """
    graph.save(path)
    gate = None if verified is None else Gate(verified, True, "pytorch", Limits(1, 1, 0, 1, 0, 1), ())
    record = EngineRecord(
        product=product, version="1", device="any", precision="fp32", engine_sha256=sha256(path), gate=gate
    )
    Sidecar(spec=graph.spec, engine=record).write(path)
    return path
