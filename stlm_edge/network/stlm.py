"""STLM as a whole: two streams, one decoder, feature aggregation (paper, figure 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stlm_edge.network.decoder import Features, decoder_of
from stlm_edge.network.encoder import Architecture, ImageEncoder
from stlm_edge.network.feature_aggregation import FeatureAggregation

NORM_EPSILON = 1e-12


@dataclass(frozen=True)
class StreamFeatures:
    """What the two streams see: L1 and L2 of each."""

    plain: Features
    denoising: Features


class Stlm(nn.Module):
    """The two-stream lightweight model with its feature aggregation."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.plain = ImageEncoder(architecture)
        self.denoising = ImageEncoder(architecture)
        self.decoder = decoder_of(architecture)
        self.feature_aggregation = FeatureAggregation(
            inputs=2 * architecture.embedding_channels, channels=architecture.aggregation_channels
        )

    def features(self, pixels: Tensor) -> StreamFeatures:
        """Both streams' L1 and L2; the shared decoder takes both in one call.

        Args:
            pixels: (N, 3, H, W), normalised RGB.
        """
        embeddings = torch.cat([self.plain(pixels), self.denoising(pixels)])
        layer1, layer2 = self.decoder(embeddings)
        batch = pixels.shape[0]
        return StreamFeatures(
            plain=(layer1[:batch], layer2[:batch]),
            denoising=(layer1[batch:], layer2[batch:]),
        )

    def aggregate(self, features: StreamFeatures) -> Tensor:
        """(N, 1, H / 16, W / 16), logits of "anomalous"."""
        logits: Tensor = self.feature_aggregation(products(features))
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """
        Args:
            pixels: (N, 3, H, W), normalised RGB; H and W multiples of 32.
        Returns:
            (N, 1, H / 16, W / 16), the anomaly map in 0 … 1.
        """
        return torch.sigmoid(self.aggregate(self.features(pixels)))


def normalise(features: Tensor) -> Tensor:
    """Divide by the L2 norm over channels plus 1e-12; in float32, where 1e-12 is not yet zero."""
    features = features.float()
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    normalised: Tensor = features / (norm + NORM_EPSILON)
    return normalised


def products(features: StreamFeatures) -> Tensor:
    """(N, 2 C, h, w): the negative element-wise products of the normalised streams, L1 first.

    The authors' code has the minus, the paper's equation 2 has not; trained weights fit one sign only.
    """
    return torch.cat(
        [
            -normalise(plain) * normalise(denoising)
            for plain, denoising in zip(features.plain, features.denoising, strict=True)
        ],
        dim=1,
    )
