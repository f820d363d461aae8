"""What a user gives instead of a preset's settings."""

import pytest

from stlm_edge.errors import ConfigError
from train.config import TrainConfig, from_dict, load_preset
from train.overrides import OF_A_FROZEN_STREAM, with_overrides


def test_given_settings_stand_before_the_presets():
    assert with_overrides("cpu", {"epochs": 3}) == from_dict(load_preset("cpu") | {"epochs": 3})


@pytest.mark.parametrize("teacher", ["gabor", "none"])
def test_teacher_that_cannot_be_deployed_brings_two_streams(teacher, caplog):
    config = with_overrides("cpu", {"teacher": teacher})
    assert config.design.has_denoising
    assert all(getattr(config, name) == getattr(TrainConfig, name) for name in OF_A_FROZEN_STREAM)
    assert config.epochs == load_preset("cpu")["epochs"]
    assert f"teacher {teacher} cannot be the plain stream, so two streams learn" in caplog.text
    assert "memory" in caplog.text and "heads 5" in caplog.text


def test_what_a_user_asks_for_himself_is_refused_rather_than_left_out():
    with pytest.raises(ConfigError, match="memory, plain_stream student"):
        with_overrides("cpu", {"teacher": "gabor", "memory": 100})
    with pytest.raises(ConfigError, match="teacher gabor, plain_stream teacher"):
        with_overrides("cpu", {"teacher": "gabor", "plain_stream": "teacher"})


def test_presets_of_two_streams_stay_as_they_are(caplog):
    assert with_overrides("paper", {"teacher": "gabor"}) == from_dict(load_preset("paper") | {"teacher": "gabor"})
    assert not caplog.records
