"""It is known which parts are bad, not where: labels are enough for all that looks at whole pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stlm_edge.network.checkpoint import load
from tests.settings import TWO_STREAMS
from train.__main__ import main


@pytest.fixture
def unmarked(plate, tmp_path) -> Path:
    """A copy of `plate` without a mask."""
    data = Path(shutil.copytree(plate / "plate", tmp_path / "plate"))
    shutil.rmtree(data / "ground_truth")
    return data


def evaluated(checkpoint: Path, data: Path, folder: Path) -> dict:
    assert main(["evaluate", str(checkpoint), "--data", str(data), "-o", str(folder)]) == 0
    return json.loads((folder / "evaluation.json").read_text())


PIXELS = ("pixel_auroc", "pixel_ap", "aupro", "pixel_fnr", "pixel_fnr_at_half")


@pytest.mark.heavy
def test_evaluation_has_the_figures_of_whole_pictures_and_none_of_pixels(
    unmarked, plate, checkpoint, tmp_path, capsys
) -> None:
    marked = evaluated(checkpoint, plate / "plate", tmp_path / "marked")
    assert "NO MASKS" not in capsys.readouterr().err
    found = evaluated(checkpoint, unmarked, tmp_path / "unmarked")
    printed = capsys.readouterr()
    assert "NO MASKS for 4 of 4 defective pictures (chip, missing_hole, scratch, stain)" in printed.err
    head, *lines = printed.out.splitlines()[:7]
    for line in lines:
        assert line[: head.index("pixel FNR") + len("pixel FNR")].split()[-4:] == ["-"] * 4
    for group in (found["overall"], found["tlm_only"]["overall"], *found["kinds"].values()):
        assert [group[name] for name in PIXELS] == [None] * 5
    for name in ("image_auroc", "image_ap", "images"):
        assert found["overall"][name] == marked["overall"][name] is not None
    for name in ("missed", "false_alarms", "good", "defective", "f1_optimal_threshold"):
        assert found[name] == marked[name]


@pytest.mark.heavy
def test_kind_that_is_not_all_marked_takes_the_pixels_of_all_with_it_and_no_others(
    plate, checkpoint, tmp_path, capsys
) -> None:
    data = Path(shutil.copytree(plate / "plate", tmp_path / "plate"))
    marked = evaluated(checkpoint, data, tmp_path / "marked")
    capsys.readouterr()
    (data / "ground_truth" / "chip" / "000_mask.png").unlink()
    found = evaluated(checkpoint, data, tmp_path / "unmarked")
    assert "NO MASKS for 1 of 4 defective pictures (chip), the first is" in capsys.readouterr().err
    for group in (found["overall"], found["kinds"]["chip"]):
        assert [group[name] for name in PIXELS] == [None] * 5
    assert found["kinds"]["stain"] == marked["kinds"]["stain"]
    assert found["kinds"]["stain"]["pixel_auroc"] is not None


def test_threshold_is_chosen_by_labels_whatever_the_masks_are(unmarked, plate, checkpoint, tmp_path, capsys) -> None:
    other = shutil.copy(checkpoint, tmp_path / "other.safetensors")
    assert main(["threshold", str(checkpoint), "--data", str(plate / "plate"), "--method", "f1"]) == 0
    wanted = load(checkpoint).spec.threshold
    for spoil in (lambda: None, lambda: (unmarked / "ground_truth" / "chip" / "000").mkdir(parents=True)):
        spoil()
        assert main(["threshold", str(other), "--data", str(unmarked), "--method", "f1"]) == 0
        assert load(Path(other)).spec.threshold.value == wanted.value


@pytest.mark.heavy
@pytest.mark.parametrize("spoil", ["no masks", "no test pictures", "masks of nothing"])
def test_training_asks_for_no_test_picture(unmarked, tmp_path, spoil) -> None:
    if spoil == "no test pictures":
        shutil.rmtree(unmarked / "test")
    elif spoil == "masks of nothing":
        (unmarked / "ground_truth" / "chip" / "999").mkdir(parents=True)
    small = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2"]
    assert main(["fit", "--data", str(unmarked), "-o", str(tmp_path / "run"), *small]) == 0
    assert load(tmp_path / "run" / "model.safetensors").spec.threshold is not None
