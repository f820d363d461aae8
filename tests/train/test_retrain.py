"""Training again with pictures that were added: what is joined, what is refused, and what is put side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train.retrain
from export.pipeline import Exported
from stlm_edge.datasets import Category, Parts, Sample, load_category
from stlm_edge.errors import DataError, OutputError, VerificationError
from stlm_edge.files import sha256
from stlm_edge.imaging import read_image, write_image
from stlm_edge.inspection import Answer
from stlm_edge.metrics import QualityMeter
from stlm_edge.network.checkpoint import load
from stlm_edge.plate.part import write_dataset
from stlm_edge.seen import digest_of
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import DIGEST_DIGITS
from train.__main__ import main
from train.config import TrainConfig
from train.data import split_indices
from train.good_pictures import learnt_before
from train.joined import join
from train.retrain import retrain
from train.side_by_side import Picture, Row, SideBySide

NONE = Category("none", (), ())


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of 4 good parts, and 1 good and 4 defective ones to test."""
    folder = tmp_path_factory.mktemp("added")
    write_dataset(folder, category="new", train=4, test_good=1, test_defective_per_kind=1, size=(96, 96), seed=1)
    return folder / "new"


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "plate"))


@pytest.fixture
def untrained_again(monkeypatch: pytest.MonkeyPatch, run: Path) -> list[TrainConfig]:
    """The training is left out, and its network the old one; what it was asked for."""
    asked = []

    def bring_to_end(config: TrainConfig, folder: Path, **_: object) -> None:
        asked.append(config)
        for name in ("model.safetensors", "config.yaml", "run.json"):
            shutil.copy(run / name, folder)

    monkeypatch.setattr(train.retrain, "bring_to_end", bring_to_end)
    return asked


def pictures(folder: Path) -> dict[str, list[str]]:
    return {
        str(each.relative_to(folder)): sorted(path.name for path in each.iterdir())
        for split in ("train", "test", "ground_truth")
        for each in sorted((folder / split).glob("*"))
    }


@pytest.mark.slow
def test_run_goes_on_from_its_weights_with_what_was_added(run, added):
    before = {path: sha256(path) for path in run.iterdir() if path.is_file()}
    done = retrain(run, add=added)
    old, new = load(run / "model.safetensors"), load(done.new)
    assert done.report["old"]["weights_sha256"] == old.spec.weights_sha256 != new.spec.weights_sha256
    assert (done.report["goes_on"], new.spec.category) == (True, "plate")
    # Of the old pictures only that may be held out which was held out before.
    assert new.parts is not None and len(new.parts.learnt) == len(old.spec.seen) // DIGEST_DIGITS == 5
    assert {path: sha256(path) for path in before} == before


def test_both_are_put_side_by_side_and_the_way_to_replace_is_told(
    run, added, traced_engine, untrained_again, monkeypatch, capsys
):
    import export.again

    def export_again(checkpoint: Path, output: Path, **asked: Any) -> Exported:
        assert (checkpoint, asked["builder"].suffix) == (output.with_name("model.safetensors"), ".onnx")
        for suffix in ("", ".json"):
            shutil.copy(f"{traced_engine}{suffix}", f"{output}{suffix}")
        return Exported(None, Sidecar.read(output).engine.gate, ("as near as it can be",))

    monkeypatch.setattr(export.again, "export", export_again)
    command = ["retrain", str(run), "--add", str(added), "--engine", str(traced_engine)]
    assert main(command) == 0
    told, new = capsys.readouterr().out, run.with_name("plate-2")
    report = json.loads((new / "retrain.json").read_text())
    assert [(name, each["good"], each["defective"]) for name, each in report["sets"].items()] == [
        ("test before", 2, 4),
        ("test added", 1, 4),
        ("all", 3, 8),
    ]
    assert report["pictures"] == {
        "train": {"before": 6, "added": 4},
        "test": {"before": 6, "added": 5},
        "repeated": 0,
    }
    assert (report["engine"]["precision"], report["engine"]["verified"]) == ("fp32", True)
    everything = report["sets"]["all"]
    assert everything["image_auroc"]["old"] == everything["image_auroc"]["new"]
    assert everything["missed"]["old"] == everything["missed"]["new"]
    engine = new / traced_engine.name
    assert f"--shadow '{engine}?every=10'" in told
    assert f"cp --backup=numbered -t {traced_engine.parent} {engine} {engine}.json" in told
    assert (new / "retrain.md").read_text().count("| image AUROC, %") == told.count("| image AUROC, %") == 3
    assert main([*command, "-o", str(new)]) == 1
    assert "holds a retraining that is done" in capsys.readouterr().err
    (config,) = untrained_again
    assert config.initial_weights == str(run / "model.safetensors")


def test_interrupted_retraining_is_gone_on_with_by_the_same_command(run, added, monkeypatch, untrained_again):
    going, calls = train.retrain.bring_to_end, []

    def interrupted(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        going(*arguments, **options)

    monkeypatch.setattr(train.retrain, "bring_to_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        retrain(run, add=added)
    write_image(added / "train/good/late.png", np.full((96, 96, 3), 7, np.uint8))
    try:
        with pytest.raises(DataError, match="was begun with 21 pictures, found 22 now"):
            retrain(run, add=added)
    finally:
        (added / "train/good/late.png").unlink()
    done = retrain(run, add=added)
    assert (done.folder.name, len(calls)) == ("plate-2", 2)
    done.write(engine=None, lines=())
    report = json.loads((done.folder / "retrain.json").read_text())
    assert report["engine"] is None and not any(report["sets"]["all"]["changes"].values())
    assert not (done.folder / "retrain.png").exists()
    assert train.retrain._next_folder(run).name == "plate-3"
    assert train.retrain._next_folder(done.folder).name == "plate-3"
    with pytest.raises(OutputError, match="holds another run"):
        retrain(run, add=added, output=run)


def test_run_whose_pictures_are_others_now_is_refused(run, added, plate, tmp_path):
    moved = Path(shutil.copytree(plate, tmp_path / "moved"))
    next((moved / "plate/train/good").iterdir()).unlink()
    with pytest.raises(DataError, match="was trained on other good pictures than the 5 in"):
        retrain(run, add=added, data=moved)
    with pytest.raises(DataError, match=r"gone, which .*plate was trained on, is not there; give --data where it is"):
        retrain(run, add=added, data=tmp_path / "gone")


def test_nothing_new_is_refused(run, plate):
    with pytest.raises(DataError, match=r"has no picture that .* does not have already"):
        retrain(run, add=plate / "plate/train/good")


def test_threshold_by_f1_without_defects_is_refused_before_the_training(run, added):
    with pytest.raises(DataError, match=r"no good or no defective test pictures, .* or leave --threshold-by f1 out"):
        retrain(run, add=added / "train/good", by_f1=True)
    assert not run.with_name("plate-2").exists()


def test_second_folder_to_add_is_refused_and_none_forgotten(run, added, capsys):
    assert main(["retrain", str(run), "--add", str(added), "--add", str(added / "train/good")]) == 2
    assert "--add is given 2 times, expected one folder" in capsys.readouterr().err


def test_engine_that_is_refused_leaves_the_figures_beside_it(
    run, added, traced_engine, untrained_again, monkeypatch, capsys
):
    import export.again

    def refuse(*_: object, **__: object) -> Exported:
        raise VerificationError("it is NOT VERIFIED; export in a higher precision")

    monkeypatch.setattr(export.again, "export", refuse)
    run.with_name("plate-2").mkdir()
    (run.with_name("plate-2") / "config.yaml").touch()  # somebody's own second training
    assert main(["retrain", str(run), "--add", str(added), "--engine", str(traced_engine)]) == 1
    assert "OTHER WEIGHTS: --engine is not made of" in capsys.readouterr().err
    new = run.with_name("plate-3")
    text = (new / "retrain.md").read_text()
    assert text.count("| image AUROC, %") == 3 and "no engine was made: it is NOT VERIFIED; export in a" in text
    assert not (new / "retrain.json").exists()  # so the same command tries again


def test_added_pictures_of_another_size_are_told_of(plate, tmp_path, caplog):
    write_image(tmp_path / "wide.png", np.zeros((40, 80, 3), np.uint8))
    old = load_category(plate / "plate", None)
    join(old, load_category(tmp_path, None), skip_corrupt=False)
    assert "1 picture added, such as of 40 x 80 pixels, not of 96 x 96 as all before" in caplog.text
    caplog.clear()
    join(old, old, skip_corrupt=False)
    assert not caplog.text


def test_sets_are_joined_without_losing_or_doubling_a_picture(plate, added, tmp_path):
    old, new = load_category(plate / "plate", None), load_category(added, None)
    joined = join(old, new, skip_corrupt=False)
    joined.write(tmp_path / "plate")
    found = pictures(tmp_path / "plate")
    assert found["test/scratch"] == ["000-2.png", "000.png"]  # both sets call theirs so
    assert found["ground_truth/scratch"] == ["000-2_mask.png", "000_mask.png"]
    assert len(found["train/good"]) == 10 and joined.test(tmp_path / "plate", added=True) >= {
        tmp_path / "plate/test/scratch/000-2.png"
    }
    again = load_category(tmp_path / "plate", None)
    assert sorted(digest_of(read_image(each.path)) for each in again.train) == sorted(
        digest_of(read_image(each.path)) for each in (*old.train, *new.train)
    )
    assert all(each.mask is not None for each in again.test if each.label != "good")
    # A chain of retrainings links to the pictures themselves.
    join(again, NONE, skip_corrupt=False).write(tmp_path / "twice")
    assert {path.readlink().parent.parent.parent for path in (tmp_path / "twice/train/good").iterdir()} == {
        plate / "plate",
        added,
    }
    assert join(old, load_category(plate, "plate"), skip_corrupt=False).repeated == 12


def test_file_system_without_links_has_copies(plate, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    joined = join(load_category(plate / "plate", None), NONE, skip_corrupt=False)
    joined.write(tmp_path / "plate")
    assert not any(path.is_symlink() for path in (tmp_path / "plate").rglob("*"))
    assert len(pictures(tmp_path / "plate")["train/good"]) == 6


def test_picture_to_learn_from_that_is_tested_with_is_refused_by_name(plate, added, tmp_path):
    leaking = Path(shutil.copytree(added, tmp_path / "leaking"))
    shutil.copy(plate / "plate/test/scratch/000.png", leaking / "train/good/leak.png")
    with pytest.raises(DataError, match=r"found 1 picture among .*plate/test/scratch/000\.png and .*good/leak\.png"):
        join(load_category(plate / "plate", None), load_category(leaking, None), skip_corrupt=False)


def test_mask_of_classes_becomes_one_of_white(plate, tmp_path):
    picture, mask = plate / "plate/test/scratch/000.png", tmp_path / "classes.png"
    classes = (read_image(plate / "plate/ground_truth/scratch/000_mask.png") > 0).astype(np.uint8)
    write_image(mask, classes)
    category = Category("visa", (), (Sample(picture, "scratch", mask, mask_of_classes=True),))
    join(category, NONE, skip_corrupt=False).write(tmp_path / "visa")
    written = read_image(tmp_path / "visa/ground_truth/scratch/000_mask.png")
    assert set(np.unique(written)) == {0, 255} and np.array_equal(written > 0, classes > 0)


def test_what_the_weights_have_learnt_from_is_not_held_out():
    learnt = range(16)
    for seed in range(10):
        assert set(split_indices(range(20), holdout=0.1, seed=seed, learnt=learnt)[1]) <= {16, 17, 18, 19}
    every = split_indices(range(20), holdout=0.1, seed=3, learnt=range(20))
    assert every == split_indices(range(20), holdout=0.1, seed=3)  # there is no other
    parts = Parts((0, 0, 1), "by hand", learnt=(0, 1))
    assert Parts.from_record(parts.to_record()) == parts


def test_only_weights_of_this_toolkit_say_what_they_have_learnt_from(trained_run, plate, quick):
    digests = [digest_of(read_image(each.path)) for each in load_category(plate, "plate").train]
    checkpoint = trained_run / "model.safetensors"
    going_on = dataclasses.replace(quick, initial_weights=str(checkpoint))
    seen = load(checkpoint).spec.seen
    assert [digests[number] in seen for number in range(6)].count(True) == 5
    assert learnt_before(going_on, digests) == tuple(n for n in range(6) if digests[n] in seen)
    assert learnt_before(quick, digests) == ()
    assert learnt_before(dataclasses.replace(quick, initial_weights=str(plate / "gone.pt")), digests) == ()


def test_verdicts_that_changed_are_told_by_what_they_are():
    def picture(label: str, old: float, new: float) -> Picture:
        return Picture(Sample(Path(label, f"{old}.png"), label, None), old, new)

    pictures = [picture("good", 0.2, 0.6), picture("good", 0.7, 0.1), picture("good", 0.1, 0.2)]
    pictures += [picture("scratch", 0.3, 0.55), picture("scratch", 0.4, 0.9), picture("chip", 0.6, 0.3)]
    meter = QualityMeter(sides=2)
    for each in pictures:
        answers = (Answer(np.full((4, 4), score, np.float32), score) for score in (each.old, each.new))
        meter.add(*answers, label=each.sample.label, size=(4, 4), mask=None)
    row = Row.of(pictures, meter, (0.5, 0.5))
    assert {name: [each.new for each in found] for name, found in row.changes.items()} == {
        "found_more": [0.9, 0.55],  # the clearest first
        "found_less": [0.3],
        "false_alarms_more": [0.6],
        "false_alarms_less": [0.1],
    }
    assert (row.missed, row.false_alarms, row.good, row.defective) == ((2, 1), (1, 1), 3, 3)
    text = SideBySide((0.5, 0.5), ("a", "b"), {"all": row}).markdown()
    assert "pixel AUROC" not in text  # of defects that nobody has marked
    assert "2 found more, 1 found less, 1 false alarm more, 1 false alarm less" in text
