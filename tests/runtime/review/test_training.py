"""What comes of a review is a data set: it is trained on and evaluated by the commands that the docs name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from runtime.review.review import Review
from tests.settings import TWO_STREAMS

pytestmark = [pytest.mark.heavy, pytest.mark.slow]


def test_reviewed_pictures_are_trained_on_and_evaluated(plate: Path, tmp_path: Path):
    from train.__main__ import main

    root, run = tmp_path / "data" / "reviewed", tmp_path / "run"
    with Review(plate / "plate", root, test_share=0, labelme=False) as review:
        for item in review.take("s", 100):
            split, kind, name = item.name.split("/")
            call = "skip" if split == "ground_truth" else "good" if kind == "good" else "defect"
            mask = plate / "plate" / "ground_truth" / kind / f"{Path(name).stem}_mask.png"
            review.decide(
                item.number,
                call,
                reviewer="Ann",
                sha256=item.shown.sha256,
                kind=kind,
                mask=mask.read_bytes() if call == "defect" else b"",
            )
    train = ["--data", str(root.parent), "--category", "reviewed"]
    small = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2"]
    assert main(["fit", *train, "-o", str(run), *small]) == 0
    with Review(plate / "plate", root, test_share=1, labelme=False) as review:  # one good picture to test as well
        review.undo("s", reviewer="Ann")
        good = next(each for each in reversed(review.decisions) if each.call == "good")
        number = next(entry.number for entry in review.entries() if entry.decision == good)
        review.decide(number, "good", reviewer="Ann", sha256=good.sha256, replaces=good.seq)
    assert main(["evaluate", str(run / "model.safetensors"), *train]) == 0
    masks = list(root.glob("ground_truth/*/*.png"))
    assert len(masks) == 4
    assert all(cv2.imread(str(mask)).any() for mask in masks)
    assert json.loads((run / "evaluation.json").read_text())
