"""A killed run goes on as if nothing had happened, and its last good checkpoint is never lost."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from stlm_edge.errors import CheckpointError, DataError, OutputError, WeightsError
from stlm_edge.network.checkpoint import load
from stlm_edge.network.weights import load_torch_file
from stlm_edge.seal import SEAL
from tests.settings import TWO_STREAMS
from train.__main__ import main
from train.config import TrainConfig
from train.fit import STATE_NAME, fit, resume
from train.old_settings import BEFORE
from train.record import CONFIG_NAME, RECORD_NAME, read_record
from train.training import _sha256

from .conftest import EPOCHS
from .killed import Killed, kill_after, killed_after, outcome

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("changes", [{"head_optimiser": "sgd", "segmentation_loss": "focal-l1"}, {"workers": 2}])
def test_run_is_its_first_half_and_the_resumed_second_bit_for_bit(changes, long, plate, tmp_path, monkeypatch):
    config = dataclasses.replace(long, **changes)
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "whole")
    killed_after(config, 2, monkeypatch, plate=plate, output=tmp_path / "halves")
    assert len(outcome(tmp_path / "halves")[2]) == 2
    assert (tmp_path / "halves" / STATE_NAME).exists()
    resume(tmp_path / "halves")
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")
    assert len(outcome(tmp_path / "whole")[2]) == EPOCHS


def without_what_older_versions_did_not_say(folder):
    """Make a run's folder what a version before these settings would have written."""
    text = (folder / CONFIG_NAME).read_text().splitlines(keepends=True)
    (folder / CONFIG_NAME).write_text("".join(line for line in text if line.split(":")[0] not in BEFORE))
    state = load_torch_file(folder / STATE_NAME)
    for name in BEFORE:
        del state["settings"][name]
    del state[SEAL]
    torch.save(state | {SEAL: _sha256(state)}, folder / STATE_NAME)


def test_run_of_an_older_version_goes_on_as_it_began(long, whole_run, plate, tmp_path, monkeypatch):
    """What is random in its network, and the random teacher drawn after it, are the same; its record then says so."""
    assert long.to_dict().items() >= BEFORE.items() != {name: getattr(TrainConfig, name) for name in BEFORE}.items()
    killed_after(long, 2, monkeypatch, plate=plate, output=tmp_path / "run")
    without_what_older_versions_did_not_say(tmp_path / "run")
    assert read_record(tmp_path / "run").config == long
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole_run)
    assert read_record(tmp_path / "run").config == long


def test_killed_process_is_resumed_from_the_command_line(plate, tmp_path, capsys):
    """With a real SIGKILL at whatever moment it comes."""
    run = tmp_path / "run"
    arguments = ["--preset", TWO_STREAMS, "--image-size", "64", "--epochs", "12", "--batch-size", "2"]
    command = [sys.executable, "-m", "train", "fit", "--data", str(plate), "--category", "plate", *arguments]
    process = subprocess.Popen([*command, "-o", str(run)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (run / "history.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["resume", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "model.safetensors")
    assert [epoch for epoch, *_ in outcome(run)[2]] == list(range(1, 13))
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")], "nothing half-written is left"


def test_run_killed_before_its_first_epoch_begins_again(long, whole_run, plate, tmp_path, monkeypatch):
    killed_after(long, 0, monkeypatch, plate=plate, output=tmp_path / "run")
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole_run)


def test_only_an_unfinished_run_can_be_resumed(trained_run, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no run, found no config\.yaml in it, expected a folder that"):
        resume(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is finished"):
        resume(trained_run)


def test_new_run_in_an_unfinished_ones_folder_is_told_how_to_go_on(begun, long, plate):
    with pytest.raises(OutputError, match="go on with stlm resume"):
        fit(long, data=plate, category="plate", textures=None, output=begun)


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


def test_run_goes_on_from_another_folder_under_another_name_without_its_initial_weights(
    long, plate, trained_run, tmp_path, monkeypatch
):
    """Bit for bit: all weights are in the state; what else the run needs is found from everywhere."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    shutil.copy(trained_run / "model.safetensors", here / "start.safetensors")
    (here / "data").symlink_to(plate)
    shutil.copytree(plate / "plate" / "train" / "good", here / "textures")
    config = dataclasses.replace(long, initial_weights="start.safetensors")
    relative = {"category": "plate", "textures": (here / "textures").relative_to(here)}
    monkeypatch.chdir(here)
    fit(config, data=(here / "data").relative_to(here), output=tmp_path / "whole", **relative)
    with monkeypatch.context() as patch:
        kill_after(patch, epochs=1)
        with pytest.raises(Killed):
            fit(config, data=(here / "data").relative_to(here), output=(here / "run").relative_to(here), **relative)
    monkeypatch.chdir(there)
    (here / "start.safetensors").unlink()
    (here / "data").unlink()
    (here / "run").rename(there / "renamed")
    (there / "link").symlink_to("renamed")
    assert main(["resume", "link"]) == 0
    assert outcome(there / "renamed") == outcome(tmp_path / "whole")
    assert load(there / "link" / "model.safetensors").config == load(tmp_path / "whole" / "model.safetensors").config


def test_run_that_never_wrote_a_state_finds_its_relative_weights_again(long, plate, trained_run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    shutil.copy(trained_run / "model.safetensors", tmp_path / "here" / "start.safetensors")
    monkeypatch.chdir(tmp_path / "here")
    config = dataclasses.replace(long, initial_weights="start.safetensors")
    killed_after(config, 0, monkeypatch, plate=plate, output=tmp_path / "run")
    (tmp_path / "run" / STATE_NAME).unlink()
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "run")
    assert len(outcome(tmp_path / "run")[2]) == EPOCHS
    record = json.loads((tmp_path / "run" / RECORD_NAME).read_text())
    assert record["weights"] == {"initial_weights": str(tmp_path / "here" / "start.safetensors")}


def test_pictures_and_textures_that_moved_are_given_anew(long, plate, tmp_path, monkeypatch, capsys):
    good = plate / "plate" / "train" / "good"
    data, textures = shutil.copytree(good, tmp_path / "data"), shutil.copytree(good, tmp_path / "textures")
    arguments = {"data": data, "category": None, "textures": textures}
    fit(long, output=tmp_path / "whole", **arguments)
    with monkeypatch.context() as patch:
        kill_after(patch, epochs=1)
        with pytest.raises(Killed):
            fit(long, output=tmp_path / "run", **arguments)
    moved, textures = data.rename(tmp_path / "disk"), textures.rename(tmp_path / "other")
    assert main(["resume", str(tmp_path / "run")]) == 1
    assert str(data) in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "run"), "--data", str(moved), "--textures", str(textures)]) == 0
    assert outcome(tmp_path / "run")[0] == outcome(tmp_path / "whole")[0]


def test_run_is_not_resumed_on_other_pictures(begun, plate, tmp_path):
    """They would be split anew, and some of those that choose the threshold have been learnt from."""
    data = shutil.copytree(plate, tmp_path / "data")
    with pytest.raises(DataError, match=r"begun on 6 good pictures, found 5 others .* give --data"):
        (data / "plate" / "train" / "good" / "000.png").unlink()
        resume(begun, data=data)


def test_teacher_that_moved_is_given_anew(plate, tmp_path, monkeypatch, long):
    torch.manual_seed(5)
    from stlm_edge.network.teachers import sam

    monkeypatch.setitem(sam.PUBLISHED, "stlm-tiny", sam.PUBLISHED["mobile_sam"])
    monkeypatch.setattr(sam, "load_exactly", lambda *_, **__: None)
    (tmp_path / "here").mkdir()
    torch.save({"a": torch.zeros(1)}, tmp_path / "here" / "teacher.pt")
    monkeypatch.chdir(tmp_path / "here")
    config = dataclasses.replace(long, teacher_weights="teacher.pt")
    killed_after(config, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    moved = (tmp_path / "here" / "teacher.pt").rename(tmp_path / "moved.pt")
    with pytest.raises(WeightsError, match=r"here/teacher\.pt is no file"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", teacher_weights=moved.relative_to(tmp_path))
    assert len(outcome(tmp_path / "run")[2]) == EPOCHS


def test_frozen_plain_stream_needs_no_file_of_its_teacher_any_more(plate, tmp_path, monkeypatch, long):
    """Neither where a run goes on, bit for bit, nor where another one starts from its checkpoint."""
    torch.manual_seed(5)
    weights = tmp_path / "backbone.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    frozen = {"teacher": "timm:test_efficientnet", "teacher_weights": str(weights), "plain_stream": "teacher"}
    config = dataclasses.replace(long, epochs=2, **frozen)
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "whole")
    killed_after(config, 1, monkeypatch, plate=plate, output=tmp_path / "halves")
    weights.unlink()
    resume(tmp_path / "halves")
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")
    first = load(tmp_path / "whole" / "model.safetensors").network.plain.state_dict()
    assert first["project.bias"].abs().max() > 0  # settled
    again = dataclasses.replace(config, seed=4, epochs=1, initial_weights=str(tmp_path / "whole" / "model.safetensors"))
    fit(again, data=plate, category="plate", textures=None, output=tmp_path / "again")
    second = load(tmp_path / "again" / "model.safetensors").network.plain.state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_backbone_teaches_both_students(plate, tmp_path, monkeypatch, long):
    config = dataclasses.replace(long, epochs=1, teacher="timm:test_efficientnet", teacher_weights="random")
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "run")
    assert all(loss > 0 for loss in outcome(tmp_path / "run")[2][0][1:])
    assert not [
        name for name in load(tmp_path / "run" / "model.safetensors").network.state_dict() if "project." in name
    ]
