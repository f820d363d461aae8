"""Parts, folds and unclear pictures through training and the command that chooses a threshold again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stlm_edge.network.checkpoint import load
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.folds import divide

QUICK = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2", "--workers", "0"]


@pytest.fixture
def data(plate, tmp_path) -> Path:
    """Four parts with two pictures each, by the first letter of their names."""
    good = tmp_path / "bracket"
    good.mkdir()
    pictures = [*sorted((plate / "plate" / "train" / "good").iterdir()), *sorted((plate / "plate/test/good").iterdir())]
    for index, path in enumerate(pictures):
        shutil.copy(path, good / f"{'abcd'[index // 2]}{index % 2}.png")
    return good


@pytest.mark.heavy
def test_parts_are_held_out_together_and_remembered(data, tmp_path, capsys):
    run = tmp_path / "run"
    groups = data / "parts.csv"
    groups.write_text(
        "picture,part\n" + "".join(f"{path.name},{path.name[0]}\n" for path in sorted(data.glob("*.png")))
    )
    settings = [*QUICK, "--groups", str(groups), "--false-alarm-rate", "0.3", "--unclear-rate", "0.6"]
    assert main(["fit", "--data", str(data), "-o", str(run), *settings]) == 0
    told = capsys.readouterr().err
    assert "good pictures: 8 pictures of 4 parts (by " in told
    assert "(2 of 1 part held out)" in told
    assert "FEW PARTS" in told or "cannot promise" in told
    assert "pseudo anomalies found: " in told
    groups.unlink()  # the parts are remembered, not the file alone
    fitted = load(run / "model.safetensors")
    assert fitted.parts.numbers == (0, 0, 1, 1, 2, 2, 3, 3)
    threshold = fitted.spec.threshold
    assert (threshold.images, threshold.parts) == (2, 1)

    again = ["threshold", str(run / "model.safetensors"), "--data", str(data)]
    assert main(again) == 0
    printed = capsys.readouterr()
    assert "good pictures: 8 pictures of 4 parts" in printed.err
    assert "from 2 pictures of 1 part" in printed.out and "pseudo anomalies found: " in printed.out
    assert load(run / "model.safetensors").spec.threshold.value == pytest.approx(threshold.value, abs=1e-6)

    assert main([*again, "--group-by", "^."]) == 0
    assert main([*again, "--group-by", "[0-9]"]) == 0
    assert "from 2 pictures of 2 parts" in capsys.readouterr().out  # the same two are held out
    assert main([*again, "--unclear-rate", "0"]) == 0
    assert load(run / "model.safetensors").spec.threshold.unclear is None


@pytest.mark.heavy
def test_folds_score_every_good_picture_and_go_on_after_a_kill(data, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    settings = [*QUICK, "--group-by", "^.", "--folds", "3", "--patience", "1"]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("train.fit._Keeper.finish", killed)
        assert main(["fit", "--data", str(data), "-o", str(run), *settings]) == 130
    assert "the training is done 3 times more" in capsys.readouterr().err
    kept = {path.name: json.loads(path.read_text()) for path in (run / "folds").iterdir()}
    assert sorted(kept) == ["0.json", "1.json", "2.json", "3.json"]
    assert sorted(picture for fold in kept.values() for picture in fold["pictures"]) == list(range(8))
    (run / "folds" / "3.json").unlink()
    (run / "folds" / "2.json").write_text(json.dumps(kept["2.json"] | {"run": "another"}))

    assert main(["resume", str(run)]) == 0
    told = capsys.readouterr().err
    assert "fold 2 of 3: without 2 pictures" in told and "fold 3 of 3" in told and "fold 1 of 3" not in told
    assert {path.name: json.loads(path.read_text()) for path in (run / "folds").iterdir()} == kept
    spec = load(run / "model.safetensors").spec
    assert (spec.threshold.images, spec.threshold.parts) == (8, 4)
    highest = max(score for fold in kept.values() for score in fold["scores"])
    assert highest < spec.threshold.value < highest + 1e-6
    assert spec.normal_score_images == 2  # those of this network
    assert not (run / "state.pt").exists()


@pytest.mark.heavy
def test_damaged_fold_is_told(data, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("train.fit._Keeper.finish", lambda *_, **__: None)
    assert (
        main(["fit", "--data", str(data), "-o", str(run), *QUICK, "--group-by", "^.", "--folds", "2"]) == 130
    )  # unfinished
    (run / "folds" / "1.json").write_text("{")
    capsys.readouterr()
    assert main(["resume", str(run)]) == 1
    assert "1.json is not JSON" in capsys.readouterr().err


def test_folds_keep_parts_together_and_none_is_empty():
    parts = [0, 0, 0, 1, 1, 2, 3, 3, 4]
    for folds in (2, 3, 9):
        found = divide(parts, range(1, 9), folds=folds, seed=0)
        assert sorted(index for fold in found for index in fold) == list(range(1, 9))
        assert len(found) == min(folds, 5) and all(found)
        owners = [{parts[index] for index in fold} for fold in found]
        assert sum(map(len, owners)) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--groups", "{data}/none.csv"], 1, "none.csv cannot be read"),
        (["--groups", "{data}/stray.csv"], 1, "names 1 picture that is not there, the first is z9.png"),
        (["--group-by", "^[xy]"], 1, "finds no part in the name a0 "),
        (["--group-by", ""], 2, "found nothing as the value of --group-by"),
        (["--groups", ""], 2, "found nothing as the value of --groups"),
        (["--group-by", "("], 1, "expected a regular expression"),
        (["--group-by", "a", "--groups", "b"], 1, "groups, group_by: either says"),
        (["--folds", "1"], 1, "folds is 1, expected 0, or 2 and more"),
        (["--unclear-rate", "0.005"], 1, "unclear_rate is 0.005, expected 0, or more than 0.01"),
    ],
)
def test_parts_and_rates_that_cannot_be_are_refused_before_anything_is_written(
    data, tmp_path, capsys, arguments, code, words
):
    (data / "stray.csv").write_text("picture,part\nz9.png,1\n")
    run = tmp_path / "run"
    given = [argument.format(data=data) for argument in arguments]
    assert main(["fit", "--data", str(data), "-o", str(run), *QUICK, *given]) == code
    error = [line for line in capsys.readouterr().err.splitlines() if line.lower().startswith("error: ")]
    assert len(error) == 1 and words in error[0]
    assert not run.exists()
