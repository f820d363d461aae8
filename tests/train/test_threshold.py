"""The command that chooses a checkpoint's threshold again."""

from __future__ import annotations

import dataclasses

import pytest

from stlm_edge.datasets import GOOD, load_category
from stlm_edge.network.checkpoint import load
from train.__main__ import main


def test_command_chooses_by_either_method_and_the_method_travels(plate, checkpoint, capsys):
    arguments = ["threshold", str(checkpoint), "--data", str(plate), "--category", "plate"]
    assert main([*arguments, "--method", "f1"]) == 0
    assert "was 0.5000), F1-optimal on 6 labelled pictures" in capsys.readouterr().out
    spec = load(checkpoint).spec
    assert spec.threshold.method == "f1"
    assert spec.threshold.images == len(load_category(plate, "plate").test)
    assert {sample.label for sample in load_category(plate, "plate").test} > {GOOD}

    assert main([*arguments, "--false-alarm-rate", "0.5"]) == 0
    assert "95 % confidence 2.5 to 97.5 %" in capsys.readouterr().out
    after = load(checkpoint).spec
    assert (after.threshold.method, after.threshold.images) == ("quantile", 1)
    assert after.threshold.false_alarm_interval == pytest.approx((0.025, 0.975))
    assert after.normal_score_images == 1
    assert after.normal_score_deciles == (after.normal_score_range[0],) * 11
    changed = {"threshold", "normal_score_range", "normal_score_deciles", "normal_score_images"}
    kept = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.name in changed}
    assert dataclasses.replace(after, **kept) == spec


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--method", "f1", "--false-alarm-rate", "0.1"], 2, "goes with --method quantile"),
        (["--false-alarm-rate", "0"], 2, "0.0 is not in the range"),
        (["--false-alarm-rate", "1"], 2, "is not in the range"),
    ],
)
def test_command_refuses_what_cannot_work(plate, checkpoint, capsys, arguments, code, words):
    assert main(["threshold", str(checkpoint), "--data", str(plate), "--category", "plate", *arguments]) == code
    assert words in capsys.readouterr().err


def test_f1_without_labelled_pictures_is_an_error(plate, checkpoint, capsys):
    good = plate / "plate" / "train" / "good"
    assert main(["threshold", str(checkpoint), "--data", str(good), "--method", "f1"]) == 1
    assert "0 defective and 0 good" in capsys.readouterr().err
    assert load(checkpoint).spec.threshold.value == 0.5
