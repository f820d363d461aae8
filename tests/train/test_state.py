"""A run goes on from its own whole state alone."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
import torch

from stlm_edge.errors import CheckpointError
from train.fit import STATE_NAME, resume
from train.record import CONFIG_NAME, RECORD_NAME

from .conftest import EPOCHS
from .killed import killed_after, outcome

pytestmark = pytest.mark.heavy


def test_damaged_state_is_refused(begun):
    state = begun / STATE_NAME
    state.write_bytes(state.read_bytes()[:-2000])
    said = r"state\.pt does not fit this training \(it is damaged, or no file that torch has written\); train again"
    for content in (state.read_bytes(), b"junk", b""):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            resume(begun)


ALTERED = {
    "epoch": lambda state: state.update(epoch=2),
    "history": lambda state: state["history"].append(state["history"][0]),
    "weights": lambda state: state["objective"][next(iter(state["objective"]))].add_(1e-3),
    "moments": lambda state: state["optimisers"][0]["state"][0]["exp_avg"].zero_(),
    "rate": lambda state: state["optimisers"][0]["param_groups"][0].update(lr=1.0),
    "seal": lambda state: state.pop("sha256"),
}
IMPOSSIBLE = {
    "epoch of a longer run": lambda state: state.update(
        epoch=9, history=[{**state["history"][0], "epoch": n} for n in range(1, 10)]
    ),
    "epoch before": lambda state: state.update(epoch=0, history=[]),
    "nothing remembered": lambda state: state["optimisers"][0].update(state={}),
    "one number remembered": lambda state: state["optimisers"][0]["state"][0].update(exp_avg=torch.tensor(1.0)),
    "a word for a rate": lambda state: state["optimisers"][0]["param_groups"][0].update(lr="x"),
    "another rate": lambda state: state["optimisers"][0]["param_groups"][0].update(lr=1e9),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_state_that_was_altered_is_refused(begun, change):
    path = begun / STATE_NAME
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit .*(SHA-256|epoch)"):
        resume(begun)


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_state_without_a_seal_is_refused(begun, change):
    """Those of earlier versions had none."""
    path = begun / STATE_NAME
    state = torch.load(path, weights_only=True)
    del state["sha256"], state["settings"]
    state["version"] = 1
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit this training"):
        resume(begun)


@pytest.mark.parametrize("change", [{"last_epoch": 10**6}, {"T_max": 0}, {"base_lrs": [1.0]}, {"_last_lr": [1e9]}])
def test_impossible_schedule_is_refused(begun, change):
    path = begun / STATE_NAME
    state = torch.load(path, weights_only=True)
    del state["sha256"]
    state["version"] = 1
    state["schedulers"][0].update(change)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"its learning rate"):
        resume(begun)


@pytest.mark.parametrize(
    "change", [("seed: 3", "seed: 9"), ("epochs: 3", "epochs: 1"), ("holdout: ", "holdout: 0.7 #")]
)
def test_run_is_not_resumed_with_other_settings(begun, change):
    """Other pictures would be held out, of which the first part of the training has learnt."""
    config = begun / CONFIG_NAME
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    with pytest.raises(
        CheckpointError, match=f"it was begun with {change[0].partition(':')[0]} .*write the old value back"
    ):
        resume(begun)


def test_run_is_resumed_with_a_smaller_batch(begun):
    config = begun / CONFIG_NAME
    config.write_text(config.read_text().replace("batch_size: 2", "batch_size: 1"))
    resume(begun)
    assert len(outcome(begun)[2]) == EPOCHS


def test_unfinished_run_without_its_state_is_not_called_finished(begun):
    (begun / STATE_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"is not finished and has no state\.pt to go on from"):
        resume(begun)


def test_state_that_is_a_pipe_is_not_waited_for(begun):
    (begun / STATE_NAME).unlink()
    os.mkfifo(begun / STATE_NAME)
    with pytest.raises(CheckpointError, match="it is a pipe, expected a file"):
        resume(begun)


def test_state_of_another_run_is_refused_and_one_of_an_earlier_version_taken(begun, long, plate, tmp_path, monkeypatch):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "other")
    path = begun / STATE_NAME
    own = path.read_bytes()
    path.write_bytes((tmp_path / "other" / STATE_NAME).read_bytes())
    with pytest.raises(CheckpointError, match="it is another run's"):
        resume(begun)
    path.write_bytes(own)
    state = torch.load(path, weights_only=True)
    del state["sha256"], state["run_id"], state["settings"]
    state["version"] = 1
    state["optimisers"][0]["state"][0]["exp_avg"] = torch.zeros(3, 1, 1)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="its optimiser remembers"):
        resume(begun)
    state = torch.load(tmp_path / "other" / STATE_NAME, weights_only=True)
    del state["sha256"], state["run_id"], state["settings"]
    state["version"] = 1
    torch.save(state, path)
    (begun / ".state.pt.abcd1234.pt").touch()
    resume(begun)
    assert len(outcome(begun)[2]) == EPOCHS
    assert not [entry.name for entry in (begun).iterdir() if entry.name.startswith(".")]


def test_run_of_an_earlier_version_is_resumed(begun):
    """It tells neither where its weights were nor which pictures it had; its YAML has what YAML 1.1 makes of values."""
    record = json.loads((begun / RECORD_NAME).read_text())
    (begun / RECORD_NAME).write_text(json.dumps({key: record[key] for key in ("data", "category", "textures")}))
    config = (begun / CONFIG_NAME).read_text().replace("brightness:", "exposure_jitter:")
    (begun / CONFIG_NAME).write_bytes(b"\xef\xbb\xbf" + config.replace("\n", "\r\n").encode())
    resume(begun)
    assert len(outcome(begun)[2]) == EPOCHS


def test_state_without_the_frozen_plain_stream_is_refused(plate, tmp_path, monkeypatch, long):
    frozen = {"teacher": "timm:test_efficientnet", "teacher_weights": "random", "plain_stream": "teacher"}
    config = dataclasses.replace(long, epochs=2, **frozen)
    killed_after(config, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    torch.save({"objective": {}}, tmp_path / "run" / STATE_NAME)
    with pytest.raises(CheckpointError, match="does not fit this training"):
        resume(tmp_path / "run")
