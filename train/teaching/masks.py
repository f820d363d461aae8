"""SAM's masks, for the ablation that distils them instead of features (paper, 4.4.9, figure 13 and table 9)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn

from stlm_edge.network.decoder import TwoWayDecoder

PREFIX = "mask_decoder."


class MaskHead(nn.Module):
    """What SAM's mask decoder has behind its two-way blocks: up-sampling, and one small network for each mask."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        complete = MaskDecoder(transformer_dim=channels, transformer=nn.Identity())
        self.output_upscaling = complete.output_upscaling
        self.output_hypernetworks_mlps = complete.output_hypernetworks_mlps

    def forward(self, decoder: TwoWayDecoder, embedding: Tensor) -> Tensor:
        """
        Args:
            embedding: (N, C, h, w) of an image encoder.
        Returns:
            (N, 4, 4 h, 4 w), logits of the four masks that SAM gives without a prompt.
        """
        queries, keys = decoder.tokens_and_keys(embedding)
        pixels = self.output_upscaling(keys)
        # Token 0 tells the quality of masks, which nobody asks for here.
        weights = [network(queries[:, 1 + index]) for index, network in enumerate(self.output_hypernetworks_mlps)]
        return torch.einsum("nmc,nchw->nmhw", torch.stack(weights, dim=1), pixels)


def mask_head_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors from the state dict of SAM or MobileSAM, under the names of `MaskHead`."""
    wanted = (f"{PREFIX}output_upscaling.", f"{PREFIX}output_hypernetworks_mlps.")
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(wanted)}
