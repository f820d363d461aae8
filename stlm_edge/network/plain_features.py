"""What a frozen plain stream sees, as the feature aggregation takes it where there is no denoising stream.

Not the paper's. Where no SAM teaches, a frozen backbone that knows ImageNet tells more than what a small student learns
of it in minutes, and at half the stride.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainFeatures(nn.Module):
    """Both maps of the plain stream side by side on the grid of stride 8, each channel standardised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """
        Args:
            fine: (N, C1, H / 8, W / 8), see `Teacher.maps`.
            coarse: (N, C2, H / 16, W / 16).
        Returns:
            (N, C1 + C2, H / 8, W / 8).
        """
        wide = F.interpolate(coarse, size=(fine.shape[2], fine.shape[3]), mode="bilinear", align_corners=False)
        standardised: Tensor = self.norm(torch.cat([fine, wide], dim=1))
        return standardised
