"""The feature aggregation module: two residual blocks, ASPP and a head (paper, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.network.encoder import AGGREGATION_CHANNELS, EMBEDDING_CHANNELS

LIGHT_RATES = (1, 3)
ORIGINAL_CHANNELS = 256
ORIGINAL_RATES = (6, 12, 18)
"""Width and dilation rates of DeSTSeg's segmentation network, "original" in figure 6."""

COMMITTEE_CHANNELS = 32
"""Width of each member; twice that detects no better from a frozen backbone's features, and takes 2.7 times as long."""


class ConvNorm(nn.Module):
    """A convolution without bias and batch normalisation."""

    def __init__(self, inputs: int, channels: int, *, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, channels, kernel, padding=padding, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of what has one value for each channel and picture, as the pooling branch has.

    Two pictures and more are normalised by their own statistics, as everywhere. A single one has no variance: it would
    become 0 in every channel, the branch a constant, and the running variance no number; torch refuses it. It is
    normalised by the running statistics instead, which stay as they are, as DeepLab v3 does with all of its batch
    normalisations once they are frozen (arXiv 1706.05587, section 4.1). So a training with one picture a step computes
    in this branch what the finished network computes, and one that goes on from a checkpoint keeps its statistics.
    The other normalisations see a map of each picture, at least 2 x 2 cells, and do with one.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the width changes."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity() if inputs == channels else ConvNorm(inputs, channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(branch)) + self.shortcut(x))


class AtrousPyramid(nn.Module):
    """ASPP: a pooling branch, then one for each dilation rate (a 1 x 1 convolution for rate 1), fused.

    The paper lists its rates as 1, 1, 3; the authors' code has the pooling branch and the rates 1 and 3.
    """

    def __init__(self, channels: int, rates: Sequence[int] = LIGHT_RATES) -> None:
        super().__init__()
        self.pool = ConvNorm(channels, channels)
        self.pool.norm = PooledBatchNorm2d(channels)
        self.names = [f"rate{rate}" for rate in rates]
        for name, rate in zip(self.names, rates, strict=True):
            self.add_module(name, ConvNorm(channels, channels, kernel=1 if rate == 1 else 3, dilation=rate))
        self.fuse = ConvNorm((1 + len(rates)) * channels, channels, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.relu(self.pool(x.mean(dim=(2, 3), keepdim=True))).expand_as(x)
        branches = [pooled, *(torch.relu(self.get_submodule(name)(x)) for name in self.names)]
        return torch.relu(self.fuse(torch.cat(branches, dim=1)))


class Head(nn.Module):
    """From the aggregated features to one logit for each cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.out = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.relu(self.norm(self.conv(x))))
        return logits


class FeatureAggregation(nn.Module):
    """Draws the anomaly map from the two layers' products. The defaults are the paper's, "lightweight" in figure 6."""

    def __init__(
        self,
        *,
        inputs: int = 2 * EMBEDDING_CHANNELS,
        channels: int = AGGREGATION_CHANNELS,
        rates: Sequence[int] = LIGHT_RATES,
    ) -> None:
        super().__init__()
        self.res = nn.Sequential(ResidualBlock(inputs, channels), ResidualBlock(channels, channels))
        self.aspp = AtrousPyramid(channels, rates)
        self.head = Head(channels)

    def forward(self, products: Tensor) -> Tensor:
        """
        Args:
            products: (N, inputs, h, w), L1's product first.
        Returns:
            (N, 1, h, w), logits of "anomalous".
        """
        logits: Tensor = self.head(self.aspp(self.res(products)))
        return logits


class Committee(nn.Module):
    """Feature aggregations of which each has learnt without another share of the good pictures; the mean of all counts.

    Not the paper's. A picture's score by the member that has not learnt from it is what a new picture would get, so all
    good pictures tell where the threshold belongs, and none has to be held out (cross-validation committees: Parmanto,
    Munro, Doyle, NIPS 1995).
    """

    def __init__(self, members: int, *, inputs: int, channels: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(FeatureAggregation(inputs=inputs, channels=channels) for _ in range(members))

    def forward(self, seen: Tensor) -> Tensor:
        """(N, inputs, h, w) → (N, 1, h, w), as of one."""
        mean: Tensor = reduce(torch.add, (member(seen) for member in self.members)) / len(self.members)
        return mean
