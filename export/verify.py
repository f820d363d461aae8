"""Does the exported graph give the same answers as the network it came from?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from runtime.backends import open_backend
from stlm_edge.datasets import texture_paths
from stlm_edge.errors import VerificationError
from stlm_edge.imaging import Image, read_image, to_input
from stlm_edge.network.inspector import Inspector, prepare
from stlm_edge.spec import ModelSpec
from stlm_edge.synthetic import DEFECT_KINDS, render_part

TOLERANCE = 1e-4
"""Largest difference of a map's pixel or of a score, both on a scale of 0 … 1, for a graph in float32."""

IMAGES = 8


@dataclass(frozen=True)
class Drift:
    """Largest absolute differences over `images` pictures."""

    max_map_error: float
    max_score_error: float
    images: int


def pictures(folder: Path | None) -> list[Image]:
    """Up to eight pictures, evenly picked from a folder tree; without a folder, good and defective synthetic parts.

    Raises:
        DataError: if the folder has none, or one cannot be read.
    """
    if folder is None:
        kinds = (None, *DEFECT_KINDS)
        return [
            render_part(np.random.default_rng(index), size=(512, 512), defect=kinds[index % len(kinds)]).image
            for index in range(IMAGES)
        ]
    paths = texture_paths(folder)
    picked = np.unique(np.linspace(0, len(paths) - 1, IMAGES).round().astype(int))
    return [read_image(paths[index]) for index in picked]


@torch.no_grad()
def verify(inspector: Inspector, engine: Path, images: Sequence[Image], *, spec: ModelSpec) -> Drift:
    """Compare PyTorch with ONNX Runtime on pictures.

    Raises:
        VerificationError: if a map or a score differs by more than `TOLERANCE`.
    """
    map_errors, score_errors = [0.0], [0.0]
    with open_backend(engine, spec=spec, backend="onnxruntime") as backend:
        for image in images:
            coarse = inspector.network(prepare(torch.from_numpy(to_input(image, spec=inspector.spec)), inspector.spec))
            _, wanted_score = inspector.finish(coarse)
            found_map, found_score = backend.infer(to_input(image, spec=spec))
            map_errors.append(float(np.abs(found_map - coarse.squeeze(1).numpy()).max()))
            score_errors.append(float(np.abs(found_score - wanted_score.numpy()).max()))
    drift = Drift(max(map_errors), max(score_errors), len(images))
    if max(drift.max_map_error, drift.max_score_error) > TOLERANCE:
        raise VerificationError(
            f"ONNX Runtime and PyTorch differ by {drift.max_map_error:.2g} in the map and {drift.max_score_error:.2g} "
            f"in the score, expected at most {TOLERANCE:g}; nothing was written, report this with your torch version"
        )
    return drift
