"""How the two streams are compared: what the feature aggregation is given, and the map that needs none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stlm_edge.network.decoder import Features
from stlm_edge.network.design import Comparison

NORM_EPSILON = 1e-12


@dataclass(frozen=True)
class StreamFeatures:
    """What the two streams see: the features of each, layer by layer."""

    plain: Features
    denoising: Features


def in_full(values: Tensor) -> Tensor:
    """In float32, unless it is float64 already."""
    return values if values.dtype == torch.float64 else values.float()


def normalise(features: Tensor) -> Tensor:
    """Divide by the L2 norm over channels, at least 1e-12; in float32, where 1e-12 is not yet zero.

    The authors' code adds 1e-12 to the norm, which is the same to rounding; but ONNX exporters take that for adding
    nothing, and features of zero would become NaN.
    """
    features = in_full(features)
    norm = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    normalised: Tensor = features / norm.clamp_min(NORM_EPSILON)
    return normalised


def compare(features: StreamFeatures, comparison: Comparison) -> Tensor:
    """What the feature aggregation is given (equation 2 and table 6), layer after layer along the channels.

    All ways start from features of length one: the cosine loss leaves lengths free, so they mean nothing.

    * `product`, the paper's: the negative element-wise product. The authors' code has the minus, the paper's
      equation 2 has not; trained weights fit one sign only.
    * `cosine`: one minus its sum over channels.
    * `subtraction`: the denoising stream's features, which are those of a normal picture, and beside them their
      element-wise distance to the plain stream's (section 4.4.3, after Prototypical Residual Networks).
    * `concat`: the features of both streams.

    Returns:
        (N, layers * comparison_channels(...), h, w).
    """
    compared = []
    for plain, denoising in zip(features.plain, features.denoising, strict=True):
        first, second = normalise(plain), normalise(denoising)
        if comparison == "product":
            compared.append(-first * second)
        elif comparison == "cosine":
            compared.append(1 - (first * second).sum(dim=1, keepdim=True))
        elif comparison == "subtraction":
            compared += [second, (first - second).abs()]
        else:
            compared += [first, second]
    return torch.cat(compared, dim=1)


def comparison_channels(comparison: Comparison, channels: int) -> int:
    """Channels that `compare` makes of one layer with `channels`."""
    return {"product": channels, "cosine": 1, "subtraction": 2 * channels, "concat": 2 * channels}[comparison]


def tlm_map(features: StreamFeatures) -> Tensor:
    """The map without feature aggregation: the product over the layers of one minus the cosine (as in STPM).

    Returns:
        (N, 1, h, w) float32 in 0 … 4; 0 … 2 where one layer is compared.
    """
    distances = [
        1 - (normalise(plain) * normalise(denoising)).sum(dim=1, keepdim=True)
        for plain, denoising in zip(features.plain, features.denoising, strict=True)
    ]
    return torch.stack(distances).prod(dim=0)
