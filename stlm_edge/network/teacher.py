"""Frozen networks: the teachers to distil from, one of which can also stand in for the plain stream (table 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.network.decoder import Features, TwoWayDecoder, decode, decoder_of
from stlm_edge.network.design import Layers, TeacherName
from stlm_edge.network.encoder import EMBEDDING_CHANNELS, STRIDE, ImageEncoder, architecture_named
from stlm_edge.spec import Size

Maps = tuple[Tensor, Tensor]
"""Features at strides 8 and 16, see `Teacher.maps`."""

SAM_SIZE = 1024
SAM_WIDTHS = {"sam_vit_b": (768, 12, 12, (2, 5, 8, 11)), "sam_vit_l": (1024, 24, 16, (5, 11, 17, 23))}
SAM_WIDTHS["sam_vit_h"] = (1280, 32, 16, (7, 15, 23, 31))
"""Width, depth, heads and blocks with global attention of SAM's image encoders."""


class Teacher(nn.Module, ABC):
    """What is distilled from: a network or filters, frozen; `train()` leaves it in evaluation mode.

    Attributes:
        encoder: what takes the pixels and most of the time.
        channels: of L1 and L2.
        map_channels: of `maps`; None for a teacher that has none.
    """

    map_channels: tuple[int, int] | None = None

    def __init__(self, encoder: nn.Module, *, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = channels
        self.requires_grad_(False)
        self.eval()

    def train(self, _mode: bool = True) -> Teacher:
        """Stays as it is, whatever the network around it does."""
        return super().train(False)

    @abstractmethod
    def forward(self, pixels: Tensor, layers: Layers = "l1+l2") -> Features:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Returns:
            L1, L2 or both, each (N, channels, H / 16, W / 16).
        """

    def maps(self, pixels: Tensor) -> Maps:
        """The features of its encoder before they become L1 and L2: what a patch memory remembers.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Returns:
            (N, C1, H / 8, W / 8) and (N, C2, H / 16, W / 16), (C1, C2) = `map_channels`.
        """
        raise NotImplementedError("this teacher has no maps; ask for its `map_channels` first")

    def features_of(self, maps: Maps, layers: Layers = "l1+l2") -> Features:
        """`forward`, from what `maps` gives, so that whoever needs both runs the encoder once."""
        raise NotImplementedError("this teacher has no maps; ask for its `map_channels` first")

    @torch.no_grad()
    def settle(self, pixels: Tensor) -> None:
        """Give the batch normalisations of a random network the statistics of real pictures.

        With the initial ones its activations fade from layer to layer, and all positions get nearly the same features.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                module.train()
        self(pixels)
        self.eval()


class SamTeacher(Teacher):
    """An image encoder and its own two-way decoder: SAM, MobileSAM, or a narrow one of their kind."""

    def __init__(self, encoder: nn.Module, decoder: TwoWayDecoder) -> None:
        super().__init__(encoder, channels=decoder.channels)
        self.decoder = decoder.requires_grad_(False).eval()
        if isinstance(encoder, ImageEncoder):  # SAM's own has one stride alone
            self.map_channels = encoder.map_channels

    @torch.no_grad()
    def forward(self, pixels: Tensor, layers: Layers = "l1+l2") -> Features:
        """See `Teacher.forward`."""
        return decode(self.decoder, self.encoder(pixels), layers)

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Maps:
        """See `Teacher.maps`."""
        maps: Maps = self.encoder.maps(pixels)
        return maps

    @torch.no_grad()
    def features_of(self, maps: Maps, layers: Layers = "l1+l2") -> Features:
        """See `Teacher.features_of`."""
        return decode(self.decoder, self.encoder.embedding_of(maps[1]), layers)


def random_teacher(name: TeacherName, *, image_size: Size) -> SamTeacher:
    """A teacher with random weights; SAM's have a table of positions that belongs to `image_size`."""
    if name in ("stlm-tiny", "mobile_sam"):
        architecture = architecture_named("stlm-tiny" if name == "stlm-tiny" else "stlm")
        return SamTeacher(ImageEncoder(architecture), decoder_of(architecture))
    return SamTeacher(_sam_encoder(name, image_size), TwoWayDecoder())


def resize_positions(table: Tensor, image_size: Size) -> Tensor:
    """Bring SAM's table of absolute positions to another input size, by bicubic interpolation.

    Args:
        table: (1, h, w, C).
    Returns:
        (1, H / 16, W / 16, C) for `image_size` (H, W).
    """
    grid = (image_size[0] // STRIDE, image_size[1] // STRIDE)
    if table.shape[1:3] == grid:
        return table.detach()
    planes = F.interpolate(table.detach().permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
    return planes.permute(0, 2, 3, 1)


def _sam_encoder(name: str, image_size: Size) -> nn.Module:
    width, depth, heads, global_blocks = SAM_WIDTHS[name]
    encoder: Any = ImageEncoderViT(
        img_size=SAM_SIZE,
        patch_size=STRIDE,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=4,
        out_chans=EMBEDDING_CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=global_blocks,
    )
    # SAM itself brings the tables of its relative positions to other sizes; the absolute ones it leaves to us.
    encoder.pos_embed = nn.Parameter(resize_positions(encoder.pos_embed, image_size))
    module: nn.Module = encoder
    return module
