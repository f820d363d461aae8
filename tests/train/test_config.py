from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from stlm_edge.errors import ConfigError
from train.__main__ import main
from train.config import HINTS, TrainConfig, from_dict, load_preset, presets

OTHER = {
    "image_size": (128, 192),
    "pseudo_anomalies": "perlin+nsa",
    "teacher_weights": "a.pt",
    "initial_weights": "b.pt",
    "device": "cpu",
}


def another(entry: dataclasses.Field):
    """A value that the setting may have and that is not its default."""
    if choices := [choice for choice in get_args(HINTS[entry.name]) if isinstance(choice, str)]:
        return next(choice for choice in reversed(choices) if choice not in (entry.default, "none"))
    if isinstance(entry.default, bool):
        return not entry.default
    return OTHER.get(entry.name, 0.25 if isinstance(entry.default, float) else 3)


def test_defaults_are_the_papers_preset():
    assert from_dict(load_preset("paper")) == TrainConfig()


def test_every_preset_is_valid_and_survives_a_round_trip():
    for name in presets():
        config = from_dict(load_preset(name))
        assert from_dict(config.to_dict()) == config, name


def test_every_flag_changes_the_setting_of_its_name(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr("train.fit.fit", lambda config, **_: made.append(config))
    for entry in dataclasses.fields(TrainConfig):
        value = another(entry)
        flag = "--" + entry.name.replace("_", "-")
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments = [flag] if value is True else [flag, text]
        assert main(["fit", "--data", str(tmp_path), *arguments]) == 0, flag
        assert getattr(made.pop(), entry.name) == value != entry.default, flag


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("image_size", 100, "multiples of 32"),
        ("epochs", 0, "at least 1"),
        ("epochs", 1.5, "whole number"),
        ("batch_size", "two", "whole number"),
        ("architecture", "resnet", "one of stlm"),
        ("holdout", 1.0, "less than 1"),
        ("anomaly_probability", 1.5, "0 to 1"),
        ("learning_rate", 0, "more than 0"),
        ("pseudo_anomalies", "perlin+rust", "joined with"),
        ("accumulate", 0, "at least 1"),
        ("workers", -1, "0 or more"),
        ("teacher_cache_gb", -1.0, "0 or more"),
        ("streams_first", 1.0, "less than 1"),
        ("comparison", "sum", "one of product"),
        ("precision", "fp8", "one of fp32"),
    ],
)
def test_value_that_cannot_work_is_refused(setting, value, expected):
    with pytest.raises(ConfigError, match=expected):
        from_dict({setting: value})


def test_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"epoch_count.*known are architecture"):
        from_dict({"epoch_count": 3})


def test_preset_may_be_a_file_of_the_users_own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("epochs: 7\n")
    assert from_dict(load_preset(str(path))).epochs == 7
    path.write_text("- 7\n")
    with pytest.raises(ConfigError, match="expected settings by name"):
        load_preset(str(path))
    path.write_text("{")
    with pytest.raises(ConfigError, match="YAML"):
        load_preset(str(path))
    with pytest.raises(ConfigError, match="no preset"):
        load_preset("papr")


def test_preset_builds_on_the_one_it_extends(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("extends: table6-concat\nepochs: 7\n")
    assert load_preset(str(path)) == load_preset("paper") | {"comparison": "concat", "epochs": 7}
    path.write_text("extends: papr\n")
    with pytest.raises(ConfigError, match="extends 'papr', expected one of"):
        load_preset(str(path))


def test_presets_are_listed_with_what_they_are(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(presets())
    assert all(len(line.split(maxsplit=1)[1]) > 15 for line in lines)
