"""Settings that train in seconds, a checkpoint of an untrained network, a whole run and a killed one."""

from __future__ import annotations

import dataclasses
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
from train.fit import fit

from .killed import killed_after

QUICK = {"image_size": (64, 64), "epochs": 1, "batch_size": 2}


def settings() -> TrainConfig:
    return from_dict(load_preset(TWO_STREAMS) | QUICK)


@pytest.fixture
def quick() -> TrainConfig:
    return settings()


EPOCHS = 3
"""Of `long`, with two steps each, since two of the plate's six pictures are held out or left over."""
LONG = dataclasses.replace(settings(), epochs=EPOCHS, seed=3)


@pytest.fixture
def long() -> TrainConfig:
    return LONG


@pytest.fixture(scope="session")
def whole_run(make_once, plate) -> Path:
    """A run of `long` from its beginning to its end; not to be changed."""
    return make_once("whole", lambda folder: fit(LONG, data=plate, category="plate", textures=None, output=folder))


@pytest.fixture(scope="session")
def killed_run(make_once, plate) -> Path:
    """A run of `long`, killed in its second epoch; not to be changed."""

    def begin(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            killed_after(LONG, 1, patch, plate=plate, output=folder)

    return make_once("killed", begin)


@pytest.fixture
def begun(killed_run, tmp_path) -> Path:
    """A copy of it, to be changed and gone on with."""
    return Path(shutil.copytree(killed_run, tmp_path / "run"))


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
