"""SAM's two-way transformer, shared by both streams (paper, 3.2.2 and figure 4 b)."""

from __future__ import annotations

import math

import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from segment_anything.modeling.transformer import TwoWayTransformer
from torch import Tensor, nn

from stlm_edge.network.design import Layers
from stlm_edge.network.encoder import DECODER_BLOCKS, DECODER_MLP_DIM, EMBEDDING_CHANNELS, Architecture

Features = tuple[Tensor, ...]
"""L1 and L2 of one stream, each (N, C, h, w); one of them where the design uses one."""


class PositionEncoding(PositionEmbeddingRandom):  # type: ignore[misc]  # segment-anything has no types
    """SAM's random Fourier features, without a matrix product, which mixed precision would round to eight bits."""

    def _pe_encoding(self, coords: Tensor) -> Tensor:
        """(..., 2), x and y in 0 … 1 → (..., C)."""
        gauss = self.positional_encoding_gaussian_matrix
        centred = 2 * coords - 1
        angles = 2 * math.pi * (centred[..., :1] * gauss[0] + centred[..., 1:] * gauss[1])
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


class TwoWayDecoder(nn.Module):
    """SAM's mask decoder as far as its two-way blocks, without prompts.

    L1 is the image embedding itself and L2 the image tokens after both blocks: so the authors' code has it, while the
    paper speaks of the outputs of the first and the second block (`after_blocks`). The defaults are SAM's sizes.
    """

    def __init__(
        self, *, channels: int = EMBEDDING_CHANNELS, mlp_dim: int = DECODER_MLP_DIM, blocks: int = DECODER_BLOCKS
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth=blocks, embedding_dim=channels, mlp_dim=mlp_dim, num_heads=8)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(4, channels)
        self.no_mask_embed = nn.Embedding(1, channels)
        self.positional_encoding = PositionEncoding(channels // 2)

    @property
    def channels(self) -> int:
        """Of L1 and L2."""
        return self.no_mask_embed.embedding_dim

    def tokens_and_keys(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            embedding: (N, C, h, w) of an image encoder.
        Returns:
            The five output tokens (N, 5, C), of which only masks are made, and the image tokens (N, C, h, w).
        """
        batch, channels, height, width = embedding.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        queries, keys = self.transformer(
            embedding + self.no_mask_embed.weight.reshape(1, channels, 1, 1),
            self.positional_encoding((height, width)).unsqueeze(0),
            tokens.expand(batch, -1, -1),
        )
        return queries, keys.transpose(1, 2).reshape(batch, channels, height, width)

    def after_blocks(self, embedding: Tensor, count: int) -> Features:
        """
        Args:
            embedding: (N, C, h, w) of an image encoder.
        Returns:
            The image tokens after each of the first `count` blocks, each (N, C, h, w).
        """
        batch, channels, height, width = embedding.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        positions = self.positional_encoding((height, width)).flatten(1).T.unsqueeze(0)
        keys = (embedding + self.no_mask_embed.weight.reshape(1, channels, 1, 1)).flatten(2).transpose(1, 2)
        queries, after = tokens, []
        for block in self.transformer.layers[:count]:
            queries, keys = block(queries=queries, keys=keys, query_pe=tokens, key_pe=positions)
            after.append(keys.transpose(1, 2).reshape(embedding.shape))
        return tuple(after)

    def forward(self, embedding: Tensor) -> Features:
        """
        Args:
            embedding: (N, C, h, w) of an image encoder.
        Returns:
            L1 and L2, each (N, C, h, w).
        """
        return embedding, self.tokens_and_keys(embedding)[1]


def decoder_of(architecture: Architecture, *, blocks: int = DECODER_BLOCKS) -> TwoWayDecoder:
    """A decoder with random weights, as wide as `architecture` wants it."""
    return TwoWayDecoder(channels=architecture.embedding_channels, mlp_dim=architecture.decoder_mlp_dim, blocks=blocks)


def decode(decoder: TwoWayDecoder | None, embedding: Tensor, layers: Layers) -> Features:
    """The features that the design compares; L1 needs no decoder.

    Args:
        embedding: (N, C, h, w) of an image encoder.
    Returns:
        One or two of L1, L2 and what comes out of the blocks, each (N, C, h, w).
    """
    if decoder is None or layers == "l1":
        return (embedding,)
    if layers in ("block1", "block1+block2"):
        return decoder.after_blocks(embedding, 1 if layers == "block1" else 2)
    features: Features = decoder(embedding)
    return features if layers == "l1+l2" else features[1:]
