"""A killed run goes on as if nothing had happened, and its last good checkpoint is never lost."""

from __future__ import annotations

import dataclasses
import json
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from stlm_edge.errors import CheckpointError, OutputError
from stlm_edge.network.checkpoint import load
from train.fit import STATE_NAME, fit, resume

pytestmark = pytest.mark.heavy

EPOCHS = 4
"""Of two steps each, since two of the plate's six pictures are held out or left over."""


def outcome(folder):
    """The weights' hash, the threshold and the losses of each epoch."""
    spec = load(folder / "model.safetensors").spec
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    losses = [(line["epoch"], line["plain"], line["denoising"], line["segmentation"]) for line in lines]
    return spec.weights_sha256, spec.threshold, losses


@pytest.fixture
def long(quick):
    return dataclasses.replace(quick, epochs=EPOCHS, seed=3)


class Killed(BaseException):
    """Stands for a kill in the middle of an epoch."""


def killed_after(config, epochs, monkeypatch, *, plate, output):
    """Train until some steps into the epoch after `epochs`, then stop without any tidying up."""
    from train import loop

    original, steps = loop._step, [0]

    def step(*arguments, **options):
        steps[0] += 1
        if steps[0] > 2 * epochs + 1:
            raise Killed
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", step)
        with pytest.raises(Killed):
            fit(config, data=plate, category="plate", textures=None, output=output)


@pytest.mark.parametrize("changes", [{}, {"head_optimiser": "sgd", "segmentation_loss": "focal-l1"}, {"workers": 2}])
def test_run_is_its_first_half_and_the_resumed_second_bit_for_bit(changes, long, plate, tmp_path, monkeypatch):
    config = dataclasses.replace(long, **changes)
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "whole")
    killed_after(config, EPOCHS // 2, monkeypatch, plate=plate, output=tmp_path / "halves")
    assert len(outcome(tmp_path / "halves")[2]) == EPOCHS // 2
    assert (tmp_path / "halves" / STATE_NAME).exists()
    resume(tmp_path / "halves")
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")
    assert len(outcome(tmp_path / "whole")[2]) == EPOCHS


def test_killed_process_is_resumed_from_the_command_line(plate, tmp_path):
    """With a real SIGKILL at whatever moment it comes."""
    run = tmp_path / "run"
    arguments = ["--preset", "cpu", "--image-size", "64", "--epochs", "12", "--batch-size", "2"]
    command = [sys.executable, "-m", "train", "fit", "--data", str(plate), "--category", "plate", *arguments]
    process = subprocess.Popen([*command, "-o", str(run)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (run / "history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(
        [sys.executable, "-m", "train", "resume", str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run / "model.safetensors")
    assert [epoch for epoch, *_ in outcome(run)[2]] == list(range(1, 13))
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")], "nothing half-written is left"


def test_run_killed_before_its_first_epoch_begins_again(long, plate, tmp_path, monkeypatch):
    killed_after(long, 0, monkeypatch, plate=plate, output=tmp_path / "run")
    resume(tmp_path / "run")
    fit(long, data=plate, category="plate", textures=None, output=tmp_path / "whole")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_only_an_unfinished_run_can_be_resumed(trained_run, tmp_path):
    with pytest.raises(CheckpointError, match="is no run to resume"):
        resume(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is finished"):
        resume(trained_run)


def test_damaged_state_is_refused(long, plate, tmp_path, monkeypatch):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    state = tmp_path / "run" / STATE_NAME
    state.write_bytes(state.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(epoch=3),
        lambda state: state["history"].append(state["history"][0]),
        lambda state: state["objective"][next(iter(state["objective"]))].add_(1e-3),
        lambda state: state["optimisers"][0]["state"][0]["exp_avg"].zero_(),
        lambda state: state["optimisers"][0]["param_groups"][0].update(lr=1.0),
    ],
    ids=["epoch", "history", "weights", "moments", "rate"],
)
def test_state_that_was_altered_is_refused(long, plate, tmp_path, monkeypatch, change):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    path = tmp_path / "run" / STATE_NAME
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit .*(SHA-256|epoch)"):
        resume(tmp_path / "run")


def test_state_of_another_run_is_refused_and_one_of_an_earlier_version_taken(long, plate, tmp_path, monkeypatch):
    for name in ("one", "other"):
        killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / name)
    path = tmp_path / "one" / STATE_NAME
    own = path.read_bytes()
    path.write_bytes((tmp_path / "other" / STATE_NAME).read_bytes())
    with pytest.raises(CheckpointError, match="it is another run's"):
        resume(tmp_path / "one")
    path.write_bytes(own)
    state = torch.load(path, weights_only=True)
    del state["sha256"], state["run_id"]
    state["optimisers"][0]["state"][0]["exp_avg"] = torch.zeros(3, 1, 1)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="its optimiser remembers"):
        resume(tmp_path / "one")
    state = torch.load(tmp_path / "other" / STATE_NAME, weights_only=True)
    del state["sha256"], state["run_id"]
    torch.save(state, path)
    (tmp_path / "one" / ".state.pt.abcd1234.pt").touch()
    resume(tmp_path / "one")
    assert len(outcome(tmp_path / "one")[2]) == EPOCHS
    assert not [entry.name for entry in (tmp_path / "one").iterdir() if entry.name.startswith(".")]


def test_new_run_in_an_unfinished_ones_folder_is_told_how_to_go_on(long, plate, tmp_path, monkeypatch):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    with pytest.raises(OutputError, match="go on with python -m train resume"):
        fit(long, data=plate, category="plate", textures=None, output=tmp_path / "run")


def test_full_disk_keeps_the_last_checkpoint(long, plate, tmp_path, monkeypatch):
    """Writing fails in the third epoch as on a full disk; what the second one wrote stays whole and can be resumed."""
    run = tmp_path / "run"
    from train import fit as module

    original, written = module.save, []

    def save(path, checkpoint):
        written.append(path)
        if len(written) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        original(path, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save", save)
        try:
            with pytest.raises(OutputError, match="cannot write"):
                fit(long, data=plate, category="plate", textures=None, output=run)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    load(run / "model.safetensors")
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "run.json", "history.jsonl", "model.safetensors", STATE_NAME,
    }  # fmt: skip
    resume(run)
    assert len(outcome(run)[2]) == EPOCHS
