"""The command that chooses a checkpoint's threshold again."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from export.__main__ import command as export_command
from stlm_edge.datasets import GOOD, load_category
from stlm_edge.errors import CheckpointError
from stlm_edge.imaging import read_image
from stlm_edge.network.checkpoint import load, save
from stlm_edge.network.design import Design
from stlm_edge.network.stlm import Stlm
from stlm_edge.network.weights import fingerprint
from stlm_edge.seal import sealed
from stlm_edge.seen import digest_of, seen_of
from train.__main__ import command, main


def test_command_chooses_by_either_method_and_the_method_travels(plate, checkpoint, capsys):
    arguments = ["threshold", str(checkpoint), "--data", str(plate), "--category", "plate"]
    assert main([*arguments, "--method", "f1"]) == 0
    spec = load(checkpoint).spec
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"threshold 0.5 (quantile on pytorch) -> {spec.threshold.value:.6g} (f1 on pytorch)")
    assert [line.split(":")[0] for line in printed[1:]] == [
        "false alarms on these 2 good pictures",
        "missed of these 4 defective pictures",
        "F1 on these pictures",
        "from 6 pictures",
    ]
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
        (["--device", "abacus"], 1, "device is 'abacus'"),
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


@pytest.mark.parametrize(("memory", "code"), [(0, 0), (60, 1)])
def test_f1_by_good_pictures_that_the_network_knows_is_told_or_refused(memory, code, plate, checkpoint, capsys):
    known = [sample.path for sample in load_category(plate, "plate").test if sample.label == GOOD]
    made = load(checkpoint)
    spec = dataclasses.replace(made.spec, seen=seen_of([digest_of(read_image(path)) for path in known]))
    if memory:
        design = Design(plain_stream="stlm-tiny", aggregation="memory", memory=memory)
        network = Stlm(made.network.architecture, design, image_size=spec.input_size).eval()
        spec = dataclasses.replace(spec, weights_sha256=fingerprint(network.state_dict()))
        made = dataclasses.replace(made, network=network)
    save(checkpoint, dataclasses.replace(made, spec=spec))
    before = checkpoint.read_bytes()
    assert main(["threshold", str(checkpoint), "--data", str(plate), "--category", "plate", "--method", "f1"]) == code
    told = capsys.readouterr().err
    assert f"{'remembers' if memory else 'SEEN PICTURES: the checkpoint has learnt from'} 2 of these 2 good" in told
    assert (checkpoint.read_bytes() == before) == (code == 1)


def test_picture_that_is_held_out_by_its_place_and_was_learnt_from_is_told(plate, checkpoint, capsys):
    made = load(checkpoint)
    good = [digest_of(read_image(sample.path)) for sample in load_category(plate, "plate").train]
    save(checkpoint, dataclasses.replace(made, spec=dataclasses.replace(made.spec, seen=seen_of(good))))
    assert main(["threshold", str(checkpoint), "--data", str(plate), "--category", "plate"]) == 0
    assert "SEEN PICTURES: the checkpoint has learnt from 1 of these 1 good picture (" in capsys.readouterr().err


@pytest.mark.parametrize("old", ["good", "good-quantile"])
def test_old_words_for_a_method_are_taken(plate, checkpoint, old):
    arguments = ["threshold", str(checkpoint), "--data", str(plate), "--category", "plate", "--method", old]
    assert main(arguments) == 0
    assert load(checkpoint).spec.threshold.method == "quantile"


def test_first_threshold_has_nothing_to_be_compared_with(plate, checkpoint, capsys):
    made = load(checkpoint)
    save(checkpoint, dataclasses.replace(made, spec=dataclasses.replace(made.spec, threshold=None)))
    assert (
        main(["threshold", str(checkpoint), "--data", str(plate), "--category", "plate", "--method", "f1-optimal"]) == 0
    )
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"threshold {load(checkpoint).spec.threshold.value:.6g} (f1 on pytorch), the first one"
    assert not [line for line in others if "before" in line]


def test_programs_share_the_command():
    assert command.commands["threshold"] is export_command.commands["threshold"]
    assert command.commands["threshold"].callback is export_command.commands["calibrate"].callback


def test_device_is_for_checkpoints(tmp_path, capsys):
    assert main(["threshold", str(tmp_path / "plate.onnx"), "--data", str(tmp_path), "--device", "cpu"]) == 2
    assert "goes with a checkpoint" in capsys.readouterr().err


def test_other_pictures_than_the_trainings_are_told(plate, checkpoint, capsys):
    assert main(["threshold", str(checkpoint), "--data", str(plate / "plate" / "train" / "good")]) == 0
    told = capsys.readouterr().err
    assert "OTHER PICTURES" in told and "so give the data that it was trained on" in told


def test_other_pictures_than_the_trainings_may_choose_by_their_labels(plate, checkpoint, tmp_path, capsys):
    shutil.copytree(plate / "plate", tmp_path / "plates")
    assert main(["threshold", str(checkpoint), "--data", str(tmp_path / "plates"), "--method", "f1"]) == 0
    told = capsys.readouterr().err
    assert "found plates; the threshold will be one for these" in told and "quantile" not in told


def test_threshold_out_of_reach_is_told_of_and_replaced(plate, checkpoint, capsys):
    with safe_open(checkpoint, framework="pt") as file:
        metadata = {name: file.metadata()[name] for name in ("spec", "design", "config")}
    spec = json.loads(metadata["spec"])
    spec["threshold"]["value"] = 45.0
    save_file(load_file(checkpoint), checkpoint, metadata=sealed(metadata | {"spec": json.dumps(spec)}))
    with pytest.raises(
        CheckpointError, match=r"the threshold is 45 .*choose it again in the checkpoint \(stlm threshold CHECKPOINT"
    ):
        load(checkpoint)
    assert main(["threshold", str(checkpoint), "--data", str(plate), "--category", "plate", "--method", "f1"]) == 0
    assert "is left out (the threshold is 45 where scores lie between 0 and " in capsys.readouterr().err
    assert load(checkpoint).spec.threshold.method == "f1"
