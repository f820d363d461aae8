"""Modules of the trained network rewritten with the same answers: constants computed once, and in evaluation mode only.

The encoder gets the form that TensorRT runs with the fewest kernels and the fewest bytes. What the compiler's log
taught (`stlm report`):

* Windows are cut with the pixels first, (pixels, windows, C), so that the heads of all windows are one batch without a
  copy; windows first, queries, keys and values are copied apart in a kernel of their own.
* Their projections have no biases, so that they become one product that writes what the attention reads.
* Between the operations everything stays (N, C, H, W), as convolutions have it: a permuted residual is a copy.
* A 1 x 1 convolution takes the activation or the residual after it into its own kernel, but a wide one is turned into
  a product in another layout, with transposes around it; there, a linear layer is better.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.transformer import Attention as TokenAttention
from segment_anything.modeling.transformer import TwoWayAttentionBlock
from timm.models.tiny_vit import Attention, NormMlp, PatchMerging, TinyVit, TinyVitBlock, TinyVitStage
from timm.models.tiny_vit import ConvNorm as BackboneConvNorm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.encoder import ImageEncoder
from stlm_edge.network.feature_aggregation import ConvNorm, Head, ResidualBlock
from stlm_edge.spec import Size

_NORMALISED = {
    BackboneConvNorm: (("conv", "bn"),),
    ConvNorm: (("conv", "norm"),),
    Head: (("conv", "norm"),),
    ResidualBlock: (("conv1", "norm1"), ("conv2", "norm2")),
}
"""Where a convolution is followed by batch normalisation: the names of both in their parent."""


_WIDE = 256
"""Channels that both sides of a 1 x 1 convolution must have for TensorRT to make a product of it."""

_SHIFT = 0.25
"""What is added to normalised values where a bias is to be absorbed; any value that half precision adds well."""


def fold_batch_norms(network: nn.Module) -> None:
    """Put each batch normalisation of `network` into the convolution before it."""
    for module in network.modules():
        for conv, norm in _NORMALISED.get(type(module), ()):
            fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
            setattr(module, conv, fused)
            setattr(module, norm, nn.Identity())


@torch.no_grad()
def fold_pixels(encoder: ImageEncoder, *, mean: Tensor, std: Tensor) -> None:
    """Let the first convolution take BGR pixels minus their mean in whole grey levels, with a border of its own.

    Half precision has all whole numbers up to 2048, but of 0 … 255 minus a fraction it keeps eighths; that would be the
    largest error of the whole network.

    Args:
        mean, std: of the pixels, (3,), BGR.
    """
    conv = cast(nn.Conv2d, encoder.backbone.patch_embed.conv1.conv)  # type: ignore[union-attr]  # timm has no types
    conv.weight.copy_(conv.weight.flip(1) / std.reshape(1, 3, 1, 1))
    cast(nn.Parameter, conv.bias).add_(conv.weight.sum(dim=(2, 3)) @ (mean.round() - mean))
    conv.padding = (0, 0)


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
    """`TwoWayDecoder` for one size of embedding.

    The first attention among the tokens depends on parameters only, so its result is stored; the last attention and
    the last norm change the tokens only, which nobody looks at.
    """

    tokens: Tensor
    first_queries: Tensor
    first_asked: Tensor
    no_mask: Tensor

    @torch.no_grad()
    def __init__(self, decoder: TwoWayDecoder, grid: Size) -> None:
        """
        Args:
            grid: (height, width) of the embedding.
        """
        super().__init__()
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).unsqueeze(0)
        positions = decoder.positional_encoding(grid).flatten(1).T.unsqueeze(0)
        first, second = decoder.transformer.layers
        self.register_buffer("tokens", tokens)
        self.register_buffer("no_mask", decoder.no_mask_embed.weight.reshape(1, 1, -1))
        self.register_buffer("first_queries", first.norm1(first.self_attn(tokens, tokens, tokens)))
        self.first = FoldedTwoWayBlock(first, tokens=tokens, positions=positions)
        self.register_buffer("first_asked", self.first.asked(self.first_queries))
        self.among_tokens = FoldedTokenAttention(second.self_attn)
        self.norm1 = second.norm1
        self.second = FoldedTwoWayBlock(second, tokens=tokens, positions=positions)

    def forward(self, embedding: Tensor) -> Features:
        """See `TwoWayDecoder.forward`."""
        keys = embedding.flatten(2).transpose(1, 2) + self.no_mask
        queries, keys = self.first(self.first_queries, keys, asked=self.first_asked)
        attention = self.among_tokens
        positioned = queries + self.tokens
        seen = attention(attention.q_proj(positioned), attention.k_proj(positioned), attention.v_proj(queries))
        queries = self.norm1(queries + seen)
        _, keys = self.second(queries, keys, asked=self.second.asked(queries))
        return embedding, keys.transpose(1, 2).reshape(embedding.shape)


@torch.no_grad()
def fold_encoder(encoder: ImageEncoder) -> None:
    """Rewrite `encoder`, whose batch normalisations are folded already, in place."""
    backbone = cast(TinyVit, encoder.backbone)
    for index, stage in enumerate(backbone.stages):
        if isinstance(stage, TinyVitStage):
            backbone.stages[index] = FoldedStage(stage)
    for name, layer in list(encoder.neck.named_children()):
        if isinstance(layer, LayerNorm2d):
            setattr(encoder.neck, name, ChannelNorm(layer))
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            setattr(encoder.neck, name, _pointwise(layer))


class FoldedStage(nn.Module):
    """A stage of TinyViT with attention, from (N, C, H, W) to (N, C', H', W')."""

    def __init__(self, stage: TinyVitStage) -> None:
        super().__init__()
        self.downsample = cast(PatchMerging, stage.downsample)
        self.downsample.conv3.add_module("conv", _pointwise(self.downsample.conv3.conv))
        self.blocks = nn.Sequential(*(FoldedBlock(cast(TinyVitBlock, block)) for block in stage.blocks))

    def forward(self, x: Tensor) -> Tensor:
        blocks: Tensor = self.blocks(self.downsample(x))
        return blocks


class FoldedBlock(nn.Module):
    """TinyViT's block: attention within windows, a convolution for each channel, an MLP."""

    def __init__(self, block: TinyVitBlock) -> None:
        super().__init__()
        self.side: int = block.window_size
        self.attn = FoldedWindowAttention(block.attn)
        self.local_conv = block.local_conv
        self.mlp = FoldedMlp(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape; sides that windows do not divide are padded with zeros."""
        batch, channels, height, width = x.shape
        side = self.side
        rows, columns = -(-height // side), -(-width // side)
        pixels = x.permute(0, 2, 3, 1)
        if (rows * side, columns * side) != (height, width):
            pixels = F.pad(pixels, (0, 0, 0, columns * side - width, 0, rows * side - height))
        windows = pixels.reshape(batch, rows, side, columns, side, channels).permute(2, 4, 0, 1, 3, 5)
        attended = self.attn(windows.reshape(side * side, batch * rows * columns, channels))
        pixels = attended.reshape(side, side, batch, rows, columns, channels).permute(2, 5, 3, 0, 4, 1)
        x = x + pixels.reshape(batch, channels, rows * side, columns * side)[:, :, :height, :width]
        mixed: Tensor = self.mlp(self.local_conv(x))
        return mixed


class FoldedWindowAttention(nn.Module):
    """TinyViT's attention within windows, with a constant table of additive biases and the scale in the queries."""

    bias: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        norm, qkv = attention.norm, attention.qkv
        self.heads: int = attention.num_heads
        self.norm = nn.LayerNorm(qkv.in_features, eps=norm.eps)
        self.norm.bias.fill_(_SHIFT)
        widths = [attention.key_dim, attention.key_dim, attention.val_dim]
        weight = (qkv.weight * norm.weight).view(self.heads, sum(widths), -1)
        bias = (qkv.bias + qkv.weight @ norm.bias).view(self.heads, -1)
        (q, k, v), biases = torch.split(weight, widths, dim=1), torch.split(bias, widths, dim=1)
        self.q = _absorbing(q * attention.scale, biases[0] * attention.scale)
        self.k, self.v = _absorbing(k, biases[1]), _absorbing(v, biases[2])
        self.proj = attention.proj
        self.register_buffer("bias", attention.get_attention_biases(attention.attention_biases.device).detach())

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (pixels, windows, C).
        Returns:
            The same shape.
        """
        pixels, windows, _ = x.shape
        x = self.norm(x)
        q, k, v = (
            projection(x).reshape(pixels, windows * self.heads, -1).transpose(0, 1)
            for projection in (self.q, self.k, self.v)
        )
        weights = (q @ k.transpose(1, 2)).reshape(windows, self.heads, pixels, pixels) + self.bias
        weights = weights.softmax(dim=-1).reshape(windows * self.heads, pixels, pixels)
        attended: Tensor = self.proj((weights @ v).transpose(0, 1).reshape(pixels, windows, -1))
        return attended


class FoldedMlp(nn.Module):
    """TinyViT's MLP and the residual around it; the norm's scale and bias are in the first layer."""

    def __init__(self, mlp: NormMlp) -> None:
        super().__init__()
        norm = cast(nn.LayerNorm, mlp.norm)
        self.norm = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
        mlp.fc1.bias.add_(mlp.fc1.weight @ norm.bias)
        mlp.fc1.weight.mul_(norm.weight)
        self.wide = mlp.fc1.in_features >= _WIDE
        self.fc1: nn.Module = mlp.fc1 if self.wide else _as_convolution(mlp.fc1)
        self.act = mlp.act
        self.fc2: nn.Module = mlp.fc2 if self.wide else _as_convolution(mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        # Rows, since a norm of four dimensions becomes two kernels with single precision between them.
        rows = self.norm(_rows(x))
        if self.wide:
            return x + _pictures(self.fc2(self.act(self.fc1(rows))), like=x)
        mixed: Tensor = x + self.fc2(self.act(self.fc1(_pictures(rows, like=x))))
        return mixed


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (N, C, H, W): one operation that TensorRT knows, of SAM's six."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return _pictures(F.layer_norm(_rows(x), self.weight.shape, self.weight, self.bias, self.eps), like=x)


class WidePointwise(nn.Module):
    """A 1 x 1 convolution as a linear layer."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.flatten(1), requires_grad=False), conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return _pictures(F.linear(_rows(x), self.weight, self.bias), like=x)


def _pointwise(conv: nn.Conv2d) -> nn.Module:
    """A 1 x 1 convolution in the form that needs no transposes."""
    return WidePointwise(conv) if min(conv.in_channels, conv.out_channels) >= _WIDE else conv


def _absorbing(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer without a bias that gives `weight @ x + bias` when it gets x + `_SHIFT`, if x sums to zero.

    So does every output x of a layer normalisation without scale and bias. What is added to the weights, the same in
    every column, therefore meets nothing in x; from the shift it makes the bias.

    Args:
        weight: (heads, d, C).
        bias: (heads, d).
    """
    weight, bias = weight.flatten(0, 1), bias.flatten()
    width = weight.shape[1]
    linear = nn.Linear(width, weight.shape[0], bias=False)
    linear.weight.copy_(weight + (bias / _SHIFT - weight.sum(dim=1)).unsqueeze(1) / width)
    return linear


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
    conv.weight.copy_(linear.weight[:, :, None, None])
    conv.bias = linear.bias
    return conv


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) → (N H W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _pictures(rows: Tensor, *, like: Tensor) -> Tensor:
    """(N H W, C) → (N, C, H, W), with N, H and W of `like`."""
    batch, _, height, width = like.shape
    return rows.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
