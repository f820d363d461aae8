"""The decoder of the trained network with the same answers: what depends on parameters alone is computed once."""

from __future__ import annotations

import math

import torch
from segment_anything.modeling.transformer import Attention as TokenAttention
from segment_anything.modeling.transformer import TwoWayAttentionBlock
from torch import Tensor, nn

from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.design import Layers
from stlm_edge.spec import Size


class FoldedTokenAttention(nn.Module):
    """SAM's attention with the scale in the queries' weights; projections are called from outside."""

    def __init__(self, attention: TokenAttention) -> None:
        super().__init__()
        self.heads: int = attention.num_heads
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.out_proj = attention.out_proj
        with torch.no_grad():
            for parameter in (self.q_proj.weight, self.q_proj.bias):
                parameter.div_(math.sqrt(attention.internal_dim // attention.num_heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """
        Args:
            q: (N or 1, queries, internal width), projected; k, v likewise with as many rows as there are keys.
        Returns:
            (N, queries, C).
        """
        q, k, v = (part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (q, k, v))
        attended = (q @ k.transpose(2, 3)).softmax(dim=-1) @ v
        projected: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return projected


class FoldedTwoWayBlock(nn.Module):
    """One of SAM's two-way blocks, for tokens and positions that never change."""

    tokens: Tensor
    token_key: Tensor
    position_key: Tensor
    position_query: Tensor

    def __init__(self, block: TwoWayAttentionBlock, *, tokens: Tensor, positions: Tensor) -> None:
        """
        Args:
            tokens: (1, 5, C), added to the queries as their position.
            positions: (1, h * w, C), added to the image tokens.
        """
        super().__init__()
        self.to_image = FoldedTokenAttention(block.cross_attn_token_to_image)
        self.to_tokens = FoldedTokenAttention(block.cross_attn_image_to_token)
        self.norm2, self.mlp, self.norm3, self.norm4 = block.norm2, block.mlp, block.norm3, block.norm4
        self.register_buffer("tokens", tokens)
        self.register_buffer("token_key", tokens @ self.to_tokens.k_proj.weight.T)
        self.register_buffer("position_key", positions @ self.to_image.k_proj.weight.T)
        self.register_buffer("position_query", positions @ self.to_tokens.q_proj.weight.T)

    def asked(self, queries: Tensor) -> Tensor:
        """What `queries`, (N or 1, 5, C), ask of the image: (N or 1, 5, internal width)."""
        asked: Tensor = self.to_image.q_proj(queries + self.tokens)
        return asked

    def forward(self, queries: Tensor, keys: Tensor, *, asked: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            queries: (N or 1, 5, C), after their attention to themselves.
            keys: (N, h * w, C).
            asked: by `queries`; the first block's never change.
        Returns:
            Queries (N, 5, C) and keys (N, h * w, C).
        """
        to_image, to_tokens = self.to_image, self.to_tokens
        seen = to_image(
            asked,
            to_image.k_proj(keys) + self.position_key,
            to_image.v_proj(keys),
        )
        queries = self.norm2(queries + seen)
        queries = self.norm3(queries + self.mlp(queries))
        told = to_tokens(
            to_tokens.q_proj(keys) + self.position_query,
            to_tokens.k_proj(queries) + self.token_key,
            to_tokens.v_proj(queries),
        )
        return queries, self.norm4(keys + told)


class FoldedDecoder(nn.Module):
    """`TwoWayDecoder` for one size of embedding, giving what the design compares.

    The first attention among the tokens depends on parameters only, so its result is stored; the last attention and
    the last norm change the tokens only, which nobody looks at.
    """

    tokens: Tensor
    first_queries: Tensor
    first_asked: Tensor
    no_mask: Tensor

    @torch.no_grad()
    def __init__(self, decoder: TwoWayDecoder, grid: Size, layers: Layers) -> None:
        """
        Args:
            grid: (height, width) of the embedding.
            layers: not `l1`, which needs no decoder.
        """
        super().__init__()
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).unsqueeze(0)
        positions = decoder.positional_encoding(grid).flatten(1).T.unsqueeze(0)
        self.layers = layers
        first = decoder.transformer.layers[0]
        self.register_buffer("tokens", tokens)
        self.register_buffer("no_mask", decoder.no_mask_embed.weight.reshape(1, 1, -1))
        self.register_buffer("first_queries", first.norm1(first.self_attn(tokens, tokens, tokens)))
        self.first = FoldedTwoWayBlock(first, tokens=tokens, positions=positions)
        self.register_buffer("first_asked", self.first.asked(self.first_queries))
        self.second: FoldedTwoWayBlock | None = None
        if layers == "block1":
            return
        second = decoder.transformer.layers[1]
        self.among_tokens = FoldedTokenAttention(second.self_attn)
        self.norm1 = second.norm1
        self.second = FoldedTwoWayBlock(second, tokens=tokens, positions=positions)

    def forward(self, embedding: Tensor) -> Features:
        """See `stlm_edge.network.decoder.decode`."""
        keys = embedding.flatten(2).transpose(1, 2) + self.no_mask
        queries, keys = self.first(self.first_queries, keys, asked=self.first_asked)
        earlier: Features = (embedding,) if self.layers == "l1+l2" else ()
        if self.layers.startswith("block"):
            earlier = (keys.transpose(1, 2).reshape(embedding.shape),)
        if self.second is None:
            return earlier
        attention = self.among_tokens
        positioned = queries + self.tokens
        seen = attention(attention.q_proj(positioned), attention.k_proj(positioned), attention.v_proj(queries))
        queries = self.norm1(queries + seen)
        _, keys = self.second(queries, keys, asked=self.second.asked(queries))
        return *earlier, keys.transpose(1, 2).reshape(embedding.shape)
