"""STLM as a whole: two streams, one decoder, feature aggregation (paper, figure 2)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from stlm_edge.errors import ConfigError
from stlm_edge.network.comparison import StreamFeatures, compare, comparison_channels, tlm_map
from stlm_edge.network.decoder import Features, decode, decoder_of
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import Architecture, ImageEncoder
from stlm_edge.network.feature_aggregation import (
    COMMITTEE_CHANNELS,
    ORIGINAL_CHANNELS,
    ORIGINAL_RATES,
    Committee,
    FeatureAggregation,
)
from stlm_edge.network.patch_memory import Fusion, PatchMemory
from stlm_edge.network.plain_features import PlainFeatures
from stlm_edge.network.teachers import teacher_named
from stlm_edge.network.teachers.base import Maps, Teacher
from stlm_edge.spec import Size


class Stlm(nn.Module):
    """The two-stream lightweight model with its feature aggregation, or one of its ablations.

    Attributes:
        plain: an `ImageEncoder`, or the frozen `Teacher` that takes its place.
        denoising: None where nothing is compared: a patch memory alone makes the map, or the feature aggregation takes
            what the plain stream sees.
        plain_features: brings that to the feature aggregation; None where streams are compared.
        decoder: of both streams, or of the plain one; None where only L1 is compared.
        denoising_decoder: of the denoising stream where it has its own, else None.
        feature_aggregation: one or a committee; None where the design has none.
        memory, fusion: of good pictures' patches, and how its distances become part of the map; None without one.
    """

    def __init__(self, architecture: Architecture, design: Design | None = None, *, image_size: Size = (1024, 1024)):
        """
        Args:
            design: by default the paper's.
            image_size: matters to a SAM in the plain stream's place only.
        Raises:
            ConfigError: if the plain stream's stand-in has other channels than the architecture.
        """
        super().__init__()
        self.architecture = architecture
        self.design = design = Design() if design is None else design
        self.plain: ImageEncoder | Teacher
        if design.plain_stream == "student":
            self.plain = ImageEncoder(architecture)
        else:
            self.plain = teacher_named(
                design.plain_stream, image_size=image_size, channels=architecture.embedding_channels
            )
            if self.plain.channels != architecture.embedding_channels:
                raise ConfigError(
                    f"{design.plain_stream} in the plain stream's place has {self.plain.channels} channels, the "
                    f"architecture {architecture.name} has {architecture.embedding_channels}; they must be the same"
                )
        self.denoising = ImageEncoder(architecture) if design.has_denoising else None
        self.decoder = decoder_of(architecture, blocks=design.blocks) if design.has_decoder else None
        own = design.has_decoder and design.decoder == "separate" and design.plain_stream == "student"
        self.denoising_decoder = decoder_of(architecture, blocks=design.blocks) if own else None
        self.plain_features = PlainFeatures(sum(self.require_maps())) if design.sees_plain else None
        self.feature_aggregation = self._aggregation()
        self.memory: PatchMemory | None = None
        self.fusion: Fusion | None = None
        if design.memory:
            self.remember(PatchMemory(design.memory, sum(self.require_maps()), neighbours=design.memory_neighbours))

    def remember(self, memory: PatchMemory) -> None:
        """Have the map made with a memory of patches that the plain stream sees; `fusion` is then to be set.

        Raises `ConfigError` if the plain stream has no maps, or learns.
        """
        sees, remembers = sum(self.require_maps()), memory.patches.shape[1]
        if sees != remembers:
            raise ConfigError(f"the plain stream has {sees} channels, the memory {remembers}; build it of that stream")
        self.design = dataclasses.replace(self.design, memory=len(memory.patches), memory_neighbours=memory.neighbours)
        self.memory, self.fusion = memory, Fusion().to(memory.patches.device)

    def require_maps(self) -> tuple[int, int]:
        """The channels of what the plain stream sees at strides 8 and 16.

        Raises `ConfigError` if it has no such maps, or learns.
        """
        stream = self.design.plain_stream
        if not isinstance(self.plain, Teacher) or self.plain.map_channels is None:
            raise ConfigError(
                "a patch memory and comparison plain need features at strides 8 and 16 that stay as they are, which "
                f"{stream} as the plain stream does not have; give --teacher timm:NAME and --plain-stream teacher"
            )
        return self.plain.map_channels

    def features(self, pixels: Tensor, *, plain: Features | None = None) -> StreamFeatures:
        """Both streams' features; a shared decoder takes both in one call.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
            plain: features of the network in the plain stream's place, if the caller has them already.
        """
        layers = self.design.layers
        if self.denoising is None:
            raise ConfigError("this network has one stream, so there are no features to compare")
        denoising = self.denoising(pixels)
        if isinstance(self.plain, Teacher):
            stand_in = self.plain(pixels, layers) if plain is None else plain
            return StreamFeatures(plain=stand_in, denoising=decode(self.decoder, denoising, layers))
        embedding = self.plain(pixels)
        if self.denoising_decoder is not None:
            return StreamFeatures(
                plain=decode(self.decoder, embedding, layers),
                denoising=decode(self.denoising_decoder, denoising, layers),
            )
        both = decode(self.decoder, torch.cat([embedding, denoising]), layers)
        batch = pixels.shape[0]
        return StreamFeatures(
            plain=tuple(layer[:batch] for layer in both), denoising=tuple(layer[batch:] for layer in both)
        )

    def aggregate(self, features: StreamFeatures) -> Tensor:
        """(N, 1, H / 16, W / 16), logits of "anomalous"; only where a feature aggregation compares two streams."""
        if self.feature_aggregation is None:
            raise ConfigError("this network has no feature aggregation; its map is tlm_map(features)")
        logits: Tensor = self.feature_aggregation(compare(features, self.design.comparison))
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB; H and W multiples of 32.
        Returns:
            (N, 1, H / s, W / s), s = `design.map_stride`, the anomaly map in 0 … 1; without feature aggregation
            `tlm_map`.
        """
        return self.compared(pixels)[0]

    def compared(self, pixels: Tensor) -> tuple[Tensor, StreamFeatures | None]:
        """The map, as `forward`, and both streams' features; None where there is one stream."""
        if self.memory is None or self.fusion is None:
            if self.plain_features is not None:
                return torch.sigmoid(self.plain_logits(self._maps(pixels))), None
            features = self.features(pixels)
            if self.feature_aggregation is None:
                return tlm_map(features), features
            return torch.sigmoid(self.aggregate(features)), features
        distances, logits, remembered = self.distances_and_logits(pixels)
        return self.fusion(distances, logits), remembered

    def distances_and_logits(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, StreamFeatures | None]:
        """What `fusion` makes one map of, and both streams' features. Only where there is a patch memory.

        Returns:
            distances (N, 1, H / 8, W / 8); logits of that size, or of half of it where streams are compared, or None
            where there is no feature aggregation; features, None where there is one stream.
        """
        assert self.memory is not None and isinstance(self.plain, Teacher)
        maps = self._maps(pixels)
        distances = self.memory(*maps)
        if self.plain_features is not None:
            return distances, self.plain_logits(maps), None
        if self.denoising is None:
            return distances, None, None
        features = self.features(pixels, plain=self.plain.features_of(maps, self.design.layers))
        return distances, self.aggregate(features), features

    def plain_logits(self, maps: Maps) -> Tensor:
        """(N, 1, H / 8, W / 8), logits of "anomalous" by what the plain stream sees; only where there is no other."""
        assert self.plain_features is not None and self.feature_aggregation is not None
        logits: Tensor = self.feature_aggregation(self.plain_features(*maps))
        return logits

    def _maps(self, pixels: Tensor) -> Maps:
        assert isinstance(self.plain, Teacher)  # or there would be neither a memory nor `plain_features`
        return self.plain.maps(pixels)

    def _aggregation(self) -> FeatureAggregation | Committee | None:
        design, architecture = self.design, self.architecture
        if design.aggregation in ("none", "memory"):
            return None
        if design.sees_plain:
            inputs = sum(self.require_maps())
        else:
            inputs = design.layer_count * comparison_channels(design.comparison, architecture.embedding_channels)
        if design.aggregation == "original":
            return FeatureAggregation(inputs=inputs, channels=ORIGINAL_CHANNELS, rates=ORIGINAL_RATES)
        if design.heads > 1:
            return Committee(design.heads, inputs=inputs, channels=COMMITTEE_CHANNELS)
        return FeatureAggregation(inputs=inputs, channels=architecture.aggregation_channels)
