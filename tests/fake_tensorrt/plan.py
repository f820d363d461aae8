"""What stands in a plan of the simulated TensorRT, what it computes, and what is told when something fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stlm_edge.spec import ModelSpec

SCRATCH = 4096
TOLD = [told["text"] for told in json.loads((Path(__file__).parents[1] / "gpu_errors.json").read_text())]


def told(words: str) -> str:
    """What TensorRT really wrote with these words in it."""
    return next(text for text in TOLD if words in text)


def fake_plan(spec: ModelSpec, **changes: Any) -> bytes:
    """A plan for `spec`.

    Args:
        changes: of what it says: `dtype` of the image, `scratch` bytes, `validity` and `diagnostics` as TensorRT-RTX
            reports them.
    """
    content = {
        "batch": 1 if spec.max_batch == 1 else -1,
        "most": spec.max_batch,
        "picture": spec.picture_size,
        "map": spec.map_size,
        "full": spec.input_size if spec.full_map else None,
        "dtype": "UINT8",
        "scratch": SCRATCH,
        "validity": "VALID",
        "diagnostics": 0,
    }
    return json.dumps({**content, **changes}).encode()


def brightness(batch: np.ndarray, map_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Maps and scores of (N, H, W, 3) uint8."""
    count, height, width, _ = batch.shape
    rows, columns = map_size
    grey = batch.astype(np.float32).mean(axis=-1) / np.float32(255)
    maps = grey.reshape(count, rows, height // rows, columns, width // columns).mean(axis=(2, 4))
    return maps, maps.max(axis=(1, 2))
