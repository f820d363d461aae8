"""The network in the manner of the authors' published code, to compare with. What it computes is the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stlm_edge.errors import ConfigError
from stlm_edge.network.comparison import StreamFeatures
from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.inference import InferencePath, prepare


class AuthorsWay(nn.Module):
    """From pixels to a map and a score: one stream after the other, the decoder asked for each picture by itself."""

    def __init__(self, inspector: InferencePath) -> None:
        """Raises `ConfigError` for a network that is not the paper's design: the authors published no other."""
        super().__init__()
        self.inspector = inspector
        differences = inspector.network.design.differences
        if differences:
            raise ConfigError(
                f"found a network with{differences[1:]}, expected the paper's design, which is all that the authors' "
                "way is known for; measure the way 'batched' instead"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `InferencePath.forward`."""
        network = self.inspector.network
        assert network.decoder is not None
        pixels = prepare(images, self.inspector.spec).contiguous()  # theirs come so from the loader
        features = StreamFeatures(
            plain=decode_each(network.decoder, network.plain(pixels)),
            denoising=decode_each(network.decoder, network.denoising(pixels)),
        )
        return self.inspector.finish(torch.sigmoid(network.aggregate(features)))


def decode_each(decoder: TwoWayDecoder, embeddings: Tensor) -> Features:
    """L1 and L2, the decoder called picture by picture."""
    pictures = [decoder(embedding.unsqueeze(0)) for embedding in embeddings]
    return tuple(torch.cat(layer) for layer in zip(*pictures, strict=True))
