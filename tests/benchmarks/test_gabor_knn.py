from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from benchmarks.gabor import GaborMemory, features
from benchmarks.gabor_knn import main
from benchmarks.groups import groups_of
from benchmarks.record import read
from stlm_edge.errors import DataError
from stlm_edge.network.checkpoint import Checkpoint, save
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.spec import ModelSpec


def striped(rng: np.random.Generator, *, size=(180, 140), defect: bool = False, light: float = 1.0):
    """A ground surface: vertical stripes; the defect is a place where they lie across."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    grey = 90 + 30 * np.sin(columns * 0.9 + rng.uniform(0, 6)) + rng.normal(0, 4, size)
    mask = np.zeros(size, np.uint8)
    if defect:
        mask[60:110, 40:90] = 255
        grey = np.where(mask, 90 + 30 * np.sin(rows * 0.9), grey)
    image = np.clip(light * grey, 0, 255).astype(np.uint8)
    return np.repeat(image[:, :, None], 3, axis=2), mask


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    root = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    for folder in ("train/good", "test/good", "test/turned", "ground_truth/turned"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        cv2.imwrite(str(root / f"train/good/{index}.png"), striped(rng)[0])
        cv2.imwrite(str(root / f"test/good/{index}.png"), striped(rng, light=rng.uniform(0.5, 1.5))[0])
        image, mask = striped(rng, defect=True, light=rng.uniform(0.5, 1.5))
        cv2.imwrite(str(root / f"test/turned/{index}.png"), image)
        cv2.imwrite(str(root / f"ground_truth/turned/{index}_mask.png"), mask)
    lines = [f"test/{kind}/{index}.png,{kind}{index // 2}" for kind in ("good", "turned") for index in range(6)]
    (root / "tiles.csv").write_text("file,tile\n" + "\n".join(lines) + "\n")
    return root


def test_bar_finds_a_turned_grain_in_any_light(ground, tmp_path, capsys):
    record = tmp_path / "bar.json"
    arguments = ["--data", str(ground), "--tiles", str(ground / "tiles.csv"), "--resamples", "100"]
    assert main([*arguments, "--json", str(record)]) == 0
    assert "turned" in capsys.readouterr().out
    assert read(record).measures["bar image_auroc"].values == (100,)
    written = read(record).details
    assert written["models"] == []
    row = {entry["kind"]: entry for entry in written["rows"]}["all"]
    assert (row["images"], row["groups"]) == (12, 6)
    assert row["estimates"]["image_auroc"]["value"] == 1
    assert row["estimates"]["pixel_auroc"]["value"] > 0.97
    assert row["estimates"]["pixel_ap"]["low"] > 0.7
    assert written["largest_bin_error"] < 2e-3


def test_models_stand_beside_the_bar(ground, tmp_path, capsys):
    torch.manual_seed(0)
    network = Stlm(ARCHITECTURES["stlm-tiny"]).eval()
    sha = fingerprint(network.state_dict())
    spec = ModelSpec(
        category="ground", architecture="stlm-tiny", input_size=(64, 64), map_size=(64, 64), weights_sha256=sha
    )
    checkpoint = tmp_path / "model.safetensors"
    save(checkpoint, Checkpoint(network, spec, {}))
    arguments = ["--data", str(ground.parent), "--category", ground.name, "--resamples", "100"]
    assert main([*arguments, "--checkpoint", str(checkpoint), "--checkpoint", str(checkpoint)]) == 0
    lines = capsys.readouterr().out.splitlines()
    methods = [line.split()[0] for line in lines if line.split()[1:2] == ["all"]]
    assert methods == ["bar", "model", "gain"]
    assert "± 0.0" in next(line for line in lines if line.startswith("model"))


def test_seed_decides_which_patches_are_remembered(ground):
    paths = sorted((ground / "train/good").iterdir())
    first, again, other = (GaborMemory.of(paths, seed=seed, size=50) for seed in (0, 0, 1))
    assert np.array_equal(first.patches, again.patches)
    assert not np.array_equal(first.patches, other.patches)
    assert len(first.patches) == 50


def test_narrow_and_flat_pictures_are_described(ground):
    memory = GaborMemory.of(sorted((ground / "train/good").iterdir()))
    for size in ((300, 3), (2, 200), (40, 40)):
        image = np.full((*size, 3), 128, np.uint8)
        assert np.isfinite(features(image)).all()
        anomaly_map, score = memory.inspect(image)
        assert anomaly_map.shape == size
        assert np.isfinite(score)


def test_without_a_file_each_picture_is_a_part_of_its_own(tmp_path):
    paths = [tmp_path / "test/good/a.png", tmp_path / "test/bad/a.png"]
    assert groups_of(paths, root=tmp_path, tiles=None) == ["test/good/a.png", "test/bad/a.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,tile\ntest/good/b.png,7\n", "no tile for 1 of 1 test pictures (first: test/good/a.png)"),
        ("file,tile\ntest/good/a.png\n", "no tile for 1 of 1"),
        ("picture,part\na,1\n", "has picture, part; expected the columns file and tile"),
        ("", "has no line below a head line"),
    ],
)
def test_file_of_tiles_that_cannot_be_used_is_refused(tmp_path, text, words):
    (tmp_path / "tiles.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        groups_of([tmp_path / "test/good/a.png"], root=tmp_path, tiles=tmp_path / "tiles.csv")
    assert words in str(caught.value)


def test_missing_file_of_tiles_is_one_line(ground, capsys):
    assert main(["--data", str(ground), "--tiles", str(ground / "none.csv")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_data_without_defects_is_one_line(ground, capsys):
    assert main(["--data", str(ground / "train" / "good")]) == 1
    assert "expected some of both" in capsys.readouterr().err
