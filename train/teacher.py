"""The frozen network to distil from: SAM, MobileSAM, or where there are no weights a random one."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.errors import WeightsError
from stlm_edge.network.decoder import Features, TwoWayDecoder, decoder_of
from stlm_edge.network.encoder import EMBEDDING_CHANNELS, STRIDE, ImageEncoder, architecture_named
from stlm_edge.network.weights import decoder_tensors, locate, mobile_sam_encoder_tensors, read_tensors
from stlm_edge.spec import ModelSpec, Size
from train.config import TeacherName
from train.gabor_teacher import GaborTeacher

logger = logging.getLogger(__name__)

SAM_SIZE = 1024
SAM_WIDTHS = {"sam_vit_b": (768, 12, 12, (2, 5, 8, 11)), "sam_vit_l": (1024, 24, 16, (5, 11, 17, 23))}
SAM_WIDTHS["sam_vit_h"] = (1280, 32, 16, (7, 15, 23, 31))
"""Width, depth, heads and blocks with global attention of SAM's image encoders."""


class Teacher(nn.Module):
    """An image encoder and its own two-way decoder, frozen."""

    def __init__(self, encoder: nn.Module, decoder: TwoWayDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.requires_grad_(False)
        self.eval()

    @property
    def channels(self) -> int:
        """Of L1 and L2."""
        return self.decoder.no_mask_embed.embedding_dim

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Features:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB.
        Returns:
            L1 and L2, each (N, channels, H / 16, W / 16).
        """
        features: Features = self.decoder(self.encoder(pixels))
        return features


class Projections(nn.Module):
    """What brings a student's L1 and L2 to the teacher's channels, for the distillation loss only.

    Nothing where both have as many, as in the paper; else a 1 x 1 convolution for each layer, which learns along, is
    shared by both streams and thrown away after the training.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        same = student_channels == teacher_channels
        self.layers = nn.ModuleList(
            nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1) for _ in range(2)
        )

    def forward(self, features: Features) -> Features:
        """(N, student channels, h, w) of L1 and L2 → (N, teacher channels, h, w) of both."""
        layer1, layer2 = (layer(feature) for layer, feature in zip(self.layers, features, strict=True))
        return layer1, layer2


def build_teacher(name: TeacherName, *, weights: str | None, image_size: Size) -> Teacher | GaborTeacher:
    """Build the teacher and load its weights.

    Args:
        weights: a file or a published name; without one the teacher stays random, which a warning says.
    Raises:
        WeightsError: if the file does not fit the teacher.
    """
    if name == "gabor":
        if weights is not None:
            raise WeightsError(f"found {weights} for the teacher gabor, which has no weights; leave it out")
        return GaborTeacher(ModelSpec("", "", image_size, image_size, ""))
    teacher = _random_teacher(name, image_size)
    if weights is None:
        logger.warning(
            "NO TEACHER WEIGHTS: distilling from a RANDOM frozen %s. The model learns from pseudo anomalies alone and "
            "will not reach the paper's figures; give --teacher-weights (see 'python -m train weights')",
            name,
        )
        return teacher
    if name == "stlm-tiny":
        raise WeightsError(f"found {weights} for the teacher stlm-tiny, which has no published weights; leave it out")
    path = locate(weights)
    tensors = read_tensors(path)
    if name == "mobile_sam":
        encoder = mobile_sam_encoder_tensors(tensors)
    else:
        encoder = {
            key.removeprefix("image_encoder."): tensor
            for key, tensor in tensors.items()
            if key.startswith("image_encoder.")
        }
        if "pos_embed" in encoder:
            encoder["pos_embed"] = _resize_position(encoder["pos_embed"], image_size)
    _load(teacher.encoder, encoder, path=path, name=name)
    _load(teacher.decoder, decoder_tensors(tensors), path=path, name=name)
    logger.info("teacher %s from %s", name, path)
    return teacher


def settle(teacher: Teacher | GaborTeacher, pixels: Tensor) -> None:
    """Give a random teacher's batch normalisations the statistics of real pictures.

    With the initial ones its activations fade from layer to layer, and all positions get nearly the same features.

    Args:
        pixels: (N, 3, H, W), normalised RGB.
    """
    if isinstance(teacher, GaborTeacher):
        teacher.settle(pixels)
        return
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    teacher(pixels)
    teacher.eval()


def _random_teacher(name: TeacherName, image_size: Size) -> Teacher:
    if name in ("stlm-tiny", "mobile_sam"):
        architecture = architecture_named("stlm-tiny" if name == "stlm-tiny" else "stlm")
        return Teacher(ImageEncoder(architecture), decoder_of(architecture))
    return Teacher(_sam_encoder(name, image_size), TwoWayDecoder())


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
    encoder.pos_embed = nn.Parameter(_resize_position(encoder.pos_embed, image_size))
    module: nn.Module = encoder
    return module


def _resize_position(table: Tensor, image_size: Size) -> Tensor:
    """(1, h, w, C) → the grid of `image_size`, by bicubic interpolation."""
    grid = (image_size[0] // STRIDE, image_size[1] // STRIDE)
    if table.shape[1:3] == grid:
        return table.detach()
    planes = F.interpolate(table.detach().permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
    return planes.permute(0, 2, 3, 1)


def _load(module: nn.Module, tensors: dict[str, Tensor], *, path: Path, name: str) -> None:
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    missing = [key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key in tensors and tensors[key].shape != wanted[key]]
    if missing or wrong:
        raise WeightsError(
            f"{path} does not fit the teacher {name}: {len(missing)} tensors missing, {len(wrong)} of another shape "
            f"(the first is {(missing + wrong)[0]}); give the file that belongs to {name}"
        )
    module.load_state_dict({key: tensors[key] for key in wanted if key in tensors}, strict=False)
