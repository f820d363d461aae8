"""What a training step minimises: equations 3 to 8, and what the ablations put in the place of their terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stlm_edge.network.comparison import NORM_EPSILON, StreamFeatures, in_full
from stlm_edge.network.decoder import Features
from stlm_edge.network.feature_aggregation import Committee
from stlm_edge.network.inference import prepare
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.spec import ModelSpec
from train.config import TrainConfig
from train.data import Batch
from train.distributed import summed
from train.teaching.guidance import autocast
from train.teaching.teacher import MaskHead, Projections, Taught


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
        if network.denoising is None:
            return self._of_plain_features(pixels.contiguous(memory_format=torch.channels_last), batch)
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
        segmentation = zero if logits is None else self.segmentation(in_full(logits), batch.mask)
        return LossTerms(plain=plain, denoising=denoising, segmentation=segmentation)

    def _of_plain_features(self, pixels: Tensor, batch: Batch) -> LossTerms:
        """The terms where nothing is distilled or compared; a committee's members learn each from its own share."""
        network, aggregation = self.network, self.network.feature_aggregation
        assert isinstance(network.plain, Teacher) and network.plain_features is not None and aggregation is not None
        zero = torch.zeros((), device=pixels.device)
        with autocast(self.config.precision, pixels.device):
            seen = network.plain_features(*network.plain.maps(pixels))
            if not isinstance(aggregation, Committee):
                segmentation = self.segmentation(in_full(aggregation(seen)), batch.mask)
                return LossTerms(plain=zero, denoising=zero, segmentation=segmentation)
            segmentation = zero
            for number, member in enumerate(aggregation.members):
                learns = [place for place, fold in enumerate(batch.folds) if fold != number]
                if learns:
                    part = self.segmentation(in_full(member(seen[learns])), batch.mask[learns])
                    segmentation = segmentation + part / len(aggregation.members)
        return LossTerms(plain=zero, denoising=zero, segmentation=segmentation)

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


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine similarity at every position (equation 3).

    1e-12 is added to each norm, so a zero vector has distance 1. Half precision is computed in float32, where 1e-12
    is not zero. The gradient at an all-zero student is 0 by definition here; the plain formula gives NaN there.

    Args:
        student, teacher: (N, C, H, W).
    Returns:
        (N, 1, H, W) in 0 … 2, float32 or float64.
    """
    similarity = _normalise(student) * _normalise(teacher)
    return 1 - similarity.sum(dim=1, keepdim=True)


def distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Cosine distance, mean over positions and batch, sum over layers (equations 3 and 4).

    Args:
        student, teacher: for each layer (N, C, H, W). Gradients flow wherever they are wanted; the teacher's features
            should want none.
    """
    means = [cosine_distance(ours, theirs).mean() for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(means).sum()


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a mask to the size of the prediction: bilinear without anti-aliasing, then 1 from 0.5 on.

    Args:
        mask: (N, 1, H, W) floating point, 0 or 1.
        size: (height, width) wanted.
    Returns:
        (N, 1, height, width) of the same type, 0 or 1.
    """
    small = F.interpolate(mask, size=size, mode="bilinear", align_corners=False)
    return (small >= 0.5).to(mask.dtype)


def any_in_cell(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """As `shrink_mask`, but 1 wherever the cell holds any pixel of the mask; a line thinner than a cell stays."""
    return F.adaptive_max_pool2d(mask, size)


def focal_loss(prediction: Tensor, target: Tensor, *, gamma: float = 4) -> Tensor:
    """Mean of (1 - p)^gamma * -log p, p the probability given to the true class (equation 6).

    The logarithm is clamped at -100, so that a certain and wrong prediction costs 100 and not infinity.

    Args:
        prediction: probabilities, any shape; float32 or float64.
        target: 0 or 1, same shape and type.
    """
    missing = (target - prediction).abs()
    cross_entropy = F.binary_cross_entropy(prediction, target, reduction="none")
    return (missing**gamma * cross_entropy).mean()


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |target - prediction| (equation 7, which has a minus sign in print and a plus in the authors' code)."""
    return (target - prediction).abs().mean()


def bce_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy plus the Dice loss over the whole batch; not the paper's, but quicker to learn from.

    The Dice ratio is that of the global batch where several processes train.

    One pixel is added to both sides of the Dice ratio: a batch without any defect that is predicted so costs nothing.

    Args:
        logits: any shape, before the sigmoid.
        target: 0 or 1, same shape.
    """
    prediction = torch.sigmoid(logits)
    overlap, predicted, wanted = summed(
        torch.stack([(prediction * target).sum(), prediction.sum(), target.sum()])
    ).unbind()
    dice = (2 * overlap + 1) / (predicted + wanted + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - dice


def _normalise(features: Tensor) -> Tensor:
    """Divide by the norm over channels plus 1e-12; a zero vector stays zero, whatever its gradient would be."""
    features = in_full(features)
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / torch.where(norm > 0, norm + NORM_EPSILON, torch.inf)


def _freeze_what_only_masks_need(network: Stlm) -> None:
    """The last token-to-image attention and its norm have no influence on L1 and L2; they need no gradients."""
    for decoder in (network.decoder, network.denoising_decoder):
        if decoder is not None:
            decoder.transformer.final_attn_token_to_image.requires_grad_(False)
            decoder.transformer.norm_final_attn.requires_grad_(False)
