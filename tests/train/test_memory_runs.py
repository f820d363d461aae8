"""Runs whose network has a patch memory, through the command line where the user stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from export.__main__ import main as export
from stlm_edge.files import locked
from stlm_edge.network.checkpoint import load
from stlm_edge.sidecar import Sidecar
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.training import Training

MEMORY = ["--teacher", "stlm-tiny", "--teacher-weights", "random", "--plain-stream", "teacher", "--memory", "60"]
QUICK = ["--preset", TWO_STREAMS, "--image-size", "64", "--batch-size", "2", *MEMORY]


def parts_of(checkpoint: Path) -> set[str]:
    return {name.split(".")[0] for name in load(checkpoint).network.state_dict()}


@pytest.mark.heavy
def test_folder_of_good_pictures_becomes_a_verified_engine_without_training(plate, tmp_path, capsys):
    run, data = tmp_path / "run", ["--data", str(plate), "--category", "plate"]
    checkpoint, engine = run / "model.safetensors", tmp_path / "plate.onnx"
    idle = ["--comparison", "plain", "--folds", "3", "--batch-size", "1"]
    assert main(["fit", *data, "-o", str(run), *QUICK, "--epochs", "0", *idle]) == 0
    told = capsys.readouterr().err
    assert "NO INITIAL WEIGHTS" not in told  # nothing is there to have any
    assert "what is for a head has no effect: comparison plain, folds 3\n" in told and "in a step" not in told
    assert sorted(path.name for path in run.iterdir()) == ["README.md", "config.yaml", "model.safetensors", "run.json"]
    loaded = load(checkpoint)
    design = loaded.network.design
    assert (design.aggregation, design.memory, loaded.spec.memory) == ("memory", 60, 60)
    assert parts_of(checkpoint) == {"plain", "memory", "fusion"}
    threshold = loaded.spec.require_threshold()
    assert threshold.images == len(list((plate / "plate/train/good").iterdir()))
    assert main(["threshold", str(checkpoint), *data]) == 0
    assert load(checkpoint).spec.require_threshold().value == pytest.approx(threshold.value, abs=1e-6)
    assert main(["evaluate", str(checkpoint), *data]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["tlm_only"] is None
    assert evaluation["overall"]["image_auroc"] is not None
    assert export(["onnx", str(checkpoint), "-o", str(engine), *data]) == 0
    sidecar = Sidecar.read(engine)
    assert sidecar.engine.gate is not None
    assert sidecar.engine.gate.verified
    assert (sidecar.spec.memory, sidecar.spec.memory_neighbours, sidecar.spec.map_size) == (60, 1, (8, 8))
    remembered, new = sorted((plate / "plate/train/good").iterdir()), sorted((plate / "plate/test/good").iterdir())
    for name, some, code in (("known", remembered, 1), ("mixed", [remembered[-1], *new], 1), ("new", new, 0)):
        good = tmp_path / name
        good.mkdir()
        for number, path in enumerate(some):
            shutil.copy(path, good / f"copy{number}.png")
        capsys.readouterr()
        assert export(["threshold", str(engine), "--data", str(good)]) == code
        assert ("remembers" in capsys.readouterr().err) == bool(code)
    others = tmp_path / "others"
    shutil.copytree(plate / "plate/train/good", others)
    shutil.copy(new[0], others / remembered[0].name)  # as many, and one is another
    assert main(["threshold", str(checkpoint), "--data", str(others)]) == 1
    assert "the network is of 6 good pictures, found 6 others" in capsys.readouterr().err


@pytest.mark.heavy
def test_frozen_stream_of_a_checkpoint_is_taken_without_training_or_refused(plate, tmp_path, capsys):
    command = ["fit", "--data", str(plate), "--category", "plate", *QUICK]
    assert main([*command, "--epochs", "0", "-o", str(tmp_path / "first")]) == 0
    first = tmp_path / "first" / "model.safetensors"
    start = ["--initial-weights", str(first), "--seed", "5"]  # another seed, so that random ones would be others
    for name, more in (("again", ["--epochs", "0"]), ("on", ["--epochs", "1", "--comparison", "plain"])):
        assert main([*command, *start, *more, "-o", str(tmp_path / name)]) == 0
        plain = load(tmp_path / name / "model.safetensors").network.plain.state_dict()
        for key, tensor in load(first).network.plain.state_dict().items():
            assert torch.equal(tensor, plain[key]), (name, key)
        assert json.loads((tmp_path / name / "run.json").read_text())["teacher_weights_from"] == str(first)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    for path, words in ((tmp_path / "none.pt", "is no file"), (other, "is no checkpoint of this toolkit")):
        capsys.readouterr()
        given = [*command, "--epochs", "0", "--initial-weights", str(path), "-o", str(tmp_path / "refused")]
        assert main(given) == 1
        assert words in capsys.readouterr().err
        assert not (tmp_path / "refused").exists()


@pytest.mark.heavy
def test_head_that_is_given_what_the_plain_stream_sees_becomes_a_verified_engine(plate, tmp_path):
    run, data = tmp_path / "run", ["--data", str(plate), "--category", "plate"]
    checkpoint, engine = run / "model.safetensors", tmp_path / "plate.onnx"
    assert main(["fit", *data, "-o", str(run), *QUICK, "--comparison", "plain", "--memory", "0", "--epochs", "1"]) == 0
    assert parts_of(checkpoint) == {"plain", "plain_features", "feature_aggregation"}
    assert main(["evaluate", str(checkpoint), *data]) == 0
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["tlm_only"] is None
    assert export(["onnx", str(checkpoint), "-o", str(engine), *data]) == 0
    sidecar = Sidecar.read(engine)
    assert sidecar.engine.gate is not None
    assert sidecar.engine.gate.verified
    assert sidecar.spec.map_size == (8, 8)


@pytest.mark.heavy
def test_head_that_is_given_what_the_plain_stream_sees_goes_on_after_a_kill(plate, tmp_path, monkeypatch):
    arguments = ["fit", "--data", str(plate), "--category", "plate", *QUICK, "--comparison", "plain", "--epochs", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments, "-o", str(whole)]) == 0
    saved = Training.save

    def kill(training: Training, path: Path) -> None:
        saved(training, path)
        if training.epoch == 1:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Training, "save", kill)
        main([*arguments, "-o", str(killed)])
    assert main(["resume", str(killed)]) == 0
    wanted, found = (load(run / "model.safetensors") for run in (whole, killed))
    assert found.spec.weights_sha256 == wanted.spec.weights_sha256
    assert parts_of(killed / "model.safetensors") == {
        "plain", "plain_features", "feature_aggregation", "memory", "fusion",
    }  # fmt: skip
    assert found.network.plain_features is not None
    assert found.network.plain_features.norm.num_batches_tracked > 0  # it has learnt what is usual


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.heavy
def test_run_that_was_killed_while_it_remembered_ends_as_one_that_was_not(plate, tmp_path, monkeypatch):
    arguments = ["fit", "--data", str(plate), "--category", "plate", *QUICK, "--epochs", "1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments, "-o", str(whole)]) == 0

    def kill(*_arguments: object, **_options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("train.fit.remember_good", kill)
        main([*arguments, "-o", str(killed)])
    assert load(killed / "model.safetensors").network.design.memory == 0
    assert main(["resume", str(killed)]) == 0
    wanted, found = (load(run / "model.safetensors") for run in (whole, killed))
    assert found.spec.weights_sha256 == wanted.spec.weights_sha256
    assert wanted.network.design.memory == 60
    assert wanted.network.feature_aggregation is not None
    assert wanted.spec.highest_score == 1
    assert wanted.network.fusion is not None
    assert float(wanted.network.fusion.logit_scale) != 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plain-stream", "student"], "memory, plain_stream student: a stream that learns sees others"),
        (["--epochs", "0", "--memory", "0"], "epochs 0, memory 0: nothing to learn and nothing to remember"),
        (["--memory-neighbours", "61"], "memory_neighbours is 61, expected 1 to 60"),
        (["--aggregation", "none"], "memory, aggregation none: no logits to add the distances to"),
        (
            ["--comparison", "plain", "--plain-stream", "student", "--memory", "0"],
            "only a frozen one is looked at alone",
        ),
        (["--comparison", "plain", "--aggregation", "none", "--memory", "0"], "aggregation none: nothing would be"),
        (["--comparison", "plain", "--streams-first", "0.5"], "comparison plain, streams_first: no stream learns"),
        (
            ["--teacher", "sam_vit_b", "--architecture", "stlm"],
            "features at strides 8 and 16 that stay as they are, which sam_vit_b as the plain stream does not have",
        ),
    ],
)
def test_what_a_memory_cannot_go_with_is_one_line(arguments, words, plate, tmp_path, capsys):
    given = ["fit", "--data", str(plate), "--category", "plate", "-o", str(tmp_path / "run"), *QUICK, *arguments]
    assert main(given) == 1
    captured = capsys.readouterr().err
    assert words in captured
    assert "Traceback" not in captured
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_folder_in_which_another_training_runs_is_left_alone(plate, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    arguments = ["fit", "--data", str(plate), "--category", "plate", "-o", str(run), *QUICK, "--epochs", "0"]
    with locked(run):
        assert main(arguments) == 1
        assert f"error: {run} is being written by another program" in capsys.readouterr().err
        assert list(run.iterdir()) == []
    assert main(arguments) == 0
