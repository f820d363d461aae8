"""Test pictures that are looked at during a training: told beside the rest, and of no influence."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from stlm_edge.datasets import load_category
from stlm_edge.errors import ConfigError, DataError, TrainingError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from tests.settings import TWO_STREAMS
from train import on_test
from train.__main__ import main
from train.config import TrainConfig, from_dict, load_preset
from train.distributed import Processes
from train.evaluate import evaluate
from train.evaluation import BestOnTest, Scores
from train.fit import STATE_NAME, fit, resume
from train.on_test import HISTORY_NAME, MeasuredEpoch, OnTest, best_on_test, read_history
from train.paper.results import Best, read_records
from train.record import Sources
from train.report import evaluation_table
from train.spread import seeds_table, to_json

from .conftest import EPOCHS, LONG
from .killed import Killed, outcome

EACH = dataclasses.replace(LONG, evaluate_every=1)
PLATE = {"category": "plate", "textures": None}


@pytest.fixture(scope="session")
def measured_run(make_once, plate) -> Path:
    """A run of `long` that measures the test pictures after each epoch; not to be changed."""
    return make_once("measured", lambda folder: fit(EACH, data=plate, output=folder, **PLATE))


def told(epoch: int, image_auroc: float, pixel_auroc: float = 0.5, aupro: float = 0.25) -> MeasuredEpoch:
    return MeasuredEpoch(epoch, 5, None, "digest", Scores(6, image_auroc, 0.5, pixel_auroc, 0.5, aupro, 0.5, 0.5))


def evaluated(run: Path, plate: Path, output: Path, *options: str) -> dict:
    words = ["--data", str(plate), "--category", "plate", "--device", "cpu", "-o", str(output)]
    assert main(["evaluate", str(run / "model.safetensors"), *words, *options]) == 0
    return json.loads((output / "evaluation.json").read_text())


@pytest.mark.heavy
def test_training_is_the_same_bit_for_bit(measured_run, whole_run):
    assert outcome(measured_run) == outcome(whole_run)
    assert [row.epoch for row in read_history(measured_run / HISTORY_NAME)] == [1, 2, 3]
    assert not (whole_run / HISTORY_NAME).exists()


@pytest.mark.heavy
def test_training_in_two_stages_with_random_light_is_the_same_bit_for_bit(plate, tmp_path):
    """Half of it with all but the aggregation frozen, whose pooled values have running statistics."""
    other = {"streams_first": 0.5, "schedule": "constant", "brightness": 0.5, "head_optimiser": "sgd", "workers": 1}
    config = dataclasses.replace(LONG, epochs=2, **other)
    fit(config, data=plate, output=tmp_path / "without", **PLATE)
    fit(dataclasses.replace(config, evaluate_every=1), data=plate, output=tmp_path / "with", **PLATE)
    assert outcome(tmp_path / "with") == outcome(tmp_path / "without")


@pytest.mark.heavy
def test_last_epoch_has_the_figures_of_an_evaluation_and_the_best_stands_beside(measured_run, plate, tmp_path, capsys):
    history = read_history(measured_run / HISTORY_NAME)
    content = evaluated(measured_run, plate, tmp_path / "out")
    printed = capsys.readouterr().out
    for name, value in content["overall"].items():
        assert getattr(history[-1].metrics, name) == pytest.approx(value, abs=1e-5), name
    best = max(history, key=lambda row: row.merit)
    assert content["best_on_test"] == {"epoch": best.epoch, "every": 1, "metrics": dataclasses.asdict(best.metrics)}
    assert set(content["best_on_test"]["metrics"]) == set(content["overall"])
    (row,) = (line for line in printed.splitlines() if line.startswith("all, best on test"))
    assert f"{100 * best.metrics.aupro:.2f}" in row.split()
    assert f"best on test: epoch {best.epoch}, measured every 1 and after the last; CHOSEN ON THESE TEST" in printed
    # Where the history is not of what was measured, it is left out with a word.
    at_size = evaluated(measured_run, plate, tmp_path / "size", "--metric-size", "64")
    assert at_size["best_on_test"] is None
    captured = capsys.readouterr()
    assert (
        "best on test is left out: " in captured.err and "pixels at another size; see --evaluate-size" in captured.err
    )
    assert "best on test" not in captured.out


@pytest.mark.heavy
def test_checkpoint_without_a_history_has_no_best(checkpoint, plate, tmp_path, capsys):
    assert evaluated(checkpoint.parent, plate, tmp_path / "out")["best_on_test"] is None
    captured = capsys.readouterr()
    assert "best on test" not in captured.out + captured.err
    (tmp_path / HISTORY_NAME).write_text(json.dumps(dataclasses.asdict(told(5, 0.5))) + "\n")
    assert evaluated(tmp_path, plate, tmp_path / "out")["best_on_test"] is None
    assert "is of other test pictures" in capsys.readouterr().err
    (tmp_path / HISTORY_NAME).write_text("{}\n")
    assert evaluated(tmp_path, plate, tmp_path / "out")["best_on_test"] is None
    assert "measured before is lost then; the best epoch on test is left out" in capsys.readouterr().err


def kill_measuring(patch: pytest.MonkeyPatch, epoch: int) -> None:
    original, measured = on_test.overall_scores, []

    def scores(*arguments: object, **options: object) -> object:
        measured.append(1)
        if len(measured) == epoch:
            raise Killed
        return original(*arguments, **options)

    patch.setattr(on_test, "overall_scores", scores)


@pytest.mark.heavy
def test_run_killed_while_it_measures_goes_on_with_that(measured_run, plate, tmp_path, monkeypatch, capsys):
    """No epoch is lost, none is measured twice, and what stands there of later ones is dropped."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_measuring(patch, 2)
        fit(EACH, data=plate, output=run, **PLATE)
    assert [row.epoch for row in read_history(run / HISTORY_NAME)] == [1]
    assert len(outcome(run)[2]) == 2
    with (run / HISTORY_NAME).open("a") as file:  # as where an older state was brought back
        digest = read_history(run / HISTORY_NAME)[0].pictures_sha256
        late = dataclasses.replace(told(EPOCHS, 1.0), pictures_sha256=digest)
        file.write(json.dumps(dataclasses.asdict(late)) + "\n")
    # Other test pictures would not compare.
    data = shutil.copytree(plate, tmp_path / "data")
    good = data / "plate" / "test" / "good"
    shutil.copy(good / "000.png", good / "001.png")
    assert main(["resume", str(run), "--data", str(data)]) == 1
    assert "is of other test pictures than" in capsys.readouterr().err.splitlines()[-1]
    assert main(["resume", str(run)]) == 0
    assert outcome(run) == outcome(measured_run)
    assert (run / HISTORY_NAME).read_text() == (measured_run / HISTORY_NAME).read_text()


@pytest.mark.heavy
def test_run_killed_while_it_measures_its_last_epoch_by_patience_is_over(plate, tmp_path, monkeypatch):
    """The epoch in which patience ended it is measured whatever its number."""
    errors = iter([1.0, 2.0, 0.1])
    monkeypatch.setattr("train.fit.held_out_error", lambda *_: next(errors))
    config = dataclasses.replace(EACH, epochs=20, patience=1, evaluate_every=5)
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_measuring(patch, 1)
        fit(config, data=plate, output=run, **PLATE)
    assert not (run / HISTORY_NAME).exists()
    resume(run)
    assert len(outcome(run)[2]) == 2
    assert [row.epoch for row in read_history(run / HISTORY_NAME)] == [2]
    assert not (run / STATE_NAME).exists()


@pytest.mark.heavy
def test_run_that_was_begun_without_it_is_resumed_with_it(begun, measured_run):
    path = begun / "config.yaml"
    path.write_text(path.read_text().replace("evaluate_every: 0", "evaluate_every: 1"))
    resume(begun)
    assert outcome(begun) == outcome(measured_run)
    assert (begun / HISTORY_NAME).read_text() == (measured_run / HISTORY_NAME).read_text()


@pytest.mark.heavy
def test_ctrl_c_while_it_measures_ends_it_and_is_resumed(measured_run, plate, tmp_path, monkeypatch):
    run = tmp_path / "run"
    original = on_test.overall_scores

    def scores(*arguments: object, **options: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(on_test, "overall_scores", scores)
        words = ["--data", str(plate), "--category", "plate", "-o", str(run), "--preset", TWO_STREAMS, "--seed", "3"]
        small = ["--image-size", "64", "--epochs", str(EPOCHS), "--batch-size", "2", "--evaluate-every", "1"]
        run.mkdir()
        (run / HISTORY_NAME).write_text("what another training has left\n")
        assert main(["fit", *words, *small]) == 130
    assert [row.epoch for row in read_history(run / HISTORY_NAME)] == [1]
    assert main(["resume", str(run)]) == 0
    assert outcome(run) == outcome(measured_run)
    assert (run / HISTORY_NAME).read_text() == (measured_run / HISTORY_NAME).read_text()


@pytest.mark.heavy
def test_grid_passes_it_on_and_its_evaluation_has_the_best(measured_run, plate, tmp_path, monkeypatch, capsys):
    made = []

    def copied(config: TrainConfig, *, output: Path, **_: object) -> None:
        made.append(config.evaluate_every)
        shutil.copytree(measured_run, output, dirs_exist_ok=True)

    monkeypatch.setattr("train.fit.fit", copied)
    words = ["grid", "--data", str(plate), "--category", "plate", "--preset", TWO_STREAMS, "-o", str(tmp_path)]
    assert main([*words, "--evaluate-every", "1"]) == 0
    assert made == [1]
    (record,) = read_records(tmp_path)
    best = max(read_history(measured_run / HISTORY_NAME), key=lambda row: row.merit)
    assert record.best_on_test == Best(best.epoch, 1, dataclasses.asdict(best.metrics))
    capsys.readouterr()
    assert main(words) == 1
    assert "evaluate_every 1, now 0" in capsys.readouterr().err
    assert main([*words, "--evaluate-every", "1", "--metric-size", "64"]) == 0
    assert "best on test will be left out of evaluations" in capsys.readouterr().err
    assert read_records(tmp_path)[0].best_on_test is None


def test_memory_is_refused():
    with pytest.raises(ConfigError, match="memory, evaluate_every: a memory is built at the end only; change one"):
        from_dict(load_preset("cpu") | {"evaluate_every": 5})
    with pytest.raises(ConfigError, match="evaluate_every is -1, expected 0 or more"):
        TrainConfig(evaluate_every=-1)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("test", "has 0 good and 0 defective test pictures"),
        ("test/good", "has 0 good and 4 defective test pictures"),
        ("ground_truth/chip", "has 1 defective test picture without a mask, "),
    ],
)
def test_category_without_what_the_best_is_chosen_by_is_refused(lacking, message, plate, tmp_path, capsys):
    data = shutil.copytree(plate / "plate", tmp_path / "data")
    shutil.rmtree(data / lacking)
    words = ["--data", str(data), "-o", str(tmp_path / "run"), "--preset", TWO_STREAMS, "--image-size", "64"]
    assert main(["fit", *words, "--evaluate-every", "2"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line and line.endswith("or leave --evaluate-every out")
    assert not (tmp_path / "run").exists()


def test_test_picture_that_cannot_be_read_is_told_before_the_training(plate, tmp_path, capsys):
    data = shutil.copytree(plate / "plate", tmp_path / "data")
    (data / "test" / "good" / "000.png").write_bytes(b"no picture")
    words = ["--data", str(data), "-o", str(tmp_path / "run"), "--preset", TWO_STREAMS, "--image-size", "64"]
    assert main(["fit", *words, "--evaluate-every", "2"]) == 1
    assert "good/000.png" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def looked(checkpoint, plate, tmp_path) -> tuple[InferencePath, OnTest]:
    loaded = load(checkpoint)
    sources = Sources(plate, "plate", None)
    spec = dataclasses.replace(loaded.spec, threshold=None)
    looks = OnTest(sources, tmp_path / "run", TrainConfig(evaluate_every=2), begun=False, processes=Processes())
    return InferencePath(loaded.network, spec), looks


def test_looking_touches_neither_random_numbers_nor_what_learns(looked, tmp_path):
    inspector, looks = looked
    network = inspector.network.train()
    for part in (network.plain, network.denoising, network.decoder):
        part.eval()
        part.requires_grad_(False)
    before = [part.training for part in network.modules()]
    assert 0 < sum(before) < len(before)
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    numbers = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert looks.look(0, inspector, is_last=False) is None
    assert looks.look(1, inspector, is_last=False) is None
    scores = looks.look(2, inspector, is_last=False)
    assert scores is not None and scores.images == 6
    assert looks.look(2, inspector, is_last=True) is None, "none is measured twice"
    assert looks.look(3, inspector, is_last=True) == scores
    assert [part.training for part in network.modules()] == before
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == numbers[1:]
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())
    assert [(row.epoch, row.every) for row in read_history(tmp_path / "run" / HISTORY_NAME)] == [(2, 2), (3, 2)]
    assert looks.look(1, inspector, is_last=False) is None
    assert read_history(tmp_path / "run" / HISTORY_NAME) == [], "what comes after the epoch at hand is forgotten"


def test_figures_are_those_of_an_evaluation(looked, checkpoint, plate):
    inspector, looks = looked
    samples = load_category(plate, "plate").test
    results = evaluate(InferencePath(inspector.network, load(checkpoint).spec), samples[::-1])
    found = dataclasses.asdict(looks.look(1, inspector, is_last=True))
    assert found == pytest.approx(dataclasses.asdict(results.evaluation.overall), abs=1e-6)
    assert results.pictures_sha256 == on_test._digest_of(samples), "in whatever order"


def test_figures_at_a_size_are_those_of_an_evaluation_at_it(checkpoint, plate, tmp_path):
    """As in the authors' code, at 1024 x 1024; and the best is told beside an evaluation at that size alone."""
    loaded = load(checkpoint)
    inspector, samples = InferencePath(loaded.network, loaded.spec), load_category(plate, "plate").test
    config = TrainConfig(evaluate_every=1, evaluate_size=48)
    looks = OnTest(Sources(plate, "plate", None), tmp_path, config, begun=False, processes=Processes())
    scores = looks.look(1, inspector, is_last=True)
    results = evaluate(inspector, samples, metric_size=(48, 48))
    assert dataclasses.asdict(scores) == pytest.approx(dataclasses.asdict(results.evaluation.overall), abs=1e-6)
    assert scores.aupro != pytest.approx(evaluate(inspector, samples).evaluation.overall.aupro, abs=1e-6)
    path = tmp_path / HISTORY_NAME
    history = read_history(path)
    assert best_on_test(path, history, results.pictures_sha256, (48, 48)) == BestOnTest(1, 1, scores)
    assert best_on_test(path, history, results.pictures_sha256, None) is None
    with pytest.raises(ConfigError, match="evaluate_size, evaluate_every 0: nothing is measured"):
        TrainConfig(evaluate_size=48)


def test_test_pictures_that_change_on_the_way_end_it(checkpoint, plate, tmp_path):
    data = shutil.copytree(plate, tmp_path / "data")
    loaded = load(checkpoint)
    looks = OnTest(
        Sources(data, "plate", None), tmp_path, TrainConfig(evaluate_every=1), begun=False, processes=Processes()
    )
    mask = next((data / "plate" / "ground_truth" / "chip").iterdir())
    shutil.copy(next((data / "plate" / "ground_truth" / "stain").iterdir()), mask)
    with pytest.raises(DataError, match=r"have changed since the training began, .* stlm resume goes on"):
        looks.look(1, InferencePath(loaded.network, loaded.spec), is_last=True)


def test_other_processes_end_in_one_line_with_the_main_one(plate, looked, monkeypatch, tmp_path):
    inspector, _ = looked
    monkeypatch.setattr(on_test, "agree", lambda flag, device, *, room: True)
    config = TrainConfig(evaluate_every=1)
    second = OnTest(Sources(plate, "plate", None), tmp_path, config, begun=False, processes=Processes(1, 2))
    with pytest.raises(TrainingError, match="the main process could not measure epoch 1; see what it says"):
        second.look(1, inspector, is_last=True)
    assert not (tmp_path / HISTORY_NAME).exists()


def test_best_is_the_earliest_of_the_highest_sums():
    history = [told(5, 0.7, 0.8, 0.5), told(10, 0.75, 0.75, 0.75), told(15, 0.75, 0.75, 0.75), told(20, 1.0, 0.5, 0.5)]
    assert best_on_test(Path("a"), history, "digest", None) == BestOnTest(10, 5, history[1].metrics)
    assert best_on_test(Path("a"), [], "digest", None) is None


def test_damaged_or_edited_history_is_one_line(tmp_path):
    path = tmp_path / HISTORY_NAME
    lines = [json.dumps(dataclasses.asdict(told(epoch, 0.5))) for epoch in (5, 10)]
    path.write_text("\n".join(lines) + "\n")
    assert [row.epoch for row in read_history(path)] == [5, 10]
    for text, message in (
        (lines[0][:40], "line 1 of .* is not JSON"),
        ("\n".join(lines[::-1]), "twice or out of order"),
        (lines[0] + "\n" + lines[0], "twice or out of order"),
        (lines[0].replace("0.25", "null"), r"line 1 of .*jsonl\.metrics\.aupro is None, expected a number"),
        ('{"epoch": 5}', r"line 1 of .*jsonl lacks every, metric_size, metrics, pictures_sha256; move it away"),
        ("\xff", "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_history(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot be read"):
        read_history(path)


def test_seeds_have_the_mean_of_their_bests(looked, checkpoint, plate):
    inspector, _ = looked
    evaluation = evaluate(
        InferencePath(inspector.network, load(checkpoint).spec), load_category(plate, "plate").test
    ).evaluation
    runs = {
        seed: dataclasses.replace(evaluation, best_on_test=BestOnTest(epoch, 5, told(epoch, value).metrics))
        for seed, epoch, value in ((0, 5, 0.5), (1, 20, 0.75))
    }
    content = to_json(runs)["best_on_test"]
    assert content["epochs"] == [5, 20]
    assert content["overall"]["image_auroc"]["mean"] == 0.625
    assert "best on test: epoch 5, 20; CHOSEN ON THESE TEST PICTURES" in seeds_table(runs)
    assert "all, best on test" in seeds_table(runs)
    one_without = runs | {1: evaluation}
    assert to_json(one_without)["best_on_test"] is None
    assert "best on test" not in seeds_table(one_without) + evaluation_table(evaluation)
