"""What a training starts from: random weights, MobileSAM's in streams and decoder, or a checkpoint of this toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from stlm_edge.errors import WeightsError
from stlm_edge.network.design import AggregationStart, Design, EncoderStart
from stlm_edge.network.encoder import ImageEncoder
from stlm_edge.network.feature_aggregation import ResidualBlock
from stlm_edge.network.patch_memory import without_memory
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.network.weights import decoder_tensors, mobile_sam_encoder_tensors, read_tensors

PARTS = {"plain", "plain_features", "denoising", "decoder", "denoising_decoder", "feature_aggregation"}
"""Of a network that has learnt, see `Stlm`."""


def draw_start(network: Stlm, *, aggregation: AggregationStart, encoders: EncoderStart) -> None:
    """Draw those random weights of a new network that a training may want otherwise than `Stlm` has drawn them.

    Args:
        aggregation: `torch` leaves what torch draws. `kaiming` is the authors' start (`SegmentationNet` in mob_sam.py
            of StitchKoala/STLM at 8ac0841, from DeSTSeg): normal with a variance of 2 / fan-out in the convolutions of
            the residual blocks, five times torch's deviation in the first. ASPP and head are made after that there, so
            they have torch's.
        encoders: `identity` leaves what `ImageEncoder` draws, of both streams. `mobile-sam` is MobileSAM's start
            (`_init_weights` in tiny_vit_sam.py of ChaoningZhang/MobileSAM at 34bbbfd): linear layers normal with a
            deviation of 0.02, convolutions as torch draws them. A frozen teacher is not touched.
    """
    for encoder in (network.plain, network.denoising) if encoders == "mobile-sam" else ():
        for module in encoder.modules() if isinstance(encoder, ImageEncoder) else ():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                module.reset_parameters()
    if aggregation == "kaiming" and network.feature_aggregation is not None:
        blocks = (block for block in network.feature_aggregation.modules() if isinstance(block, ResidualBlock))
        for module in chain.from_iterable(block.modules() for block in blocks):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@dataclass(frozen=True)
class LoadReport:
    """What a weights file gave to the network, part by part.

    Attributes:
        loaded: number of tensors for each part of the network that was loaded.
        left_random: reason for each part that the file could not serve.
        unused: top-level names in the file that STLM has no use for.
        gives_plain: whether a frozen plain stream has its weights from the file.
    """

    loaded: Mapping[str, int]
    left_random: Mapping[str, str]
    unused: tuple[str, ...]
    gives_plain: bool = False

    def __str__(self) -> str:
        parts = [f"loaded {', '.join(f'{part} ({count} tensors)' for part, count in self.loaded.items()) or 'nothing'}"]
        parts += [f"{part} stays random: {reason}" for part, reason in self.left_random.items()]
        if self.unused:
            parts.append(f"not used from the file: {', '.join(self.unused)}")
        return "; ".join(parts)


def load_initial(network: Stlm, path: Path, *, random_encoders: bool = False) -> LoadReport:
    """Load what a training starts from: MobileSAM's weights, or the weights of a checkpoint of this toolkit.

    Of a checkpoint that is all of them, but for two cases: one without a head (`--epochs 0`) gives its frozen plain
    stream, and a network without a head takes that alone.

    Args:
        random_encoders: see `load_mobile_sam`.
    Raises:
        WeightsError: if the file is neither, or if the checkpoint is of another architecture, or its encoders shall
            stay random.
    """
    tensors = without_memory(read_tensors(path))  # a training ends with a memory of its own pictures
    if not tensors or not {_part(name) for name in tensors} <= PARTS:
        if network.denoising is None and network.feature_aggregation is None:
            raise WeightsError(
                f"{path} is no checkpoint of this toolkit, expected one with the frozen plain stream "
                f"{network.design.plain_stream}, which is all that a network without training takes; give "
                "--initial-weights random, and the weights of that stream by --teacher-weights"
            )
        return load_mobile_sam(network, path, random_encoders=random_encoders)
    if random_encoders:
        raise WeightsError(
            f"{path} is a checkpoint of this toolkit, whose parts have learnt together; random_encoders goes with "
            "MobileSAM's weights (--initial-weights mobile_sam), give --no-random-encoders otherwise"
        )
    expected = without_memory(network.state_dict())
    offered, wanted = ({_part(name) for name in names} for names in (tensors, expected))
    is_frozen = isinstance(network.plain, Teacher)
    if is_frozen and {"plain"} in (offered, wanted):
        tensors, expected = ({n: t for n, t in every.items() if _part(n) == "plain"} for every in (tensors, expected))
    shapes, places = ({name: tensor.shape for name, tensor in every.items()} for every in (tensors, expected))
    if shapes != places or _stream_of(path) not in (None, network.design.plain_stream):
        raise WeightsError(
            f"{path} is a checkpoint of another architecture, expected one of {network.architecture.name}"
            f"{network.design.differences}; train with the settings that are in its config.yaml"
        )
    network.load_state_dict(tensors, strict=False)
    is_whole = offered == wanted
    return LoadReport(
        loaded={"whole network" if is_whole else "plain": len(tensors)},
        left_random=dict.fromkeys(sorted(wanted - offered), "the checkpoint has none"),
        unused=tuple(sorted(offered - wanted)),
        gives_plain=is_frozen,
    )


def _part(name: str) -> str:
    """Of a network, that a tensor belongs to."""
    return name.split(".", 1)[0]


def _stream_of(path: Path) -> str | None:
    """What the plain stream of a checkpoint is; None where its file does not say.

    Two backbones may have tensors of the same names and shapes, and be others. Raises `ConfigError`.
    """
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as file:
        written = (file.metadata() or {}).get("design")
    return None if written is None else Design.from_json(written).plain_stream


def load_mobile_sam(network: Stlm, path: Path, *, random_encoders: bool = False) -> LoadReport:
    """Load MobileSAM's weights into the encoders and decoders that learn (paper, 4.1.3).

    The feature aggregation module has no published weights.

    Args:
        random_encoders: leave the encoders as they are, for table 8's "w/o initial weight", which is about them alone;
            so does the authors' published code, which loads MobileSAM's encoder into one that it does not use.
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
        if module is None or (random_encoders and isinstance(module, ImageEncoder)):
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
    left_random = {}
    if random_encoders:
        students = [name for name in ("plain", "denoising") if isinstance(getattr(network, name), ImageEncoder)]
        left_random = dict.fromkeys(students, "random_encoders")
    if network.feature_aggregation is not None:
        left_random["feature_aggregation"] = "it has no published weights"
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
