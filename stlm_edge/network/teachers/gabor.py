"""A teacher that needs no weights: Gabor energies at several scales, as texture analysis has used them for decades.

Not the paper's, which distils from SAM. For machines without published weights: a random network teaches nothing that
tells a surface from another, these filters do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import WeightsError
from stlm_edge.network.decoder import Features
from stlm_edge.network.design import PUBLISHED_WEIGHTS, Layers
from stlm_edge.network.encoder import STRIDE
from stlm_edge.network.teachers.base import Teacher, Weights
from stlm_edge.spec import ModelSpec, Size

LEVELS = 4
"""Of the pyramid, each half as large as the one before; the last makes cells of 2 x 2 pixels."""
ORIENTATIONS = 6
WAVELENGTH = 4.0
"""Pixels of a level: 4, 8, 16 and 32 of the picture."""
SIGMA = 2.0
SIDE = 11
LIGHT_WINDOW = 5
"""Cells over which the light is averaged, that everything is relative to."""
FAINTEST_LIGHT = 8.0
"""Grey levels added to it, so that noise in black regions stays small."""
FAINTEST_ENERGY = 0.01


class GaborTeacher(Teacher):
    """Frozen filters in the place of a network.

    L1 has the mean and the highest energy of each cell at each scale and orientation and the cell's tone, L2 the same
    averaged over 3 x 3 cells. All are logarithms of contrasts, so brightness does not matter, and are standardised with
    the mean and deviation that `settle` finds.
    """

    name = "gabor"
    needs_weights = False

    def __init__(self, image_size: Size) -> None:
        super().__init__(GaborFilters(image_size), channels=GaborFilters.channels)

    @torch.no_grad()
    def forward(self, pixels: Tensor, layers: Layers = "l1+l2") -> Features:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Returns:
            L1, L2 or both, each (N, channels, H / 16, W / 16).
        """
        layer1 = self.encoder(pixels)
        layer2 = F.avg_pool2d(layer1, 3, stride=1, padding=1, count_include_pad=False)
        return {"l1": (layer1,), "l2": (layer2,), "l1+l2": (layer1, layer2)}[layers]

    def load(self, weights: Weights) -> None:
        """Nothing to take; a file is refused."""
        if weights != PUBLISHED_WEIGHTS:
            raise WeightsError(f"found {weights!r} for the teacher gabor, which has none; leave --teacher-weights out")
        self.origin = "filters, which have none"

    @torch.no_grad()
    def settle(self, pixels: Tensor) -> None:
        """Take mean and deviation of each channel from real pictures, (N, 3, H, W)."""
        assert isinstance(self.encoder, GaborFilters)  # it is compiled later, if at all
        self.encoder.settle(pixels)


class GaborFilters(nn.Module):
    """The filters with their standardisation, all of it parameters: a teacher is where its parameters are."""

    channels = 2 * LEVELS * ORIENTATIONS + 1

    def __init__(self, image_size: Size) -> None:
        super().__init__()
        spec = ModelSpec("", "", image_size, image_size, "")
        self.bank = nn.Parameter(_bank())
        self.pixel_mean = nn.Parameter(torch.tensor(spec.pixel_mean).reshape(1, 3, 1, 1))
        self.pixel_std = nn.Parameter(torch.tensor(spec.pixel_std).reshape(1, 3, 1, 1))
        self.mean = nn.Parameter(torch.zeros(1, self.channels, 1, 1))
        self.deviation = nn.Parameter(torch.ones(1, self.channels, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, channels, H / 16, W / 16)."""
        described: Tensor = (self._describe(pixels) - self.mean) / self.deviation
        return described

    def settle(self, pixels: Tensor) -> None:
        """See `GaborTeacher.settle`."""
        described = self._describe(pixels)
        self.mean.copy_(described.mean(dim=(0, 2, 3), keepdim=True))
        self.deviation.copy_(described.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-3))

    def _describe(self, pixels: Tensor) -> Tensor:
        grey = (pixels * self.pixel_std + self.pixel_mean).mean(dim=1, keepdim=True)
        tone = F.avg_pool2d(grey, STRIDE) + FAINTEST_LIGHT
        light = F.avg_pool2d(tone, LIGHT_WINDOW, stride=1, padding=LIGHT_WINDOW // 2, count_include_pad=False)
        light = F.interpolate(light, size=grey.shape[2:], mode="bilinear", align_corners=False)
        level = grey / light - 1
        planes = [torch.log(tone / tone.mean(dim=(2, 3), keepdim=True))]
        for index in range(LEVELS):
            padded = F.pad(level, [SIDE // 2] * 4, mode="reflect")
            even, odd = F.conv2d(padded, self.bank).chunk(2, dim=1)
            energy = torch.sqrt(even**2 + odd**2)
            cell = STRIDE >> index
            planes += [F.avg_pool2d(energy, cell), F.max_pool2d(energy, cell)]
            level = F.avg_pool2d(level, 2)
        return torch.cat([planes[0], *(torch.log(plane + FAINTEST_ENERGY) for plane in planes[1:])], dim=1)


def _bank() -> Tensor:
    """(2 * ORIENTATIONS, 1, SIDE, SIDE): even filters, then odd ones, without response to brightness."""
    offset = torch.arange(SIDE, dtype=torch.float32) - SIDE // 2
    rows, columns = torch.meshgrid(offset, offset, indexing="ij")
    kernels = []
    for quarter in (0, 1):
        for index in range(ORIENTATIONS):
            angle = math.pi * index / ORIENTATIONS
            along = columns * math.cos(angle) + rows * math.sin(angle)
            wave = torch.cos(2 * math.pi * along / WAVELENGTH - quarter * math.pi / 2)
            kernel = torch.exp(-(rows**2 + columns**2) / (2 * SIGMA**2)) * wave
            kernel = kernel - kernel.mean()
            kernels.append(kernel / kernel.abs().sum())
    return torch.stack(kernels).unsqueeze(1)
