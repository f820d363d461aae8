"""A killed run goes on as if nothing had happened, and its last good checkpoint is never lost."""

from __future__ import annotations

import dataclasses
import json
import os
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
from train.config import BEFORE, TrainConfig
from train.fit import STATE_NAME, fit, resume
from train.record import CONFIG_NAME, RECORD_NAME, read_record
from train.training import _sha256

pytestmark = pytest.mark.heavy

EPOCHS = 4
"""Of two steps each, since two of the plate's six pictures are held out or left over."""

NOW = {name: getattr(TrainConfig, name) for name in BEFORE}
"""What a run does that is begun now, unless told otherwise."""


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


def without_what_older_versions_did_not_say(folder):
    """Make a run's folder what a version before these settings would have written."""
    text = (folder / CONFIG_NAME).read_text().splitlines(keepends=True)
    (folder / CONFIG_NAME).write_text("".join(line for line in text if line.split(":")[0] not in BEFORE))
    state = load_torch_file(folder / STATE_NAME)
    for name in BEFORE:
        del state["settings"][name]
    del state[SEAL]
    torch.save(state | {SEAL: _sha256(state)}, folder / STATE_NAME)


def test_run_of_an_older_version_goes_on_as_it_began(long, plate, tmp_path, monkeypatch):
    """What is random in its network, and the random teacher drawn after it, are the same; its record then says so."""
    config = dataclasses.replace(long, **BEFORE)
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "whole")
    killed_after(config, EPOCHS // 2, monkeypatch, plate=plate, output=tmp_path / "halves")
    without_what_older_versions_did_not_say(tmp_path / "halves")
    assert read_record(tmp_path / "halves").config == config != dataclasses.replace(long, **NOW)
    resume(tmp_path / "halves")
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")
    assert read_record(tmp_path / "halves").config == config


def test_killed_process_is_resumed_from_the_command_line(plate, tmp_path):
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
    said = r"state\.pt does not fit this training \(it is damaged, or no file that torch has written\); train again"
    for content in (state.read_bytes(), b"junk", b""):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            resume(tmp_path / "run")


ALTERED = {
    "epoch": lambda state: state.update(epoch=3),
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
def test_state_that_was_altered_is_refused(long, plate, tmp_path, monkeypatch, change):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    path = tmp_path / "run" / STATE_NAME
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit .*(SHA-256|epoch)"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("change", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_state_without_a_seal_is_refused(long, plate, tmp_path, monkeypatch, change):
    """Those of earlier versions had none."""
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    path = tmp_path / "run" / STATE_NAME
    state = torch.load(path, weights_only=True)
    del state["sha256"], state["settings"]
    state["version"] = 1
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"state\.pt does not fit this training"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("change", [{"last_epoch": 10**6}, {"T_max": 0}, {"base_lrs": [1.0]}, {"_last_lr": [1e9]}])
def test_impossible_schedule_is_refused(long, plate, tmp_path, monkeypatch, change):
    config = dataclasses.replace(long, schedule="cosine")
    killed_after(config, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    path = tmp_path / "run" / STATE_NAME
    state = torch.load(path, weights_only=True)
    del state["sha256"]
    state["version"] = 1
    state["schedulers"][0].update(change)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"its learning rate"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    "change", [("seed: 3", "seed: 9"), ("epochs: 4", "epochs: 1"), ("holdout: ", "holdout: 0.7 #")]
)
def test_run_is_not_resumed_with_other_settings(long, plate, tmp_path, monkeypatch, change):
    """Other pictures would be held out, of which the first part of the training has learnt."""
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    config = tmp_path / "run" / CONFIG_NAME
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    with pytest.raises(
        CheckpointError, match=f"it was begun with {change[0].partition(':')[0]} .*write the old value back"
    ):
        resume(tmp_path / "run")
    config.write_text(text.replace("batch_size: 2", "batch_size: 1"))
    resume(tmp_path / "run")


def test_unfinished_run_without_its_state_is_not_called_finished(long, plate, tmp_path, monkeypatch):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    (tmp_path / "run" / STATE_NAME).unlink()
    with pytest.raises(CheckpointError, match=r"is not finished and has no state\.pt to go on from"):
        resume(tmp_path / "run")


def test_state_that_is_a_pipe_is_not_waited_for(long, plate, tmp_path, monkeypatch):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    (tmp_path / "run" / STATE_NAME).unlink()
    os.mkfifo(tmp_path / "run" / STATE_NAME)
    with pytest.raises(CheckpointError, match="it is a pipe, expected a file"):
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
    del state["sha256"], state["run_id"], state["settings"]
    state["version"] = 1
    state["optimisers"][0]["state"][0]["exp_avg"] = torch.zeros(3, 1, 1)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="its optimiser remembers"):
        resume(tmp_path / "one")
    state = torch.load(tmp_path / "other" / STATE_NAME, weights_only=True)
    del state["sha256"], state["run_id"], state["settings"]
    state["version"] = 1
    torch.save(state, path)
    (tmp_path / "one" / ".state.pt.abcd1234.pt").touch()
    resume(tmp_path / "one")
    assert len(outcome(tmp_path / "one")[2]) == EPOCHS
    assert not [entry.name for entry in (tmp_path / "one").iterdir() if entry.name.startswith(".")]


def test_new_run_in_an_unfinished_ones_folder_is_told_how_to_go_on(long, plate, tmp_path, monkeypatch):
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    with pytest.raises(OutputError, match="go on with stlm resume"):
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
        killed_in_the_second_epoch(patch)
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


def killed_in_the_second_epoch(patch):
    from train import loop

    original, steps = loop._step, [0]

    def step(*arguments, **options):
        steps[0] += 1
        if steps[0] > 3:
            raise Killed
        return original(*arguments, **options)

    patch.setattr(loop, "_step", step)


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
        killed_in_the_second_epoch(patch)
        with pytest.raises(Killed):
            fit(long, output=tmp_path / "run", **arguments)
    moved, textures = data.rename(tmp_path / "disk"), textures.rename(tmp_path / "other")
    assert main(["resume", str(tmp_path / "run")]) == 1
    assert str(data) in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "run"), "--data", str(moved), "--textures", str(textures)]) == 0
    assert outcome(tmp_path / "run")[0] == outcome(tmp_path / "whole")[0]


def test_run_is_not_resumed_on_other_pictures(long, plate, tmp_path, monkeypatch):
    """They would be split anew, and some of those that choose the threshold have been learnt from."""
    data = shutil.copytree(plate, tmp_path / "data")
    killed_after(long, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    with pytest.raises(DataError, match=r"begun on 6 good pictures, found 5 others .* give --data"):
        (data / "plate" / "train" / "good" / "000.png").unlink()
        resume(tmp_path / "run", data=data)


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


def test_run_of_an_earlier_version_is_resumed(long, plate, tmp_path, monkeypatch):
    """It tells neither where its weights were nor which pictures it had; its YAML has what YAML 1.1 makes of values."""
    run = tmp_path / "run"
    killed_after(long, 1, monkeypatch, plate=plate, output=run)
    record = json.loads((run / RECORD_NAME).read_text())
    (run / RECORD_NAME).write_text(json.dumps({key: record[key] for key in ("data", "category", "textures")}))
    config = (run / CONFIG_NAME).read_text().replace("brightness:", "exposure_jitter:")
    (run / CONFIG_NAME).write_bytes(b"\xef\xbb\xbf" + config.replace("\n", "\r\n").encode())
    resume(run)
    assert len(outcome(run)[2]) == EPOCHS


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


def test_state_without_the_frozen_plain_stream_is_refused(plate, tmp_path, monkeypatch, long):
    frozen = {"teacher": "timm:test_efficientnet", "teacher_weights": "random", "plain_stream": "teacher"}
    config = dataclasses.replace(long, epochs=2, **frozen)
    killed_after(config, 1, monkeypatch, plate=plate, output=tmp_path / "run")
    torch.save({"objective": {}}, tmp_path / "run" / STATE_NAME)
    with pytest.raises(CheckpointError, match="does not fit this training"):
        resume(tmp_path / "run")


def test_backbone_teaches_both_students(plate, tmp_path, monkeypatch, long):
    config = dataclasses.replace(long, epochs=1, teacher="timm:test_efficientnet", teacher_weights="random")
    fit(config, data=plate, category="plate", textures=None, output=tmp_path / "run")
    assert all(loss > 0 for loss in outcome(tmp_path / "run")[2][0][1:])
    assert not [
        name for name in load(tmp_path / "run" / "model.safetensors").network.state_dict() if "project." in name
    ]
