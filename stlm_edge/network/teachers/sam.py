"""SAM and MobileSAM as teachers, and a narrow network of their kind (paper, section 3.2 and table 4)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import WeightsError
from stlm_edge.files import sha256
from stlm_edge.network.decoder import Features, TwoWayDecoder, decode, decoder_of
from stlm_edge.network.design import PUBLISHED_WEIGHTS, Layers
from stlm_edge.network.encoder import EMBEDDING_CHANNELS, STRIDE, ImageEncoder, architecture_named
from stlm_edge.network.teachers.base import Maps, Teacher, Weights, load_exactly
from stlm_edge.network.weights import (
    PUBLISHED,
    decoder_tensors,
    locate,
    mobile_sam_encoder_tensors,
    read_tensors,
    to_fetch,
)
from stlm_edge.spec import Size

SAM_SIZE = 1024
SAM_WIDTHS = {"sam_vit_b": (768, 12, 12, (2, 5, 8, 11)), "sam_vit_l": (1024, 24, 16, (5, 11, 17, 23))}
SAM_WIDTHS["sam_vit_h"] = (1280, 32, 16, (7, 15, 23, 31))
"""Width, depth, heads and blocks with global attention of SAM's image encoders."""


class SamTeacher(Teacher):
    """An image encoder and its own two-way decoder: SAM, MobileSAM, or a narrow one of their kind.

    Args:
        name: as `sam_teacher` takes it; decides which tensors of a file are whose.
    """

    def __init__(self, name: str, encoder: nn.Module, decoder: TwoWayDecoder, *, image_size: Size) -> None:
        super().__init__(encoder, channels=decoder.channels)
        self.name = name
        self.image_size = image_size
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
        encoder = cast(ImageEncoder, self.encoder)  # or `map_channels` would have said that it has none
        return encoder.maps(pixels)

    @torch.no_grad()
    def features_of(self, maps: Maps, layers: Layers = "l1+l2") -> Features:
        """See `Teacher.features_of`."""
        return decode(self.decoder, cast(ImageEncoder, self.encoder).embedding_of(maps[1]), layers)

    def load(self, weights: Weights) -> None:
        """Load a state dict of SAM or MobileSAM; see `Teacher.load`."""
        if self.name not in PUBLISHED:
            raise WeightsError(
                f"the teacher {self.name} has no published weights, found {weights!r}; give --teacher-weights random"
            )
        path = locate(self.name if weights == PUBLISHED_WEIGHTS else weights)
        tensors = read_tensors(path)
        for module, named in self.tensors_of(tensors):
            load_exactly(module, named, found=str(path), name=self.name)
        self.origin = f"{path} (SHA-256 {sha256(path)})"

    def to_fetch(self) -> str | None:
        """See `Teacher.to_fetch`."""
        return to_fetch(self.name)

    def tensors_of(self, tensors: Mapping[str, Tensor]) -> list[tuple[nn.Module, Mapping[str, Tensor]]]:
        """Each part of the teacher with what a file has for it, by the part's own names."""
        if self.name == "mobile_sam":
            encoder = mobile_sam_encoder_tensors(tensors)
        else:
            prefix = "image_encoder."
            encoder = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            if "pos_embed" in encoder:
                encoder["pos_embed"] = resize_positions(encoder["pos_embed"], self.image_size)
        return [(self.encoder, encoder), (self.decoder, decoder_tensors(tensors))]


def sam_teacher(name: str, *, image_size: Size) -> SamTeacher:
    """One with random weights; SAM's have a table of positions that belongs to `image_size`.

    Args:
        name: `mobile_sam`, one of `SAM_WIDTHS`, or `stlm-tiny`.
    """
    if name in ("stlm-tiny", "mobile_sam"):
        architecture = architecture_named("stlm-tiny" if name == "stlm-tiny" else "stlm")
        return SamTeacher(name, ImageEncoder(architecture), decoder_of(architecture), image_size=image_size)
    return SamTeacher(name, _sam_encoder(name, image_size), TwoWayDecoder(), image_size=image_size)


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
