"""Which parts the network is made of: STLM itself by default, and the variants of the paper's ablations."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args, get_type_hints

from stlm_edge.errors import ConfigError, shown
from stlm_edge.records import MAY_LACK, Within, build, parse

MOST_PATCHES = 100_000
"""Of a memory: as many distances are computed for each 64 pixels of a picture."""
MOST_NEIGHBOURS = 100
MOST_HEADS = 16

TEACHERS = ("sam_vit_h", "sam_vit_l", "sam_vit_b", "mobile_sam", "stlm-tiny", "gabor")
"""Frozen teachers by name; besides, `timm:NAME` is any backbone of timm."""
TIMM = "timm:"

PUBLISHED_WEIGHTS = "published"
"""For a teacher's weights: those that its authors published."""
RANDOM_WEIGHTS = "random"
"""For weights: none, on purpose."""

DecoderDesign = Literal["shared", "separate"]
Layers = Literal["l1+l2", "l1", "l2", "block1+block2", "block1"]
"""L1 is the image embedding and L2 the image tokens after the second two-way block, which is block2 too."""
Comparison = Literal["product", "cosine", "subtraction", "concat", "plain"]
Aggregation = Literal["light", "original", "none"]
MapSource = Literal[Aggregation, "memory"]
AggregationStart = Literal["kaiming", "torch"]
EncoderStart = Literal["mobile-sam", "identity"]
"""See `stlm_edge.network.initial.draw_start`."""


@dataclass(frozen=True)
class Design:
    """What distinguishes the ablations at inference; training has more of them (see `train.config`).

    Attributes:
        plain_stream: `student`, or the name of the frozen teacher that takes its place (table 4, without plain stream).
        decoder: one for both streams, or one for each (figures 4 and 5).
        layers: which features are compared (figure 11). L1 is the image embedding, L2 the image tokens after the
            two-way blocks. With `l1` there is no decoder at all, so this is also table 4's "without mask decoder".
            `block1+block2` is what the paper's text says, "features from the k-th layer of the mask decoder": the image
            tokens after each block. The authors' code has `l1+l2`.
        comparison: what the feature aggregation is given (table 6). With plain, which is not the paper's, nothing is
            compared and there is no denoising stream: it is given what a frozen plain stream sees, at stride 8.
        aggregation: the paper's lightweight one, the original one of DeSTSeg with 256 channels (figure 6), or none:
            the map is then the product of the layers' cosine distances, as in STPM (table 4, "strategy [46]"). With
            memory there is no denoising stream either, so nothing is compared: the patch memory alone makes the map.
        memory: how many patches of good pictures are remembered, whose distances are added to the aggregation's map;
            0 for no such memory. It needs a frozen plain stream.
        memory_neighbours: of how many nearest remembered patches the distance is the mean.
        heads: feature aggregations, whose mean logit makes the map: a committee of which each member has learnt from
            other good pictures. More than one needs comparison plain.
    """

    plain_stream: str = "student"
    decoder: DecoderDesign = "shared"
    layers: Layers = "l1+l2"
    comparison: Comparison = "product"
    aggregation: MapSource = "light"
    memory: Annotated[int, Within(0, MOST_PATCHES)] = field(default=0, metadata=MAY_LACK)
    memory_neighbours: Annotated[int, Within(1, MOST_NEIGHBOURS)] = field(default=1, metadata=MAY_LACK)
    heads: Annotated[int, Within(1, MOST_HEADS)] = field(default=1, metadata=MAY_LACK)

    def __post_init__(self) -> None:
        if self.plain_stream != "student":
            check_teacher("plain_stream", self.plain_stream, also=("student",))
        for name, hint in get_type_hints(Design).items():
            value, known = getattr(self, name), get_args(hint)
            if known and value not in known:
                raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if self.of_blocks and self.plain_stream.startswith((TIMM, "gabor")):
            raise ConfigError(f"layers {self.layers}: {self.plain_stream} has no decoder; give l1+l2, l1 or l2")
        if self.memory and self.plain_stream == "student":
            raise ConfigError("a patch memory needs features that stay as they are: plain_stream teacher")
        if self.comparison == "plain" and (self.plain_stream == "student" or self.aggregation == "none"):
            raise ConfigError(
                "comparison plain needs a frozen plain stream and a feature aggregation that learns from it"
            )
        if self.heads > 1 and not self.sees_plain:
            raise ConfigError(f"heads is {self.heads}, expected 1 but for comparison plain")
        if self.memory and self.aggregation == "none":
            raise ConfigError("a patch memory is added to the map of a feature aggregation, found aggregation none")
        if self.memory < self.memory_neighbours and (self.memory or self.aggregation == "memory"):
            raise ConfigError(
                f"memory is {self.memory}, expected at least memory_neighbours, which is {self.memory_neighbours}"
            )

    @property
    def has_denoising(self) -> bool:
        """Whether there is a denoising stream, which the plain one is compared with."""
        return self.aggregation != "memory" and self.comparison != "plain"

    @property
    def sees_plain(self) -> bool:
        """Whether the feature aggregation is given what the plain stream sees, and nothing else."""
        return self.aggregation != "memory" and self.comparison == "plain"

    @property
    def map_stride(self) -> int:
        """Pixels of the input for one cell of the map."""
        return 8 if self.memory or self.sees_plain else 16

    @property
    def has_decoder(self) -> bool:
        return self.layers != "l1" and self.has_denoising

    @property
    def highest_score(self) -> float:
        """Of a map and of its score: that of a sigmoid, or of a product of cosine distances."""
        return 2.0**self.layer_count if self.aggregation == "none" else 1.0

    @property
    def layer_count(self) -> int:
        return 2 if "+" in self.layers else 1

    @property
    def of_blocks(self) -> bool:
        """Whether all that is compared comes out of the decoder's blocks, as the paper's text has it."""
        return self.layers.startswith("block")

    @property
    def blocks(self) -> int:
        """Two-way blocks that the decoder needs, if it has one."""
        return 1 if self.layers == "block1" else 2

    @property
    def differences(self) -> str:
        """What is not as in the paper, for a message; empty for the paper's design."""
        default = Design()
        changed = {name: value for name, value in dataclasses.asdict(self).items() if value != getattr(default, name)}
        return "".join(f", {name} {value}" for name, value in changed.items())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Design:
        """Raises `ConfigError` on anything that `to_json` does not write."""
        remedy = "train with this version"
        return build(
            cls, parse(text, what="the design", error=ConfigError, remedy=remedy), error=ConfigError, remedy=remedy
        )


def check_teacher(setting: str, value: object, *, also: tuple[str, ...] = ()) -> None:
    """Raises `ConfigError` unless the value may name a teacher; whether timm knows a backbone is not looked up.

    Args:
        also: what else the setting may be.
    """
    if value in TEACHERS or value in also:
        return
    if not isinstance(value, str) or not value.startswith(TIMM) or value == TIMM:
        raise ConfigError(
            f"{setting} is {shown(value)}, expected one of {', '.join((*also, *TEACHERS))}, or timm:NAME with a "
            "backbone of timm, such as timm:tf_efficientnet_lite0"
        )
