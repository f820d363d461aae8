"""The rewritten blocks of the encoder compute what timm's do."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models.tiny_vit import TinyVitBlock
from torch import nn

from export.graph.folding import FoldedBlock, ShiftedSum, WidePointwise


@torch.no_grad()
@pytest.mark.parametrize("width, heads", [(64, 2), (320, 10)], ids=["narrow", "wide"])
@pytest.mark.parametrize("size", [(7, 7), (9, 15)], ids=["one window", "padded windows"])
def test_block_computes_what_timms_does(width, heads, size):
    torch.manual_seed(0)
    block = TinyVitBlock(width, heads, window_size=7).eval()
    for parameter in block.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))  # biases and norms too, which start as zeros and ones
    folded = FoldedBlock(copy.deepcopy(block)).eval()
    x = torch.randn(2, width, *size)
    wanted = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(folded(x), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_attention_without_biases_gives_them_to_padded_pixels_too():
    torch.manual_seed(0)
    block = TinyVitBlock(64, 2, window_size=7).eval()
    block.attn.qkv.bias.copy_(3 * torch.randn_like(block.attn.qkv.bias))
    folded = FoldedBlock(copy.deepcopy(block)).eval()
    assert folded.attn.q.bias is None
    x = torch.zeros(1, 64, 3, 3)  # of 49 pixels in the window, 40 are padding
    wanted = block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(folded(x), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sum_of_shifted_products_is_the_convolution_for_each_channel():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(ShiftedSum(conv)(x), conv(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_wide_pointwise_is_the_convolution():
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 320, 1)
    x = torch.randn(2, 256, 3, 5)
    torch.testing.assert_close(WidePointwise(conv)(x), conv(x), rtol=1e-4, atol=1e-5)
