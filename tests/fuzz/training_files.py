"""What training writes and reads: checkpoints, presets, runs, cells of a grid, remembered features.

Heavy imports stand in functions: a worker loads what its targets need.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from pathlib import Path
from typing import Any

from stlm_edge.errors import StlmError
from stlm_edge.seal import SEAL, seal_of, sealed
from tests.settings import TWO_STREAMS

from .mutations import of_object, write
from .target import Files, saved


@functools.cache
def small_network() -> Any:
    from stlm_edge.network.encoder import ARCHITECTURES
    from stlm_edge.network.stlm import Stlm

    return Stlm(ARCHITECTURES["stlm-tiny"]).eval()


def checkpoint_files() -> Files:
    from stlm_edge.network.checkpoint import Checkpoint, save
    from stlm_edge.network.weights import fingerprint
    from stlm_edge.spec import ModelSpec, Threshold
    from train.config import TrainConfig

    network = small_network()
    spec = ModelSpec(
        "plate", "stlm-tiny", (64, 64), (64, 64), fingerprint(network.state_dict()), Threshold(0.5, "f1", 9)
    )
    config = TrainConfig(architecture="stlm-tiny", image_size=(64, 64)).to_dict()
    return saved(lambda folder: save(folder / "m.safetensors", Checkpoint(network, spec, config)))


def read_checkpoint(folder: Path) -> object:
    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.weights import fingerprint
    from train.config import from_dict

    loaded = load(folder / "m.safetensors")
    return loaded.spec, from_dict(loaded.config), fingerprint(loaded.network.state_dict())


def header_altered(content: bytes, rng: random.Random) -> bytes:
    """Of a safetensors file: its header is JSON, behind eight bytes of its length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = rng.choice(["spec", "config", "design", "tensors", "tensors"])
    if entry == "tensors":
        header = of_object(header, rng)
    else:
        metadata = header["__metadata__"]
        metadata[entry] = write(of_object(json.loads(metadata[entry]), rng)).decode()
        metadata.pop(SEAL)
        metadata[SEAL] = seal_of(metadata)
    written = write(header)
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def history_file() -> Files:
    from train.evaluation import Scores
    from train.on_test import HISTORY_NAME, MeasuredEpoch

    scores = Scores(6, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
    rows = [MeasuredEpoch(epoch, 5, (1024, 1024), "0" * 64, scores) for epoch in (5, 10, 12)]
    return {HISTORY_NAME: "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows).encode()}


def read_test_history(folder: Path) -> object:
    from train.on_test import HISTORY_NAME, read_history

    return read_history(folder / HISTORY_NAME)


def preset_file() -> Files:
    from train.config import PRESETS

    return {"p.yaml": (PRESETS / "cpu.yaml").read_bytes()}


def read_preset(folder: Path) -> object:
    from train.config import from_dict, load_preset

    return from_dict(load_preset(str(folder / "p.yaml")))


def run_files() -> Files:
    import torch

    from stlm_edge.datasets.parts import Parts
    from train.config import TrainConfig
    from train.record import Pictures, Sources, write_record

    sources, pictures = Sources(Path("/data"), "plate", None), Pictures(6, "0" * 64)
    return saved(
        lambda folder: write_record(
            folder,
            TrainConfig(),
            sources,
            pictures=pictures,
            parts=Parts.one_by_one(6, how="none looks nearly the same as another"),
            taught_by="random",
            run_id="0" * 32,
            device=torch.device("cpu"),
            processes=1,
        )
    )


def read_run(folder: Path) -> object:
    from train.record import read_record

    return read_record(folder)


@functools.cache
def small_objective() -> Any:
    from stlm_edge.spec import ModelSpec
    from train.config import from_dict, load_preset
    from train.objective import Objective

    config = from_dict(
        load_preset(TWO_STREAMS) | {"image_size": [64, 64], "teacher": "none", "initial_weights": "random"}
    )
    spec = ModelSpec("plate", "stlm-tiny", (64, 64), (64, 64), "")
    return Objective(small_network(), config, spec=spec, teacher_channels=64), config


def state_file() -> Files:
    from train.training import EpochRecord, begin

    training = begin(*small_objective(), steps_per_epoch=2, run_id="a")
    for parameter in training.objective.parameters():
        parameter.grad = parameter.detach() * 0
    training.move()
    training.epoch, training.history = 1, [EpochRecord(1, 2.0, 2.0, 1.0, pictures_per_s=5.0, memory_gb=0.5)]
    return saved(lambda folder: training.save(folder / "state.pt"))


def read_state(folder: Path) -> object:
    from stlm_edge.network.weights import fingerprint
    from train.training import begin

    training = begin(*small_objective(), steps_per_epoch=2, run_id="a")
    training.restore(folder / "state.pt")
    return training.epoch, fingerprint(training.objective.state_dict())


GRID = "cpu/plate/seed-0"


def grid_files() -> Files:
    scores = {"image_auroc": 0.9, "image_ap": 0.8, "pixel_auroc": None, "images": 3.0}
    cell = {"preset": "cpu", "category": "plate", "seed": 0, "data": "data", "settings": {}}
    measured = {"overall": scores, "tlm_only": {"overall": scores}}
    measured["best_on_test"] = {"epoch": 5, "every": 5, "metrics": scores}
    made = {"device": "cpu", "date": "2026-11-29", "textures": "dtd", "versions": {"torch": None}, "git": None}
    return {
        f"{GRID}/grid.json": write(sealed(cell)),
        f"{GRID}/evaluation.json": write(sealed(measured)),
        f"{GRID}/run.json": write(made),
    }


def report_grid(folder: Path) -> str:
    from train.paper.report import text
    from train.paper.results import read_records

    return text(read_records(folder))


def feature_file() -> Files:
    import torch

    from train.teaching.feature_cache import FeatureCache

    features = (torch.arange(600.0).reshape(6, 10, 10), torch.ones(4, 5, 5))
    return saved(lambda folder: FeatureCache(folder, "t", limit_bytes=1 << 20).put("key", features))


def remembered(folder: Path) -> object:
    import torch

    from train.teaching.feature_cache import FeatureCache

    found = FeatureCache(folder, "t", limit_bytes=1 << 20).get("key", torch.device("cpu"))
    if found is None:
        raise StlmError("computed anew")
    return [feature.tolist() for feature in found]
