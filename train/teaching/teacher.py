"""The teacher of a training, by its settings: its features or its masks, and what brings a student's to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn

from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.design import Layers
from stlm_edge.network.encoder import EMBEDDING_CHANNELS
from stlm_edge.network.teachers import give_weights, teacher_named
from stlm_edge.network.teachers.base import Teacher, Weights
from stlm_edge.network.teachers.sam import SamTeacher
from stlm_edge.spec import Size
from train.combinations import NO_TEACHER
from train.config import TrainConfig


@dataclass(frozen=True)
class Taught:
    """What the teacher makes of a batch: features, or masks where those are distilled.

    Attributes:
        plain: of the pictures with pseudo anomalies.
        denoising: of the same pictures without them.
    """

    plain: Features
    denoising: Features


class MaskHead(nn.Module):
    """What SAM's mask decoder has behind its two-way blocks: up-sampling, and one small network for each mask."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        complete = MaskDecoder(transformer_dim=channels, transformer=nn.Identity())
        self.output_upscaling = complete.output_upscaling
        self.output_hypernetworks_mlps = complete.output_hypernetworks_mlps

    def forward(self, decoder: TwoWayDecoder, embedding: Tensor) -> Tensor:
        """
        Args:
            embedding: (N, C, h, w) of an image encoder.
        Returns:
            (N, 4, 4 h, 4 w), logits of the four masks that SAM gives without a prompt.
        """
        queries, keys = decoder.tokens_and_keys(embedding)
        pixels = self.output_upscaling(keys)
        # Token 0 tells the quality of masks, which nobody asks for here.
        weights = [network(queries[:, 1 + index]) for index, network in enumerate(self.output_hypernetworks_mlps)]
        return torch.einsum("nmc,nchw->nmhw", torch.stack(weights, dim=1), pixels)


class MaskTeacher(SamTeacher):
    """A teacher that gives its masks instead of its features (table 9)."""

    def __init__(self, teacher: SamTeacher) -> None:
        super().__init__(teacher.name, teacher.encoder, teacher.decoder, image_size=teacher.image_size)
        self.mask_head = MaskHead(teacher.channels).requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor, _layers: Layers = "l1+l2") -> Features:
        """(N, 3, H, W), normalised RGB → (N, 4, H / 4, W / 4), logits of the masks."""
        masks: Tensor = self.mask_head(self.decoder, self.encoder(pixels))
        return (masks,)

    def tensors_of(self, tensors: Mapping[str, Tensor]) -> list[tuple[nn.Module, Mapping[str, Tensor]]]:
        """See `SamTeacher.tensors_of`."""
        return [*super().tensors_of(tensors), (self.mask_head, mask_head_tensors(tensors))]


class Projections(nn.Module):
    """What brings a student's features to the teacher's channels, for the distillation loss only.

    Nothing where both have as many, as in the paper; else a 1 x 1 convolution for each layer, which learns along, is
    shared by both streams and thrown away after the training.
    """

    def __init__(self, student_channels: int, teacher_channels: int, *, layers: int = 2) -> None:
        super().__init__()
        same = student_channels == teacher_channels
        self.layers = nn.ModuleList(
            nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1) for _ in range(layers)
        )

    def forward(self, features: Features) -> Features:
        """(N, student channels, h, w) of each layer → (N, teacher channels, h, w)."""
        return tuple(layer(feature) for layer, feature in zip(self.layers, features, strict=True))


def teacher_of(config: TrainConfig, *, channels: int) -> Teacher | None:
    """What a training with these settings distils from, None where from nothing.

    Args:
        channels: of the network's embedding, which a teacher that can choose has too.
    Raises:
        ConfigError, WeightsError, DownloadError: see `teacher_named` and `Teacher.load`.
    """
    teacher = bare_teacher(config, channels=channels)
    if teacher is not None:
        give_weights(teacher, name=config.teacher, weights=config.teacher_weights)
    return teacher


def bare_teacher(config: TrainConfig, *, channels: int) -> Teacher | None:
    """`teacher_of`, as it is without weights."""
    if config.teacher == NO_TEACHER:
        return None
    masks = config.distillation == "logits"
    return _named(config.teacher, image_size=config.image_size, channels=channels, masks=masks)


def build_teacher(
    name: str, *, weights: Weights, image_size: Size, channels: int = EMBEDDING_CHANNELS, masks: bool = False
) -> Teacher:
    """Build a teacher and load its weights.

    Args:
        masks: whether it shall give its masks instead of its features; only SAM and its kind have any.
    """
    teacher = _named(name, image_size=image_size, channels=channels, masks=masks)
    give_weights(teacher, name=name, weights=weights)
    return teacher


def _named(name: str, *, image_size: Size, channels: int, masks: bool) -> Teacher:
    teacher = teacher_named(name, image_size=image_size, channels=channels)
    if not masks:
        return teacher
    assert isinstance(teacher, SamTeacher)  # the settings allow no other
    return MaskTeacher(teacher)


def mask_head_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors from the state dict of SAM or MobileSAM, under the names of `MaskHead`."""
    prefix = "mask_decoder."
    wanted = (f"{prefix}output_upscaling.", f"{prefix}output_hypernetworks_mlps.")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(wanted)}
