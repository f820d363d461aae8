"""A tiny data set in MVTec AD's layout, and settings that train in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stlm_edge.network.checkpoint import Checkpoint, save
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.plate.part import write_dataset
from stlm_edge.spec import ModelSpec, Threshold
from train.config import TrainConfig, from_dict, load_preset

QUICK = {"image_size": (64, 64), "epochs": 1, "batch_size": 2}


@pytest.fixture(scope="session")
def plate(tmp_path_factory) -> Path:
    """`plate` with 6 good training pictures, 2 good and 4 defective test pictures; returns the folder above it."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, train=6, test_good=2, test_defective_per_kind=1, size=(96, 96), seed=0, category="plate")
    return root


@pytest.fixture
def quick() -> TrainConfig:
    return from_dict(load_preset("cpu") | QUICK)


@pytest.fixture
def checkpoint(tmp_path, quick) -> Path:
    """A checkpoint of an untrained narrow network with a threshold."""
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"]).eval()
    spec = ModelSpec(
        category="plate",
        architecture="stlm-tiny",
        input_size=(64, 64),
        map_size=(64, 64),
        weights_sha256=fingerprint(network.state_dict()),
        threshold=Threshold(value=0.5, method="quantile", images=2, false_alarm_rate=1 / 3),
    )
    path = tmp_path / "model.safetensors"
    save(path, Checkpoint(network, spec, quick.to_dict()))
    return path
