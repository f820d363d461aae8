"""STLM as a whole: two streams, one decoder, feature aggregation (paper, figure 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stlm_edge.errors import ConfigError
from stlm_edge.network.comparison import StreamFeatures, compare, comparison_channels, tlm_map
from stlm_edge.network.decoder import Features, decode, decoder_of
from stlm_edge.network.design import Design
from stlm_edge.network.encoder import Architecture, ImageEncoder
from stlm_edge.network.feature_aggregation import ORIGINAL_CHANNELS, ORIGINAL_RATES, FeatureAggregation
from stlm_edge.network.teachers import teacher_named
from stlm_edge.network.teachers.base import Teacher
from stlm_edge.spec import Size


class Stlm(nn.Module):
    """The two-stream lightweight model with its feature aggregation, or one of its ablations.

    Attributes:
        plain: an `ImageEncoder`, or the frozen `Teacher` that takes its place.
        decoder: of both streams, or of the plain one; None where only L1 is compared.
        denoising_decoder: of the denoising stream where it has its own, else None.
        feature_aggregation: None where the design has none.
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
        self.denoising = ImageEncoder(architecture)
        self.decoder = decoder_of(architecture) if design.has_decoder else None
        own = design.has_decoder and design.decoder == "separate" and design.plain_stream == "student"
        self.denoising_decoder = decoder_of(architecture) if own else None
        self.feature_aggregation = _aggregation(architecture, design)

    def features(self, pixels: Tensor, *, plain: Features | None = None) -> StreamFeatures:
        """Both streams' features; a shared decoder takes both in one call.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
            plain: features of the network in the plain stream's place, if the caller has them already.
        """
        layers = self.design.layers
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
        """(N, 1, H / 16, W / 16), logits of "anomalous"; only where there is a feature aggregation."""
        if self.feature_aggregation is None:
            raise ConfigError("this network has no feature aggregation; its map is tlm_map(features)")
        logits: Tensor = self.feature_aggregation(compare(features, self.design.comparison))
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB; H and W multiples of 32.
        Returns:
            (N, 1, H / 16, W / 16), the anomaly map in 0 … 1; without feature aggregation `tlm_map`.
        """
        features = self.features(pixels)
        if self.feature_aggregation is None:
            return tlm_map(features)
        return torch.sigmoid(self.aggregate(features))


def _aggregation(architecture: Architecture, design: Design) -> FeatureAggregation | None:
    if design.aggregation == "none":
        return None
    inputs = design.layer_count * comparison_channels(design.comparison, architecture.embedding_channels)
    if design.aggregation == "original":
        return FeatureAggregation(inputs=inputs, channels=ORIGINAL_CHANNELS, rates=ORIGINAL_RATES)
    return FeatureAggregation(inputs=inputs, channels=architecture.aggregation_channels)
