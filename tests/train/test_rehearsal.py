"""`--dry-run`: what a training would do and cost, and what it would refuse, with nothing written."""

from __future__ import annotations

import shutil

import pytest

from stlm_edge.plate.part import write_dataset
from tests.settings import TWO_STREAMS
from train.__main__ import main

SMALL = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "3", "--batch-size", "2", "--dry-run"]


def test_dry_run_tells_and_writes_nothing(plate, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(["fit", "--data", str(plate), "--category", "plate", "-o", str(output), *SMALL]) == 0
    told = capsys.readouterr().out
    assert "5 to learn from, 1 held out, at 64 x 64" in told
    assert "steps     6: 3 epochs of 2, 2 pictures in each" in told
    assert "hours     rtx3090" in told
    assert "Assumed, not measured: 25%" in told
    assert list(tmp_path.iterdir()) == []


def test_published_weights_are_not_fetched(plate, tmp_path, capsys, file_server, monkeypatch):
    arguments = ["fit", "--data", str(plate), "--category", "plate", "-o", str(tmp_path / "run"), "--dry-run"]
    assert main([*arguments, "--image-size", "64", "--teacher", "mobile_sam"]) == 0
    told = capsys.readouterr().out
    assert told.count("mobile_sam.pt") == 1  # of streams and teacher one file
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (["--teacher-weights", "FILE"], "is not a file of tensors"),
        (["--initial-weights", "FILE"], "is not a file of tensors"),
        (["--teacher-weights", "nowhere.pt"], "is no file"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--category", "plat"], "no category 'plat'"),
        (["--textures", "FILE"], "FILE"),
        (["--teacher-precision", "fp16", "--device", "cpu"], "fp16 is for GPUs"),
    ],
)
def test_what_a_run_would_refuse_is_refused_in_its_words(spoil, words, plate, tmp_path, capsys):
    damaged = tmp_path / "FILE"
    damaged.write_bytes(b"no weights")
    spoil = [str(damaged) if word == "FILE" else word for word in spoil]
    if "--initial-weights" not in spoil:
        spoil += ["--initial-weights", "random"]
    if "--teacher-weights" in spoil:
        spoil += ["--teacher", "mobile_sam", "--architecture", "stlm"]
    arguments = ["fit", "--data", str(plate), "--category", "plate", "-o", str(tmp_path / "run"), *SMALL, *spoil]
    said = []
    for way in (arguments, [word for word in arguments if word != "--dry-run"]):
        assert main(way) == 1
        said.append(capsys.readouterr().err.splitlines()[-1])
    assert words in said[0]
    assert said[0] == said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_taken_folder_and_unreadable_picture_are_refused(trained_run, plate, tmp_path, capsys):
    assert main(["fit", "--data", str(plate), "--category", "plate", "-o", str(trained_run), *SMALL]) == 1
    assert "exists; choose another folder" in capsys.readouterr().err
    data = tmp_path / "data"
    shutil.copytree(plate, data)
    (data / "plate" / "train" / "good" / "000.png").write_bytes(b"")
    assert main(["fit", "--data", str(data), "--category", "plate", "-o", str(tmp_path / "run"), *SMALL]) == 1
    assert "000.png" in capsys.readouterr().err


def test_evaluation_without_test_pictures_is_refused(plate, tmp_path, capsys):
    data = str(plate / "plate" / "train" / "good")
    assert main(["fit", "--data", data, "-o", str(tmp_path / "run"), *SMALL, "--evaluate-every", "1"]) == 1
    assert "test pictures" in capsys.readouterr().err.splitlines()[-1]


def test_of_several_seeds_those_are_told_that_are_left(plate, tmp_path, capsys, trained_run):
    output = tmp_path / "runs"
    output.mkdir()
    shutil.copytree(trained_run, output / "seed-0")
    small = [*SMALL, "--epochs", "1"]
    arguments = ["fit", "--data", str(plate), "--category", "plate", "-o", str(output), *small]
    assert main([*arguments, "--seeds", "3"]) == 0
    told = capsys.readouterr().out
    assert "seed-0" not in told
    assert told.count("steps     2") == 2
    assert "all       2 trainings" in told
    assert main([*arguments, "--seeds", "1"]) == 0
    assert capsys.readouterr().out == "nothing is left to train\n"


def test_grid_adds_up_presets_and_tables_and_tells_what_would_fail(tmp_path, capsys):
    data = tmp_path / "parts"
    for seed, name in enumerate(("bottle", "carpet")):
        write_dataset(data, train=4, test_good=2, test_defective_per_kind=1, size=(96, 96), seed=seed, category=name)
    own = []
    for name in ("table6-concat", "table6-cosine"):
        own += ["--preset", str(tmp_path / f"{name}.yaml")]
        shutil.copy(TWO_STREAMS, own[-1])
    output = tmp_path / "grid"
    small = ["--image-size", "64", "--epochs", "3", "--batch-size", "2", "--dry-run", "-o", str(output)]
    arguments = ["grid", "--data", str(data), "--all-categories", *own, *small]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("to train  ") for line in lines) == 4
    table = {
        line[:26].strip(): line.split()[-8:-6] for line in lines if line.startswith(("table6-", "table 6", "all "))
    }
    steps = 2 * 3 * 1  # two categories, three pictures of each are learnt from
    assert list(table.values()) == [
        *[["2", str(steps)]] * 2,
        ["4", str(2 * steps)],
        ["4", str(2 * steps)],
    ]
    (data / "carpet" / "train" / "good" / "000.png").write_bytes(b"")
    assert main(arguments) == 1
    told = capsys.readouterr()
    failed = [line for line in told.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert all("carpet" in line and "000.png" in line for line in failed)
    assert sum(line.startswith("to train  ") for line in told.out.splitlines()) == 4
    assert not output.exists()
