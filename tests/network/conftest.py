"""Networks with the formula weights of the golden fixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stlm_edge.network.decoder import TwoWayDecoder
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.feature_aggregation import FeatureAggregation
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import timm_name


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def load(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load everything but batch counters, and nothing else."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


def decoder_state(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    named = {}
    for name, tensor in tensors(arrays).items():
        if name == "positional_encoding_gaussian_matrix":
            named[f"positional_encoding.{name}"] = tensor
        elif name.startswith(("layers.", "final_", "norm_final")):
            named[f"transformer.{name}"] = tensor
        else:
            named[name] = tensor
    return named


@pytest.fixture(scope="session")
def formula_decoder(formula_weights) -> TwoWayDecoder:
    decoder = TwoWayDecoder()
    load(decoder, decoder_state(formula_weights("decoder", "decoder/")))
    return decoder.eval()


@pytest.fixture(scope="session")
def formula_aggregation(formula_weights) -> FeatureAggregation:
    module = FeatureAggregation()
    load(module, tensors(formula_weights("feature_aggregation", "fa/")))
    return module.eval()


@pytest.fixture(scope="session")
def formula_network(formula_weights, formula_decoder, formula_aggregation) -> Stlm:
    """The whole network of the end-to-end fixture."""
    network = Stlm(ARCHITECTURES["stlm"])
    plain = formula_weights("encoder", "encoder_plain/")
    other = formula_weights("encoder", "encoder_denoising/")
    denoising = {name: 0.95 * plain[name] + 0.05 * other[name] for name in plain}
    load(network.plain, {timm_name(name): tensor for name, tensor in tensors(plain).items()})
    load(network.denoising, {timm_name(name): tensor for name, tensor in tensors(denoising).items()})
    network.decoder = formula_decoder
    network.feature_aggregation = formula_aggregation
    return network.eval()
