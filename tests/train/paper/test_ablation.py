"""Settings that take back what a preset is about are refused before anything is run, whatever they are."""

from __future__ import annotations

import pytest

from stlm_edge.errors import ConfigError
from train.__main__ import main
from train.config import load_preset, presets
from train.paper.ablation import ablated, check_ablations
from train.paper.grid import plan

ABLATIONS = [name for name in presets() if name not in ("paper", "cpu")]


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_is_about_one_setting_which_the_papers_value_takes_back(name):
    ((setting, (papers, own)),) = ablated(name).items()
    assert own == load_preset(name)[setting]
    with pytest.raises(ConfigError, match=f"--{setting.replace('_', '-')} takes back") as refused:
        check_ablations({name: name}, {"epochs": 3, setting: papers})
    assert "--epochs" not in str(refused.value)
    check_ablations({name: name}, {"epochs": 3, "image_size": (64, 64)})


@pytest.mark.parametrize(
    ("name", "settings", "flag"),
    [
        ("table4-mobile-teacher", {"teacher": "none"}, "--teacher"),
        ("table7-no-teacher", {"teacher": "gabor"}, "--teacher"),
        ("table6-cosine", {"aggregation": "none"}, "--aggregation"),
        ("table11-cutpaste-scar", {"anomaly_probability": 0.0}, "--anomaly-probability"),
        ("figure5-separate-decoders", {"plain_stream": "teacher"}, "--plain-stream"),
    ],
)
def test_setting_that_leaves_an_ablation_nothing_to_do_is_refused(name, settings, flag):
    with pytest.raises(ConfigError, match=f"preset {name} is preset paper with .*{flag} takes back"):
        check_ablations({name: name}, settings | {"epochs": 3})


def test_random_weights_throughout_are_refused_for_table_8(tmp_path, capsys):
    output = tmp_path / "grid"
    arguments = ["grid", "--data", str(tmp_path), "--category", "bottle", "--preset", "table8-no-initial-weights"]
    assert main([*arguments, "--initial-weights", "random", "-o", str(output)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "random_encoders, initial_weights random" in line
    assert "(of preset table8-no-initial-weights)" in line
    assert not output.exists()


def test_own_preset_is_held_to_what_it_builds_on(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: table6-concat\nlearning_rate: 1e-3\n")
    with pytest.raises(ConfigError, match=r"own is preset table6-concat with learning_rate 0\.001, which --learning"):
        plan(presets=[str(own)], categories=["a"], seeds=[0], settings={"learning_rate": 5e-4}, output=tmp_path)
    own.write_text("extends: paper\nworkers: 2\n")  # nothing that could be taken back
    plan(presets=[str(own)], categories=["a"], seeds=[0], settings={"learning_rate": 5e-4}, output=tmp_path)
