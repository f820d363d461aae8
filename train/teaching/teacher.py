"""The frozen network to distil from: SAM, MobileSAM, or where there are no weights a random one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn

from stlm_edge.errors import WeightsError
from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.design import Layers, TeacherName
from stlm_edge.network.teacher import SamTeacher, Teacher, random_teacher, resize_positions
from stlm_edge.network.weights import PUBLISHED, decoder_tensors, locate, mobile_sam_encoder_tensors, read_tensors
from stlm_edge.spec import Size
from train.config import PUBLISHED as PUBLISHED_WEIGHTS
from train.config import RANDOM, TrainConfig
from train.teaching.gabor import GaborTeacher

logger = logging.getLogger(__name__)


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

    def __init__(self, encoder: nn.Module, decoder: TwoWayDecoder) -> None:
        super().__init__(encoder, decoder)
        self.mask_head = MaskHead(decoder.channels).requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pixels: Tensor, _layers: Layers = "l1+l2") -> Features:
        """(N, 3, H, W), normalised RGB → (N, 4, H / 4, W / 4), logits of the masks."""
        masks: Tensor = self.mask_head(self.decoder, self.encoder(pixels))
        return (masks,)


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


def teacher_of(config: TrainConfig) -> Teacher | None:
    """What a training with these settings distils from, None where from nothing. Raises `WeightsError`."""
    if config.teacher == "none":
        return None
    masks = config.distillation == "logits"
    return build_teacher(config.teacher, weights=config.teacher_weights, image_size=config.image_size, masks=masks)


def build_teacher(
    name: TeacherName | Literal["gabor"], *, weights: str, image_size: Size, masks: bool = False
) -> Teacher:
    """Build the teacher and load its weights.

    Args:
        weights: a file, `published`, or `random`, which a warning says.
        masks: whether it shall give its masks instead of its features.
    Raises:
        WeightsError: if the file does not fit the teacher.
    """
    if name == "gabor":
        if weights != RANDOM:
            raise WeightsError(
                f"found {weights!r} for the teacher gabor, which has none; give --teacher-weights random"
            )
        return GaborTeacher(image_size)
    teacher = random_teacher(name, image_size=image_size)
    if masks:
        teacher = MaskTeacher(teacher.encoder, teacher.decoder)
    if weights == RANDOM:
        logger.warning(
            "NO TEACHER WEIGHTS: distilling from a RANDOM frozen %s. The model learns from pseudo anomalies alone and "
            "will not reach the paper's figures; give --teacher-weights (see 'stlm weights')",
            name,
        )
        return teacher
    path = teacher_file(name, weights)
    load_teacher(teacher, name, path=path, tensors=read_tensors(path), image_size=image_size)
    logger.info("teacher %s from %s", name, path)
    return teacher


def teacher_file(name: TeacherName, weights: str) -> Path:
    """Where the teacher's weights are, fetched if they are published and missing. Raises `WeightsError`."""
    if name not in PUBLISHED:
        raise WeightsError(
            f"the teacher {name} has no published weights, found {weights!r}; give --teacher-weights random"
        )
    return locate(name if weights == PUBLISHED_WEIGHTS else weights)


def load_teacher(
    teacher: SamTeacher, name: TeacherName, *, path: Path, tensors: Mapping[str, Tensor], image_size: Size
) -> None:
    """Load a state dict of SAM or MobileSAM. Raises `WeightsError` if it does not fit."""
    if name == "mobile_sam":
        encoder = mobile_sam_encoder_tensors(tensors)
    else:
        prefix = "image_encoder."
        encoder = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if "pos_embed" in encoder:
            encoder["pos_embed"] = resize_positions(encoder["pos_embed"], image_size)
    _load(teacher.encoder, encoder, path=path, name=name)
    _load(teacher.decoder, decoder_tensors(tensors), path=path, name=name)
    if isinstance(teacher, MaskTeacher):
        _load(teacher.mask_head, mask_head_tensors(tensors), path=path, name=name)


def mask_head_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors from the state dict of SAM or MobileSAM, under the names of `MaskHead`."""
    prefix = "mask_decoder."
    wanted = (f"{prefix}output_upscaling.", f"{prefix}output_hypernetworks_mlps.")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(wanted)}


def _load(module: nn.Module, tensors: Mapping[str, Tensor], *, path: Path, name: str) -> None:
    wanted = {key: value.shape for key, value in module.state_dict().items()}
    missing = [key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked")]
    wrong = [key for key in wanted if key in tensors and tensors[key].shape != wanted[key]]
    if missing or wrong:
        raise WeightsError(
            f"{path} does not fit the teacher {name}: {len(missing)} tensors missing, {len(wrong)} of another shape "
            f"(the first is {(missing + wrong)[0]}); give the file that belongs to {name}"
        )
    module.load_state_dict({key: tensors[key] for key in wanted if key in tensors}, strict=False)
