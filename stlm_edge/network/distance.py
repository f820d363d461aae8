"""The map that needs no feature aggregation: how far apart the two streams are ("TLM only")."""

from __future__ import annotations

import torch
from torch import Tensor

from stlm_edge.network.stlm import StreamFeatures, normalise


def tlm_map(features: StreamFeatures) -> Tensor:
    """The product over the layers of one minus the cosine of the two streams (the authors' training-free map).

    Returns:
        (N, 1, h, w) float32 in 0 … 4, up-sampled and scored like the anomaly map.
    """
    distances = [
        1 - (normalise(plain) * normalise(denoising)).sum(dim=1, keepdim=True)
        for plain, denoising in zip(features.plain, features.denoising, strict=True)
    ]
    return torch.stack(distances).prod(dim=0)
