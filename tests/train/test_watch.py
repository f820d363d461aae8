"""What `--patience` watches: whether pseudo anomalies in held-out pictures are detected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.imaging import Image, Mask
from stlm_edge.network.inference import InferencePath
from stlm_edge.spec import ModelSpec
from train.data import Batches
from train.watch import held_out_error

SPEC = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "")


class Squares:
    """Puts a bright square of a cell into each picture."""

    def draw(self, rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
        row, column = 16 * rng.integers(4, size=2)
        pseudo, mask = normal.copy(), np.zeros(normal.shape[:2], np.uint8)
        pseudo[row : row + 16, column : column + 16] = 255
        mask[row : row + 16, column : column + 16] = 1
        return pseudo, mask


class Nothing:
    def draw(self, _rng: np.random.Generator, normal: Image) -> tuple[Image, Mask]:
        return normal, np.zeros(normal.shape[:2], np.uint8)


class Brightness(nn.Module):
    """A map of how bright each cell is, times `sign`."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.sign * F.avg_pool2d(pixels.mean(dim=1, keepdim=True), 16)


def watched(drawer: object) -> Batches:
    rng = np.random.default_rng(0)
    images = [rng.integers(90, 110, (64, 64, 3)).astype(np.uint8) for _ in range(6)]
    return Batches(images, pseudo_anomalies=drawer, batch_size=2, seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("sign", "least", "most"), [(1.0, 0.0, 1e-9), (-1.0, 0.6, 1.0), (0.0, 0.6, 0.8)])
def test_error_tells_a_map_that_finds_anomalies_from_others(sign: float, least: float, most: float) -> None:
    inspector = InferencePath(Brightness(sign), SPEC)  # type: ignore[arg-type]
    assert least <= held_out_error(inspector, watched(Squares())) <= most


def test_without_any_anomaly_nothing_is_detected() -> None:
    assert held_out_error(InferencePath(Brightness(1.0), SPEC), watched(Nothing())) == 1  # type: ignore[arg-type]
