"""Five whole training steps beside those of the authors' modules, from the same weights, pictures and teacher."""

from __future__ import annotations

import copy
import json
import zlib

import numpy as np
import pytest
import torch

import train.objective
from stlm_edge.network.inference import prepare
from stlm_edge.spec import ModelSpec
from tests.conftest import GOLDEN
from train.config import from_dict, load_preset
from train.data import Batch
from train.objective import Objective
from train.teaching.teacher import Taught
from train.training import Stage, begin, enter

SIZE = (128, 128)


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"five steps/{name}".encode()))).random(shape)


def prepare_in_double(images: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """`prepare`, whose constants are float32, as the authors' are."""
    mean, std = (torch.tensor(value).double().reshape(1, 3, 1, 1) for value in (spec.pixel_mean, spec.pixel_std))
    pixels = (images.permute(0, 3, 1, 2).flip(1).double() - mean) / std
    assert (pixels - prepare(images, spec)).abs().max() < 1e-6
    return pixels


@pytest.mark.heavy
def test_five_steps_are_the_authors(formula_network, monkeypatch):
    golden = json.loads((GOLDEN / "five_steps.json").read_text())
    config = from_dict(load_preset("paper") | {"image_size": SIZE})
    spec = ModelSpec("none", "stlm", SIZE, SIZE, weights_sha256="")
    network = copy.deepcopy(formula_network).double()
    objective = Objective(network, config, spec=spec, teacher_channels=256)
    monkeypatch.setattr(train.objective, "prepare", prepare_in_double)
    training = begin(objective, config, steps_per_epoch=5)
    pictures = (256 * uniform("pictures", (5, 2, *SIZE, 3))).astype(np.uint8)[..., ::-1].copy()
    masks = np.kron(uniform("masks", (5, 2, 1, 4, 4)) < 0.3, np.ones((32, 32)))
    features = (2 * uniform("teacher", (5, 2, 2, 2, 256, 8, 8)) - 1).astype(np.float32)
    decoder, aggregation = network.decoder, network.feature_aggregation
    watched = {
        "plain first convolution": network.plain.backbone.patch_embed.conv1.conv.weight,
        "plain last bias table": network.plain.backbone.stages[3].blocks[1].attn.attention_biases,
        "denoising neck": network.denoising.neck[2].weight,
        "decoder tokens": decoder.mask_tokens.weight,
        "decoder block 1 mlp": decoder.transformer.layers[1].mlp.lin1.weight,
        "no mask": decoder.no_mask_embed.weight,
        "aggregation first": aggregation.res[0].conv1.weight,
        "aggregation out": aggregation.head.out.weight,
        "plain running mean": network.plain.backbone.patch_embed.conv1.bn.running_mean,
        "aggregation running variance": aggregation.res[0].norm1.running_var,
    }
    assert len(golden["steps"]) == 5
    for number, wanted in enumerate(golden["steps"]):
        enter(Stage.ALL, objective)
        given = torch.from_numpy(pictures[number])
        batch = Batch(given, given, torch.from_numpy(masks[number]), (True, True), (None, None))
        plain, denoising = (tuple(torch.from_numpy(layer).double() for layer in stream) for stream in features[number])
        terms = objective(batch, Taught(plain, denoising))
        terms.total.backward()
        training.move()
        assert terms.values().tolist() == pytest.approx(wanted["losses"], rel=1e-6)
        assert set(watched) == set(wanted["weights"])
        for name, weight in watched.items():
            total, norm = wanted["weights"][name]
            assert weight.norm().item() == pytest.approx(norm, rel=1e-6), name
            assert weight.sum().item() == pytest.approx(total, abs=1e-5 * norm), name
