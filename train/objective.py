"""What a training step minimises: equation 8, and what the ablations put in the place of its terms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlm_edge.network.comparison import StreamFeatures
from stlm_edge.network.decoder import Features
from stlm_edge.network.inference import prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teacher import Teacher
from stlm_edge.spec import ModelSpec
from train.config import TrainConfig
from train.data import Batch
from train.losses import any_in_cell, bce_dice_loss, distillation_loss, focal_loss, l1_loss, shrink_mask
from train.teaching.guidance import autocast
from train.teaching.masks import MaskHead
from train.teaching.teacher import Projections, Taught


@dataclass(frozen=True)
class LossTerms:
    """The terms of equation 8, each a scalar: distillation of both streams, segmentation of the pseudo anomalies."""

    plain: Tensor
    denoising: Tensor
    segmentation: Tensor

    @property
    def total(self) -> Tensor:
        return self.plain + self.denoising + self.segmentation

    def values(self) -> Tensor:
        """(3,) without gradients."""
        return torch.stack([self.plain, self.denoising, self.segmentation]).detach()


class Objective(nn.Module):
    """The network with what only its training needs, and the losses of both.

    Attributes:
        network: what is trained.
        projections: between channels of students and teacher, if those differ.
        mask_heads: of the plain and of the denoising stream's decoder, where masks are distilled; else empty.
    """

    def __init__(self, network: Stlm, config: TrainConfig, *, spec: ModelSpec, teacher_channels: int) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.spec = spec
        channels = network.architecture.embedding_channels
        design = network.design
        self.projections = Projections(channels, teacher_channels, layers=design.layer_count)
        decoders = (network.decoder, network.denoising_decoder)
        wanted = config.distillation == "logits"
        self.mask_heads = nn.ModuleList(MaskHead(channels) for decoder in decoders if wanted and decoder is not None)
        if not wanted:
            _freeze_what_only_masks_need(network)

    def forward(self, batch: Batch, taught: Taught | None, *, aggregate: bool = True) -> LossTerms:
        """
        Args:
            batch: on the network's device.
            taught: None without a teacher; then both distillation terms are 0.
            aggregate: whether the map is wanted too; without it the segmentation term is 0.
        """
        network, config = self.network, self.config
        pixels = prepare(batch.pseudo, self.spec)
        with autocast(config.precision, pixels.device):
            given = taught.plain if taught is not None and isinstance(network.plain, Teacher) else None
            features = network.features(pixels.contiguous(memory_format=torch.channels_last), plain=given)
            wants_map = aggregate and network.feature_aggregation is not None
            logits = network.aggregate(features) if wants_map else None
            student = self._masks(features) if self.mask_heads else self._projected(features)
        zero = torch.zeros((), device=pixels.device)
        plain = denoising = zero
        if taught is not None:
            learn = masks_loss if self.mask_heads else distillation_loss
            denoising = learn(student[1], taught.denoising)
            if not isinstance(network.plain, Teacher):
                plain = learn(student[0], taught.plain)
        segmentation = zero if logits is None else self.segmentation(logits.float(), batch.mask)
        return LossTerms(plain=plain, denoising=denoising, segmentation=segmentation)

    def segmentation(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of the map (equations 5 to 7), or the one that the settings put in its place.

        Args:
            logits: (N, 1, h, w), float32.
            mask: (N, 1, H, W), float32 of 0 and 1.
        Returns:
            A scalar.
        """
        shrink = any_in_cell if self.config.mask_target == "any" else shrink_mask
        target = shrink(mask, (logits.shape[2], logits.shape[3]))
        if self.config.segmentation_loss == "bce-dice":
            return bce_dice_loss(logits, target)
        prediction = torch.sigmoid(logits)
        return focal_loss(prediction, target) + l1_loss(prediction, target)

    def _projected(self, features: StreamFeatures) -> tuple[Features, Features]:
        return self.projections(features.plain), self.projections(features.denoising)

    def _masks(self, features: StreamFeatures) -> tuple[Features, Features]:
        """Each stream's mask logits, (N, 4, H / 4, W / 4), from its image embedding, L1."""
        decoder, denoising_decoder = self.network.decoder, self.network.denoising_decoder
        assert decoder is not None  # the settings allow masks with both layers only
        plain = self.mask_heads[0](decoder, features.plain[0])
        denoising = self.mask_heads[-1](denoising_decoder or decoder, features.denoising[0])
        return (plain,), (denoising,)


def masks_loss(student: Features, teacher: Features) -> Tensor:
    """Focal and L1 loss between a student's masks and those of the teacher (paper, 4.4.9).

    Args:
        student, teacher: logits, each (N, 4, h, w); a pixel belongs to the teacher's mask above 0, as in SAM.
    """
    prediction = torch.sigmoid(student[0].float())
    target = (teacher[0] > 0).float()
    return focal_loss(prediction, target) + l1_loss(prediction, target)


def _freeze_what_only_masks_need(network: Stlm) -> None:
    """The last token-to-image attention and its norm have no influence on L1 and L2; they need no gradients."""
    for decoder in (network.decoder, network.denoising_decoder):
        if decoder is not None:
            decoder.transformer.final_attn_token_to_image.requires_grad_(False)
            decoder.transformer.norm_final_attn.requires_grad_(False)
