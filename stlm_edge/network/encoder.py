"""The image encoder of one stream: MobileSAM's TinyViT and SAM's neck (paper, 3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from stlm_edge.errors import ConfigError

EMBEDDING_CHANNELS = 256
"""Channels of SAM's image embedding; what it teaches has so many."""

DECODER_MLP_DIM = 2048
"""Hidden width of the MLPs in SAM's two-way blocks."""

DECODER_BLOCKS = 2
"""SAM's two-way blocks."""

AGGREGATION_CHANNELS = 128
"""Channels of the paper's feature aggregation (figure 6)."""

STRIDE = 16
"""Pixels of the input for one cell of the embedding."""


@dataclass(frozen=True)
class Architecture:
    """Widths and depths of the network's parts.

    Attributes:
        embed_dims, depths: of the encoders' four stages.
        num_heads, window_sizes: likewise; the first stage is convolutional and ignores both.
        embedding_channels: of an image embedding, L1 and L2.
        decoder_mlp_dim: hidden width of the two-way blocks' MLPs.
        aggregation_channels: of the feature aggregation.
    """

    name: str
    embed_dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]
    window_sizes: tuple[int, int, int, int]
    embedding_channels: int = EMBEDDING_CHANNELS
    decoder_mlp_dim: int = DECODER_MLP_DIM
    aggregation_channels: int = AGGREGATION_CHANNELS


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        # MobileSAM's encoder, as in the paper.
        Architecture("stlm", (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)),
        # Not in the paper: narrow and shallow, so that a CPU trains it in minutes and a checkpoint takes 4 MB, with
        # windows that fit 256, 512 and 1024 pixels without padding.
        Architecture(
            "stlm-tiny",
            embed_dims=(16, 32, 64, 64),
            depths=(1, 1, 2, 1),
            num_heads=(1, 2, 2, 2),
            window_sizes=(8, 8, 16, 8),
            embedding_channels=64,
            decoder_mlp_dim=128,
            aggregation_channels=64,
        ),
    )
}


def architecture_named(name: str) -> Architecture:
    """Raises `ConfigError` for a name that is not in `ARCHITECTURES`."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise ConfigError(f"architecture is {name!r}, expected one of {', '.join(ARCHITECTURES)}") from None


class ImageEncoder(nn.Module):
    """timm's TinyViT with MobileSAM's two changes: the last merge keeps the resolution, and SAM's neck follows."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.backbone = _backbone(architecture)
        self.map_channels = (architecture.embed_dims[1], architecture.embed_dims[2])
        channels = architecture.embedding_channels
        self.neck = nn.Sequential(
            nn.Conv2d(architecture.embed_dims[-1], channels, kernel_size=1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(channels),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB; H and W multiples of 32.
        Returns:
            (N, C, H / 16, W / 16), C = architecture.embedding_channels
        """
        embedding: Tensor = self.neck(self.backbone(pixels))
        return embedding

    def maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the second and the third stage see, (N, C1, H / 8, W / 8) and (N, C2, H / 16, W / 16)."""
        backbone: Any = self.backbone
        fine: Tensor = backbone.stages[:2](backbone.patch_embed(pixels))
        return fine, backbone.stages[2](fine)

    def embedding_of(self, coarse: Tensor) -> Tensor:
        """`forward`, from the second of `maps`."""
        backbone: Any = self.backbone
        embedding: Tensor = self.neck(backbone.stages[3](coarse))
        return embedding


def _backbone(architecture: Architecture) -> nn.Module:
    backbone: Any = TinyVit(
        embed_dims=architecture.embed_dims,
        depths=architecture.depths,
        num_heads=architecture.num_heads,
        window_sizes=architecture.window_sizes,
        num_classes=0,
        drop_path_rate=0.0,
    )
    backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
    backbone.head = nn.Identity()
    module: nn.Module = backbone
    _initialise(module)
    return module


def _initialise(backbone: nn.Module) -> None:
    """Start as a plain convolutional network: attention and MLP add nothing yet, local convolutions pass on.

    timm's initial values, MobileSAM's, lose what distinguishes one cell from the next on the way through the stages;
    without published weights that costs thousands of steps. `initial.draw_start` has them, for the paper's settings.
    """
    for name, module in backbone.named_modules():
        if name.endswith((".attn.proj", ".mlp.fc2")) and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Conv2d) and name.endswith(".local_conv.conv"):
            with torch.no_grad():
                module.weight.mul_(0.1)
                module.weight[:, :, 1, 1] += 1
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
