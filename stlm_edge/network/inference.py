"""From camera pixels to a map and a score: the one path that evaluation computes and export writes down."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import ConfigError
from stlm_edge.network.stlm import Stlm
from stlm_edge.spec import ModelSpec


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises `ConfigError` for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device is {name!r}, expected cpu, cuda or auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no CUDA device; use --device cpu or install a driver")
    return device


def prepare(images: Tensor, spec: ModelSpec) -> Tensor:
    """Reorder and normalise pixels.

    Args:
        images: (N, H, W, 3) uint8, BGR.
    Returns:
        (N, 3, H, W) float32, RGB, minus the mean, divided by the standard deviation.
    """
    mean = torch.tensor(spec.pixel_mean, device=images.device).reshape(1, 3, 1, 1)
    std = torch.tensor(spec.pixel_std, device=images.device).reshape(1, 3, 1, 1)
    return (images.permute(0, 3, 1, 2).flip(1).float() - mean) / std


class InferencePath(nn.Module):
    """A trained network with everything that stands before and behind it."""

    def __init__(self, network: Stlm, spec: ModelSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            images: (N, H, W, 3) uint8, BGR; (H, W) = spec.input_size.
        Returns:
            anomaly_map: (N, H, W) float32 in 0 … 1, up-sampled to the input's size.
            score: (N,) float32, the mean of the map's `spec.top_k` highest pixels.
        """
        return self.finish(self.network(prepare(images, self.spec)))

    def finish(self, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Up-sample a map of (N, 1, h, w) and take its score; see `forward`."""
        full = F.interpolate(coarse, size=self.spec.input_size, mode="bilinear", align_corners=False).squeeze(1)
        score = full.flatten(1).topk(self.spec.top_k, dim=1).values.mean(dim=1)
        return full, score
