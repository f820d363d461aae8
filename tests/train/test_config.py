from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest

from stlm_edge.errors import ConfigError
from tests.settings import TWO_STREAMS
from train import old_settings
from train.__main__ import main
from train.config import HINTS, TrainConfig, from_dict, from_record, load_preset, presets
from train.old_settings import BEFORE
from train.pseudo_anomalies import preview

OTHER = {
    "image_size": (128, 192),
    "pseudo_anomalies": "perlin+hiding",
    "teacher": "timm:resnet18",
    "teacher_weights": "a.pt",
    "initial_weights": "b.pt",
    "device": "cpu",
}

NEEDS = {
    "heads": ["--comparison", "plain", "--plain-stream", "teacher"],
    "memory": ("--plain-stream", "teacher"),
    "evaluate_size": ("--evaluate-every", "5"),
    "comparison": ("--plain-stream", "teacher", "--teacher", "mobile_sam"),
}
"""What else has to be given with a setting."""


def another(entry: dataclasses.Field):
    """A value that the setting may have and that is not its default."""
    if choices := [choice for choice in get_args(HINTS[entry.name]) if isinstance(choice, str)]:
        return next(choice for choice in reversed(choices) if choice not in (entry.default, "none"))
    if isinstance(entry.default, bool):
        return not entry.default
    return OTHER.get(entry.name, {float: 0.25, str: "a"}.get(type(entry.default), 3))


def test_defaults_are_the_papers_preset():
    assert from_dict(load_preset("paper")) == TrainConfig()


def test_every_preset_is_valid_and_survives_a_round_trip():
    for name in presets():
        config = from_dict(load_preset(name))
        assert from_dict(config.to_dict()) == config, name


def test_every_flag_changes_the_setting_of_its_name(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr("train.fit.fit", lambda config, **_: made.append(config) or tmp_path / "model.safetensors")
    for entry in dataclasses.fields(TrainConfig):
        value = another(entry)
        flag = "--" + entry.name.replace("_", "-")
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments = [flag] if value is True else [flag, text, *NEEDS.get(entry.name, ())]
        assert main(["fit", "--data", str(tmp_path), *arguments]) == 0, flag
        assert getattr(made.pop(), entry.name) == value != entry.default, flag


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("image_size", 100, "multiples of 32"),
        ("epochs", 0, "nothing to learn and nothing to remember"),
        ("epochs", -1, "0 or more"),
        ("memory", -1, "0 to 100000"),
        ("memory_neighbours", 0, "1 to 100"),
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
        ("teacher", "resnet18", "or timm:NAME with a backbone of timm"),
        ("teacher", "timm:", "or timm:NAME with a backbone of timm"),
        ("plain_stream", "timm:resnet18", "one of student, teacher"),
    ],
)
def test_value_that_cannot_work_is_refused(setting, value, expected):
    with pytest.raises(ConfigError, match=expected):
        from_dict({setting: value})


AS_YAML_WRITES = [
    ("learning_rate", "5e-4", 5e-4),
    ("learning_rate", "5.0e-04", 5e-4),
    ("learning_rate", "1", 1.0),
    ("holdout", ".5", 0.5),
    ("holdout", "'0.25'", 0.25),
    ("teacher_cache_gb", "1e1", 10.0),
    ("compile_teacher", "off", "off"),
    ("compile_teacher", "on", "on"),
    ("compile_teacher", '"on"', "on"),
    ("teacher", "none", "none"),
    ("teacher", "timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
    ("flip_vertical", "yes", True),
    ("flip_vertical", "On", True),
    ("flip_vertical", "true", True),
    ("flip_vertical", "off", False),
    ("flip_vertical", "No", False),
    ("image_size", "64x96", (64, 96)),
    ("image_size", "64 X 96", (64, 96)),
    ("image_size", "'64x96'", (64, 96)),
    ("image_size", "64", (64, 64)),
    ("image_size", "[64, 96]", (64, 96)),
    ("image_size", "[64]", (64, 64)),
    ("image_size", "\n- 64\n- 96", (64, 96)),
    ("epochs", "1_000", 1000),
    ("epochs", "010", 10),
    ("seed", "+7", 7),
    ("initial_weights", "2026-01-31", "2026-01-31"),
    ("initial_weights", "0123", "0123"),
    ("device", "cuda", "cuda"),
]


@pytest.mark.parametrize(("setting", "written", "value"), AS_YAML_WRITES)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_yaml_is_understood_as_the_command_line_is(setting, written, value, ending, tmp_path, monkeypatch):
    path = tmp_path / "own.yaml"
    text = f"# settings\nextends: paper\n{setting}: {written}\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", ending).encode())
    found = getattr(from_dict(load_preset(str(path))), setting)
    assert (found, type(found)) == (value, type(value))
    if written[0] in "'\"[\n" or isinstance(value, bool):
        return  # a shell has other quotes, and a flag no value
    made = []
    monkeypatch.setattr("train.fit.fit", lambda config, **_: made.append(config) or tmp_path / "model.safetensors")
    flag = "--" + setting.replace("_", "-")
    assert main(["fit", "--data", str(tmp_path), "--preset", "paper", flag, written]) == 0
    assert getattr(made[0], setting) == value


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("learning_rate: fast", "learning_rate is 'fast', expected a number"),
        ("learning_rate: .nan", "learning_rate is '.nan', expected a number"),
        ("learning_rate: inf", "learning_rate is 'inf', expected a number"),
        ("learning_rate:", "learning_rate is '', expected a number"),
        ("epochs: 1e3", "epochs is '1e3', expected a whole number"),
        ("epochs: 1:30", "epochs is '1:30', expected a whole number"),
        ("epochs: 0b__", "expected a whole number"),
        ("epochs: {a: 1}", "expected a whole number"),
        (f"seed: {'9' * 30}", "expected a whole number of 64 bits"),
        (f"seed: {'9' * 5000}", "expected a whole number"),
        ("image_size: 64x96x3", "expected one or two whole numbers"),
        ("image_size: [64, 96, 3]", "expected one or two whole numbers"),
        ("image_size: [64, [96]]", "expected one or two whole numbers"),
        ("flip_vertical: maybe", "flip_vertical is 'maybe', expected true or false"),
        ("compile_teacher: no", "compile_teacher is 'no', expected one of auto, on, off"),
        ("teacher: ~", "teacher is '~', expected one of"),
        ("1: 2", "own.yaml has the setting '1', which is unknown; known are architecture"),
        ("epoch: 2", "which is unknown; did you mean epochs?"),
        ("exposure_jitter: 0.1\nbrightness: 0.2", "found both exposure_jitter and brightness"),
    ],
)
def test_yaml_that_no_setting_can_be_is_one_line(line, expected, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(line)
    with pytest.raises(ConfigError) as caught:
        from_dict(load_preset(str(path)))
    assert expected in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_old_name_of_a_setting_may_change_a_preset_that_says_the_new_one(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("extends: cpu\nexposure_jitter: 0.125\n")
    assert load_preset("cpu")["brightness"] != 0.125
    assert from_dict(load_preset(str(path))).brightness == 0.125


def test_record_that_lacks_a_setting_means_what_older_versions_did():
    written = TrainConfig().to_dict()
    older = {name: value for name, value in written.items() if name not in BEFORE}
    assert from_record(older) == dataclasses.replace(TrainConfig(), **BEFORE)
    assert from_record(older) != from_dict(older) == TrainConfig()
    assert from_record(written) == TrainConfig()


def test_config_of_an_older_run_as_a_preset_means_what_it_meant(tmp_path, caplog):
    caplog.set_level("INFO")
    path, written = tmp_path / "config.yaml", TrainConfig().to_dict()
    path.write_text(json.dumps(written))  # which is YAML too
    assert from_dict(load_preset(str(path))) == TrainConfig()
    assert not caplog.messages
    path.write_text(json.dumps({name: value for name, value in written.items() if name not in BEFORE}))
    assert from_dict(load_preset(str(path))) == dataclasses.replace(TrainConfig(), **BEFORE)
    assert f"{path} is of a run of an older version" in caplog.text
    assert "aggregation_start torch" in caplog.text


@pytest.mark.parametrize("name", ["cpu", TWO_STREAMS])
def test_presets_that_were_measured_with_the_start_of_before_keep_it(name):
    assert load_preset(name).items() >= BEFORE.items()


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
    described = [line.split(maxsplit=1)[1] for line in lines]
    assert all(len(text) > 15 for text in described)
    assert len(set(described)) == len(described)


def test_backbone_of_timm_has_no_masks_and_may_stand_in_for_the_plain_stream():
    with pytest.raises(ConfigError, match=r"teacher timm:resnet18, distillation logits: no masks; change one of them"):
        from_dict({"teacher": "timm:resnet18", "distillation": "logits"})
    assert from_dict({"teacher": "timm:resnet18"}).design.plain_stream == "student"
    config = from_dict({"teacher": "timm:resnet18", "plain_stream": "teacher"})
    assert config.design.plain_stream == "timm:resnet18"
    assert from_dict(config.to_dict()) == config


def test_nsa_is_told_from_what_older_versions_called_so(plate, tmp_path, capsys, monkeypatch):
    old_settings._tell_of_old_kind.cache_clear()
    seen = []
    monkeypatch.setattr(preview, "preview", lambda settings, **_: seen.append(settings.pseudo_anomalies) or "")
    assert main(["preview", "--data", str(plate), "--pseudo-anomalies", "perlin+nsa"]) == 0
    assert seen.pop() == "perlin+nsa-binary"
    assert "pseudo anomalies nsa are nsa-binary" in capsys.readouterr().err
    (tmp_path / "own.yaml").write_text("extends: cpu\npseudo_anomalies: perlin+nsa\n")
    for _ in range(2):
        assert main(["preview", "--data", str(plate), "--preset", str(tmp_path / "own.yaml")]) == 0
        assert seen.pop() == "perlin+hiding"
    assert capsys.readouterr().err.count("pseudo anomalies nsa in a file are hiding") == 1
