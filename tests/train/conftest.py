"""Settings that train in seconds, and a checkpoint of an untrained network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from stlm_edge.network.checkpoint import Checkpoint, save
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.spec import ModelSpec, Threshold
from tests.settings import TWO_STREAMS
from train.config import TrainConfig, from_dict, load_preset

QUICK = {"image_size": (64, 64), "epochs": 1, "batch_size": 2}


def settings() -> TrainConfig:
    return from_dict(load_preset(TWO_STREAMS) | QUICK)


@pytest.fixture
def quick() -> TrainConfig:
    return settings()


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
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
    path = tmp_path_factory.mktemp("untrained") / "model.safetensors"
    save(path, Checkpoint(network, spec, settings().to_dict()))
    return path


@pytest.fixture
def checkpoint(untrained, tmp_path) -> Path:
    """A checkpoint of an untrained narrow network with a threshold."""
    return Path(shutil.copy(untrained, tmp_path))
