"""The threshold of an engine is chosen by the scores that the engine gives, and stands in its sidecar alone."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import pytest

from export.__main__ import main
from export.gate.pictures import find_samples, read
from runtime.detector import Detector
from stlm_edge.datasets import GOOD
from stlm_edge.imaging import read_image
from stlm_edge.seen import digest_of, seen_of
from stlm_edge.sidecar import Sidecar

from ...runtime.conftest import SPEC, write_engine
from ..conftest import alter, shift_bias


def scores(engine: Path, data: Path) -> list[tuple[bool, float]]:
    with Detector.open(engine) as detector:
        return [(p.label != GOOD, detector.inspect(p.image).score) for p in read(find_samples(data, None))]


def test_threshold_follows_the_engines_scores_and_nothing_else_changes(engine, plate_data, capsys):
    alter(engine, shift_bias(1.0))  # an engine that scores higher than the network it was calibrated with
    before, content = Sidecar.read(engine), engine.read_bytes()
    good = plate_data / "test" / "good"
    assert main(["calibrate", str(engine), "--data", str(good), "--false-alarm-rate", "0.3"]) == 0
    printed = capsys.readouterr().out
    after = Sidecar.read(engine)
    measured = sorted(score for _, score in scores(engine, good))
    chosen = after.spec.threshold
    assert measured[3] < chosen.value <= measured[4] * (1 + 1e-6)
    assert (chosen.method, chosen.images, chosen.measured_on) == ("quantile", 6, "onnx")
    assert chosen.false_alarm_rate == pytest.approx(2 / 7)
    assert chosen.previous == before.spec.threshold.value
    assert after.spec.normal_score_range == pytest.approx((measured[0], measured[-1]))
    assert after.spec.normal_score_images == 6
    changed = {"threshold", "normal_score_range", "normal_score_deciles", "normal_score_images"}
    kept = {f.name: getattr(before.spec, f.name) for f in dataclasses.fields(before.spec) if f.name in changed}
    assert dataclasses.replace(after, spec=dataclasses.replace(after.spec, **kept)) == before
    assert engine.read_bytes() == content
    alarms = sum(score >= before.spec.threshold.value for score in measured)
    assert f"moved by {chosen.value - before.spec.threshold.value:+.3g}" in printed
    assert f"false alarms on these 6 good pictures: {alarms} before, 1 now" in printed


def test_parts_and_a_second_threshold_reach_the_sidecar_and_stay(engine, plate_data, tmp_path, capsys):
    good = plate_data / "test" / "good"
    groups = tmp_path / "parts.csv"
    groups.write_text(
        "picture,part\n" + "".join(f"{path.name},{n // 2}\n" for n, path in enumerate(sorted(good.iterdir())))
    )
    command = ["threshold", str(engine), "--data", str(good), "--false-alarm-rate", "0.3"]
    assert main([*command, "--groups", str(groups), "--unclear-rate", "0.6"]) == 0
    printed = capsys.readouterr()
    assert "good pictures: 6 pictures of 3 parts (by " in printed.err and "FEW PARTS" in printed.err
    assert "from 6 pictures of 3 parts" in printed.out and "unclear from " in printed.out
    measured = sorted(score for _, score in scores(engine, good))
    chosen = Sidecar.read(engine).spec.threshold
    assert (chosen.images, chosen.parts, chosen.unclear_rate) == (6, 3, 0.6)
    assert measured[1] <= chosen.unclear <= measured[2] * (1 + 1e-6) < chosen.value
    assert main(command) == 0  # the rate stays as it was
    assert Sidecar.read(engine).spec.threshold.unclear_rate == 0.6
    assert main([*command, "--unclear-rate", "0"]) == 0
    assert Sidecar.read(engine).spec.threshold.unclear is None


def test_f1_of_parts_and_with_a_second_threshold(engine, plate_data, capsys):
    command = ["threshold", str(engine), "--data", str(plate_data), "--method", "f1"]
    assert main([*command, "--group-by", "^00[0-9]"]) == 0
    assert "F1 on these pictures: " in capsys.readouterr().out
    assert Sidecar.read(engine).spec.threshold.parts == 6
    assert main(command) == 0
    assert Sidecar.read(engine).spec.threshold.parts is None  # nobody said any


def test_command_is_listed_by_its_name_of_today_alone(capsys):
    assert main(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.partition("Commands:")[2].splitlines() if line]
    assert "threshold" in listed and "calibrate" not in listed
    for name in ("threshold", "calibrate"):
        assert main([name, "--help"]) == 0
        assert f" {name} [OPTIONS] CHECKPOINT_OR_ENGINE" in capsys.readouterr().out


def test_labels_give_the_f1_optimum(engine, plate_data, capsys):
    assert main(["threshold", str(engine), "--data", str(plate_data), "--method", "f1"]) == 0
    chosen = Sidecar.read(engine).spec.threshold
    assert (chosen.method, chosen.images) == ("f1", 10)
    measured = scores(engine, plate_data)

    def f1(threshold: float) -> float:
        found = [(bad, score >= threshold) for bad, score in measured]
        hits = found.count((True, True))
        return 2 * hits / (2 * hits + found.count((False, True)) + found.count((True, False)))

    assert f1(chosen.value) == max(f1(score) for _, score in measured)
    missed = sum(bad and score < chosen.value for bad, score in measured)
    assert f"missed of these 4 defective pictures: 0 before, {missed} now" in capsys.readouterr().out


@pytest.mark.parametrize("spoil", ["no masks", "a damaged mask", "a mask of nothing"])
def test_labels_are_enough_for_f1(engine, plate_data, tmp_path, spoil):
    data = Path(shutil.copytree(plate_data, tmp_path / "plate"))
    if spoil == "no masks":
        shutil.rmtree(data / "ground_truth")
    else:
        mask = data / "ground_truth" / "scratch" / "000_mask.png"
        mask.write_bytes(b"cut off") if spoil == "a damaged mask" else mask.rename(mask.with_name("any.png"))
    for where in (plate_data, data):
        assert main(["calibrate", str(engine), "--data", str(where), "--method", "f1"]) == 0
    chosen = Sidecar.read(engine).spec.threshold
    assert (chosen.value, chosen.images) == (chosen.previous, 10)


def test_previous_value_is_the_one_replaced(engine, plate_data):
    good = ["--data", str(plate_data / "test" / "good")]
    assert main(["calibrate", str(engine), *good, "--false-alarm-rate", "0.5"]) == 0
    first = Sidecar.read(engine).spec.threshold.value
    assert main(["calibrate", str(engine), *good]) == 0
    assert Sidecar.read(engine).spec.threshold.previous == first


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "{data}"], 1, "4 of 10 pictures"),
        (["--data", "{data}/test/scratch"], 1, "labelled defective (scratch)"),
        (["--data", "{data}/test/good", "--method", "f1"], 1, "0 defective and 6 good"),
        (["--data", "{data}/test/scratch", "--method", "f1"], 1, "1 defective and 0 good"),
        (["--data", "{empty}"], 1, "has no pictures"),
        (["--data", "{empty}/nowhere"], 1, "does not exist"),
        (["--data", "{data}", "--method", "f1", "--false-alarm-rate", "0.1"], 2, "goes with --method quantile"),
        (["--data", "{data}", "--false-alarm-rate", "0"], 2, "is not in the range"),
        (["--data", "{data}/test/good", "--groups", "{empty}/none.csv"], 1, "none.csv cannot be read"),
        (["--data", "{data}/test/good", "--group-by", "x"], 1, "finds no part in the name 000 "),
        (["--data", "{data}/test/good", "--group-by", ""], 2, "found nothing as the value of --group-by"),
        (["--data", "{data}/test/good", "--group-by", "x", "--groups", "y"], 2, "give one of them"),
        (["--data", "{data}/test/good", "--unclear-rate", "0.01"], 2, "expected 0, or more than 0.01"),
        (["--data", "{data}/test/good", "--textures", "{data}"], 2, "goes with a checkpoint"),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(engine, plate_data, tmp_path, capsys, arguments, code, words):
    before = Sidecar.path_for(engine).read_bytes()
    (tmp_path / "empty").mkdir()
    filled = [argument.format(data=plate_data, empty=tmp_path / "empty") for argument in arguments]
    assert main(["calibrate", str(engine), *filled]) == code
    assert words in capsys.readouterr().err
    assert Sidecar.path_for(engine).read_bytes() == before


def test_training_pictures_are_warned_of(engine, plate_data, capsys):
    assert main(["calibrate", str(engine), "--data", str(plate_data / "train" / "good")]) == 0
    assert "TRAINING PICTURES: 3 of 3" in capsys.readouterr().err


@pytest.mark.parametrize(("memory", "code"), [(0, 0), (9, 1)])
@pytest.mark.parametrize("method", ["quantile", "f1"])
def test_pictures_that_the_engine_knows_are_told_or_refused(method, memory, code, plate_data, tmp_path, capsys):
    known = sorted((plate_data / "test" / "good").iterdir())[:2]
    spec = dataclasses.replace(SPEC, memory=memory, seen=seen_of([digest_of(read_image(path)) for path in known]))
    engine = write_engine(tmp_path / "plate.onnx", spec=spec)
    before = Sidecar.path_for(engine).read_bytes()
    data = plate_data if method == "f1" else plate_data / "test" / "good"
    assert main(["threshold", str(engine), "--data", str(data), "--method", method]) == code
    told = capsys.readouterr().err
    verb = "remembers" if memory else "has learnt from"
    assert f"{engine} {verb} 2 of these 6 good pictures (the first is good/000.png)" in told
    assert "TRAINING PICTURES" not in told
    assert (Sidecar.path_for(engine).read_bytes() == before) == (code == 1)


def test_unverified_engine_is_warned_of(engine, plate_data, capsys):
    alter(engine, shift_bias(0.0))
    assert main(["calibrate", str(engine), "--data", str(plate_data / "test" / "good")]) == 0
    assert "UNVERIFIED ENGINE" in capsys.readouterr().err


def test_full_disk_leaves_the_sidecar(engine, plate_data, monkeypatch, capsys):
    before = Sidecar.path_for(engine).read_bytes()

    def full_disk(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        assert main(["calibrate", str(engine), "--data", str(plate_data / "test" / "good")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert Sidecar.path_for(engine).read_bytes() == before
