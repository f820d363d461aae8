"""SAM's two-way transformer, shared by both streams (paper, 3.2.2 and figure 4 b)."""

from __future__ import annotations

import torch
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from segment_anything.modeling.transformer import TwoWayTransformer
from torch import Tensor, nn

from stlm_edge.network.encoder import EMBEDDING_CHANNELS

Features = tuple[Tensor, Tensor]
"""L1 and L2 of one stream, each (N, 256, h, w)."""


class TwoWayDecoder(nn.Module):
    """SAM's mask decoder as far as its two-way blocks, without prompts.

    L1 is the image embedding itself and L2 the image tokens after both blocks: so the authors' code has it, while the
    paper speaks of the outputs of the first and the second block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_CHANNELS, mlp_dim=2048, num_heads=8)
        self.iou_token = nn.Embedding(1, EMBEDDING_CHANNELS)
        self.mask_tokens = nn.Embedding(4, EMBEDDING_CHANNELS)
        self.no_mask_embed = nn.Embedding(1, EMBEDDING_CHANNELS)
        self.positional_encoding = PositionEmbeddingRandom(EMBEDDING_CHANNELS // 2)

    def forward(self, embedding: Tensor) -> Features:
        """
        Args:
            embedding: (N, 256, h, w) of an image encoder.
        Returns:
            L1 and L2, each (N, 256, h, w).
        """
        batch, channels, height, width = embedding.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        _, keys = self.transformer(
            embedding + self.no_mask_embed.weight.reshape(1, channels, 1, 1),
            self.positional_encoding((height, width)).unsqueeze(0),
            tokens.expand(batch, -1, -1),
        )
        return embedding, keys.transpose(1, 2).reshape(batch, channels, height, width)
