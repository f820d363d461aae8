"""What a training starts from: MobileSAM's weights in streams and decoder, or a checkpoint of this toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stlm_edge.errors import WeightsError
from stlm_edge.network.patch_memory import without_memory
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import decoder_tensors, mobile_sam_encoder_tensors, read_tensors


@dataclass(frozen=True)
class LoadReport:
    """What a weights file gave to the network, part by part.

    Attributes:
        loaded: number of tensors for each part of the network that was loaded.
        left_random: reason for each part that the file could not serve.
        unused: top-level names in the file that STLM has no use for.
        is_whole: whether it gave everything, a frozen plain stream too.
    """

    loaded: Mapping[str, int]
    left_random: Mapping[str, str]
    unused: tuple[str, ...]
    is_whole: bool = False

    def __str__(self) -> str:
        parts = [f"loaded {', '.join(f'{part} ({count} tensors)' for part, count in self.loaded.items()) or 'nothing'}"]
        parts += [f"{part} stays random: {reason}" for part, reason in self.left_random.items()]
        if self.unused:
            parts.append(f"not used from the file: {', '.join(self.unused)}")
        return "; ".join(parts)


def load_initial(network: Stlm, path: Path) -> LoadReport:
    """Load what a training starts from: MobileSAM's weights, or all weights of a checkpoint of this toolkit.

    Raises:
        WeightsError: if the file is neither, or if the checkpoint is of another architecture.
    """
    tensors = without_memory(read_tensors(path))  # a training ends with a memory of its own pictures
    expected = network.state_dict()
    if not any(name.startswith("feature_aggregation.") for name in tensors):
        return load_mobile_sam(network, path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != {name: tensor.shape for name, tensor in expected.items()}:
        raise WeightsError(
            f"{path} is a checkpoint of another architecture, expected one of {network.architecture.name}"
            f"{network.design.differences}; train with the settings that are in its config.yaml"
        )
    network.load_state_dict(tensors)
    return LoadReport(loaded={"whole network": len(tensors)}, left_random={}, unused=(), is_whole=True)


def load_mobile_sam(network: Stlm, path: Path) -> LoadReport:
    """Load MobileSAM's weights into the encoders and decoders that learn (paper, 4.1.3 and table 8).

    The feature aggregation module has no published weights.

    Raises:
        WeightsError: if the file is not MobileSAM's state dict, or if the network is narrower than MobileSAM.
    """
    if network.architecture.name != "stlm":
        raise WeightsError(
            f"the architecture is {network.architecture.name}, MobileSAM's weights fit stlm only; give "
            "--initial-weights random; --teacher mobile_sam distils from them"
        )
    tensors = read_tensors(path)
    encoder = mobile_sam_encoder_tensors(tensors)
    decoder = decoder_tensors(tensors)
    loaded: dict[str, int] = {}
    for part, module, source in (
        ("plain", None if isinstance(network.plain, Teacher) else network.plain, encoder),
        ("denoising", network.denoising, encoder),
        ("decoder", network.decoder, decoder),
        ("denoising_decoder", network.denoising_decoder, decoder),
    ):
        if module is None:
            continue
        expected = module.state_dict()
        missing = sorted(set(expected) - set(source))
        if missing:
            raise WeightsError(
                f"{path} lacks {len(missing)} tensors of the {part} (the first is {missing[0]}); "
                "expected MobileSAM's state dict, mobile_sam.pt"
            )
        wrong = [name for name in expected if source[name].shape != expected[name].shape]
        if wrong:
            raise WeightsError(
                f"{path} has {wrong[0]} as {tuple(source[wrong[0]].shape)}, the {part} expects "
                f"{tuple(expected[wrong[0]].shape)}; expected MobileSAM's state dict, mobile_sam.pt"
            )
        module.load_state_dict({name: source[name] for name in expected})
        loaded[part] = len(expected)
    aggregation = {"feature_aggregation": "it has no published weights"}
    left_random = {} if network.feature_aggregation is None else aggregation
    return LoadReport(loaded=loaded, left_random=left_random, unused=_unused(tensors))


def _unused(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Groups of tensors in a MobileSAM file that the network has no place for."""
    used = ("mask_decoder.transformer.", "mask_decoder.iou_token.", "mask_decoder.mask_tokens.")
    groups = set()
    for name in tensors:
        if name.startswith(("image_encoder.head.", "image_encoder.norm_head.")) or (
            name.startswith(("mask_decoder.", "prompt_encoder.point", "prompt_encoder.not_a", "prompt_encoder.mask_"))
            and not name.startswith(used)
        ):
            groups.add(".".join(name.split(".")[:2]))
    return tuple(sorted(groups))
