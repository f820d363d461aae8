"""The encoder and other modules of the trained network rewritten with the same answers, in evaluation mode only.

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

from typing import Literal, cast

import torch
from segment_anything.modeling.common import LayerNorm2d
from timm.models.tiny_vit import Attention, NormMlp, PatchMerging, TinyVit, TinyVitBlock, TinyVitStage
from timm.models.tiny_vit import ConvNorm as BackboneConvNorm
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stlm_edge.network.encoder import ImageEncoder
from stlm_edge.network.feature_aggregation import ConvNorm, Head, ResidualBlock

LocalConv = Literal["convolution", "sums"]
"""How the blocks' convolutions for each channel are written."""

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


@torch.no_grad()
def fold_encoder(encoder: ImageEncoder, *, local_conv: LocalConv = "convolution") -> None:
    """Rewrite `encoder`, whose batch normalisations are folded already, in place.

    Args:
        local_conv: `sums` of shifted products for the blocks' convolutions, see `ShiftedSum`.
    """
    backbone = cast(TinyVit, encoder.backbone)
    for index, stage in enumerate(backbone.stages):
        if isinstance(stage, TinyVitStage):
            backbone.stages[index] = folded = FoldedStage(stage)
            if local_conv == "sums":
                for block in folded.blocks:
                    cast(FoldedBlock, block).sum_locally()
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
        self.local_conv: nn.Module = block.local_conv
        self.mlp = FoldedMlp(block.mlp)

    def sum_locally(self) -> None:
        """Write the convolution for each channel as a `ShiftedSum`, where that saves copies."""
        conv = cast(nn.Conv2d, self.local_conv.conv)
        if conv.in_channels < _WIDE:
            self.local_conv = ShiftedSum(conv)

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


class ShiftedSum(nn.Module):
    """A convolution for each channel, 3 x 3, as a sum of nine shifted products.

    TensorRT-RTX makes one kernel of it, the residual and the cut windows before it and the normalisation behind it, of
    which the convolution would be a second and the normalisation a third. It does so with the channels last, and in
    float32, which costs nothing within a kernel (`half` keeps these sums). A processor is much slower at it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.register_buffer("weight", conv.weight.flatten(1).T.contiguous())
        self.register_buffer("bias", cast(Tensor, conv.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        height, width = x.shape[2:]
        bordered = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        total = self.bias
        for index, weight in enumerate(self.weight):
            row, column = divmod(index, 3)
            total = total + bordered[:, row : row + height, column : column + width] * weight
        return total.permute(0, 3, 1, 2)


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
