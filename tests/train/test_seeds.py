"""One training with several seeds: gone on with after a stop, and measured together."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import click
import pytest
import torch
from scipy import stats

from stlm_edge.errors import ConfigError, DataError
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.encoder import ARCHITECTURES
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.seal import unsealed
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.loop import Ending
from train.seeds import find_seeds, fit_seeds
from train.spread import Spread, student_quantile
from train.values import SeedCountType

QUICK = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "1", "--batch-size", "2"]


def test_a_number_is_how_many_and_a_list_is_which():
    kind = SeedCountType()
    assert kind.convert("5", None, None) == (0, 1, 2, 3, 4)
    assert kind.convert("1", None, None) == (0,)
    assert kind.convert("3,1,3", None, None) == (3, 1)
    for wrong in ("0", "1001", "9" * 30, "-1", "1,", "a", "", "٣"):
        with pytest.raises(click.UsageError, match="expected"):
            kind.convert(wrong, None, None)


@pytest.mark.parametrize("freedom", [*range(1, 12), 30, 31, 200])
def test_quantile_is_students(freedom):
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_spread_is_the_mean_with_its_interval():
    spread = Spread.of([0.7, 0.8, 0.75, 0.9, 0.85])
    low, high = stats.t.interval(0.95, 4, loc=0.8, scale=stats.sem(spread.values))
    assert (spread.mean - spread.half_width, spread.mean + spread.half_width) == pytest.approx((low, high))
    assert spread.text(factor=100) == "80.00 ± 9.82"
    assert Spread.of([0.7, 0.9]).text(factor=100) == "80.00 (70.00 to 90.00)"  # an interval would be 80 ± 127
    lone = Spread.of([0.7])
    assert math.isnan(lone.half_width)
    assert lone.text(factor=100) == "70.00"
    undefined = Spread.of([0.7, math.nan])
    assert math.isnan(undefined.mean)
    assert undefined.text() == "-"


@pytest.fixture
def trained(monkeypatch, checkpoint, quick):
    """`fit_seeds` without trainings: each call of `fit` leaves a finished checkpoint; the seeds that were trained."""
    calls: list[int] = []

    def fit(config, *, output: Path, **_: object) -> None:
        output.mkdir(parents=True, exist_ok=True)
        calls.append(config.seed)
        shutil.copy(checkpoint, output / "model.safetensors")

    monkeypatch.setattr("train.fit.fit", fit)
    return calls


def test_finished_seeds_are_left_and_others_are_added(trained, quick, plate, tmp_path):
    given = {"data": plate, "category": "plate", "textures": None, "output": tmp_path / "runs"}
    found = fit_seeds(quick, (0, 1), **given)
    assert found == [tmp_path / "runs" / f"seed-{seed}" / "model.safetensors" for seed in (0, 1)]
    assert fit_seeds(quick, (0, 1, 2), **given)[-1].parent.name == "seed-2"
    assert trained == [0, 1, 2]


def test_begun_seed_is_resumed_and_a_stop_ends_the_others(trained, quick, plate, tmp_path, monkeypatch):
    folder = tmp_path / "seed-0"
    folder.mkdir()
    (folder / "state.pt").touch()
    resumed = []
    monkeypatch.setattr("train.fit.resume", lambda folder, **_: resumed.append(folder))
    with pytest.raises(KeyboardInterrupt):  # as Ctrl-C leaves it: with a state
        fit_seeds(quick, (0, 1), data=plate, category="plate", textures=None, output=tmp_path)
    assert (resumed, trained) == ([folder], [])


def test_half_a_training_without_a_state_is_begun_again(trained, quick, plate, tmp_path, checkpoint, caplog):
    (tmp_path / "seed-0").mkdir()
    half = load(checkpoint)
    save(
        tmp_path / "seed-0" / "model.safetensors",
        dataclasses.replace(half, spec=dataclasses.replace(half.spec, threshold=None)),
    )
    found = fit_seeds(quick, (0,), data=plate, category="plate", textures=None, output=tmp_path)
    assert load(found[0]).spec.threshold is not None
    assert trained == [0]
    assert "is of half a training and has no state to go on from; it is trained again" in caplog.text


def test_damaged_model_of_a_seed_is_told_once_and_trained_again(trained, quick, plate, tmp_path, caplog):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "model.safetensors").write_bytes(b"cut off")
    fit_seeds(quick, (0,), data=plate, category="plate", textures=None, output=tmp_path)
    assert trained == [0]
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "is not a readable safetensors file" in warning
    assert warning.endswith("it is trained again") and "half a training" not in warning


def test_several_processes_are_told_to_train_one_after_the_other(quick, plate, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one training after the other"):
        fit_seeds(quick, (0, 1), data=plate, category="plate", textures=None, output=None)


def test_folder_without_finished_seeds_is_told(tmp_path, checkpoint):
    with pytest.raises(DataError, match="has no seed-0, seed-1, …"):
        find_seeds(tmp_path / "nowhere", None)
    for seed in (0, 10, 2):
        (tmp_path / f"seed-{seed}").mkdir()
        shutil.copy(checkpoint, tmp_path / f"seed-{seed}")
    (tmp_path / "seed-old").mkdir()
    assert list(find_seeds(tmp_path, None)) == [0, 2, 10]
    with pytest.raises(DataError, match="seed-1 holds no finished training; go on with"):
        find_seeds(tmp_path, (0, 1))
    (tmp_path / "seed-2" / "state.pt").touch()
    with pytest.raises(DataError, match="seed-2 holds no finished training"):
        find_seeds(tmp_path, None)
    assert list(find_seeds(tmp_path, (0, 10))) == [0, 10]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["fit", "--data", "x", "--seeds", "2", "--seed", "1"], 2, "--seed is one seed"),
        (["fit", "--data", "x", "--seeds", "0"], 2, "no number of trainings"),
        (["fit", "--data", "nowhere", "--seeds", "2"], 1, "nowhere"),
        (["evaluate", "x.safetensors", "--data", "x", "--seeds", "2"], 2, "goes with a folder"),
        (["evaluate", ".", "--data", "x"], 1, "has no seed-0"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.heavy
def test_seeds_are_trained_stopped_and_gone_on_with(plate, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "runs"
    data = ["--data", str(plate), "--category", "plate"]
    arguments = ["fit", *data, *QUICK, "--seeds", "2", "-o", str(folder)]
    with monkeypatch.context() as patch:  # Ctrl-C at the end of the first epoch of the first seed
        patch.setattr("train.fit.train", lambda *_, **__: Ending.INTERRUPTED)
        assert main(arguments) == 130
    assert [path.name for path in folder.iterdir()] == ["seed-0"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split() == [str(folder / f"seed-{seed}" / "model.safetensors") for seed in (0, 1)]
    specs = [load(folder / f"seed-{seed}" / "model.safetensors").spec for seed in (0, 1)]
    assert specs[0].weights_sha256 != specs[1].weights_sha256
    assert main([*arguments, "--learning-rate", "0.1"]) == 1
    assert "learning_rate" in capsys.readouterr().err.splitlines()[-1]
    assert (
        main(["fit", "--data", str(plate / "plate" / "test" / "good"), *QUICK, "--seeds", "2", "-o", str(folder)]) == 1
    )
    assert "was run with 6 good pictures, now" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.heavy
def test_means_and_intervals_are_those_of_the_single_evaluations(plate, checkpoint, tmp_path, capsys):
    loaded = load(checkpoint)
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        network = Stlm(ARCHITECTURES["stlm-tiny"]).eval()
        (tmp_path / "runs" / f"seed-{seed}").mkdir(parents=True)
        spec = dataclasses.replace(loaded.spec, weights_sha256=fingerprint(network.state_dict()))
        save(tmp_path / "runs" / f"seed-{seed}" / "model.safetensors", Checkpoint(network, spec, loaded.config))
    out = tmp_path / "measured"
    arguments = ["evaluate", str(tmp_path / "runs"), "--data", str(plate), "--category", "plate", "-o", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    content = json.loads((out / "evaluation-seeds.json").read_text())
    assert unsealed(content, out, error=DataError, remedy="")["seeds"] == [0, 1, 2]
    singles = [json.loads((out / f"seed-{seed}" / "evaluation.json").read_text()) for seed in (0, 1, 2)]
    for name in ("image_auroc", "pixel_ap", "aupro"):
        values = [single["overall"][name] for single in singles]
        assert content["overall"][name]["values"] == values
        low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
        assert content["overall"][name]["half_width"] == pytest.approx((high - low) / 2)
        assert f"{100 * sum(values) / 3:.2f} ± {50 * (high - low):.2f}" in printed
        assert content["kinds"]["chip"][name]["values"] == [single["kinds"]["chip"][name] for single in singles]
    assert content["tlm_only"]["overall"]["pixel_fnr_at_half"]["mean"] is None
    missed = [single["missed"] for single in singles]
    assert content["missed"]["values"] == missed
    assert f"of 4 (seed 0, 1, 2: {', '.join(map(str, missed))})" in printed
    assert (out / "seed-2" / "evaluation.png").is_file()
    capsys.readouterr()
    assert main([*arguments, "--seeds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "mean over 2 seeds (lowest to highest)" in printed and "±" not in printed
    assert json.loads((out / "evaluation-seeds.json").read_text())["seeds"] == [0, 1]
