"""The gate verifies an engine that answers like its network, and refuses and names one that does not."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from sklearn.metrics import roc_auc_score

from export.__main__ import main
from export.gate.limits import LIMITS
from export.gate.pictures import Pictures, find_samples, read
from export.gate.verify import require_verified, verify
from export.publish import unverified_name
from runtime.detector import Detector
from stlm_edge.datasets import GOOD
from stlm_edge.errors import DataError, EngineError, OutputError, SpecError, VerificationError
from stlm_edge.files import sha256
from stlm_edge.imaging import read_image, resize_map, to_input, write_image
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.inference import InferencePath, prepare
from stlm_edge.network.weights import fingerprint
from stlm_edge.seen import digest_of
from stlm_edge.sidecar import Gate, Sidecar

from ..conftest import alter, shift_bias


def full_disk(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def as_plan(engine: Path) -> Path:
    """A plan that nothing here can run, as if built from `engine`, which then lies beside it."""
    plan = engine.with_name("plate.plan")
    plan.write_bytes(b"ftrt and no GPU")
    sidecar = Sidecar.read(engine)
    record = dataclasses.replace(
        sidecar.engine,
        product="tensorrt-rtx",
        device="sm86",
        engine_sha256=sha256(plan),
        onnx_sha256=sidecar.engine.engine_sha256,
        gate=None,
    )
    dataclasses.replace(sidecar, engine=record).write(plan)
    shutil.copy(engine, engine.with_name("plate.plan.onnx"))
    return plan


def test_export_is_verified_and_the_sidecar_says_by_what(engine):
    gate = Sidecar.read(engine).engine.gate
    assert (gate.verified, gate.executed, gate.reference) == (True, True, "pytorch")
    assert gate.limits == LIMITS["fp32"]
    assert [drift.backend for drift in gate.drifts] == ["onnxruntime", "openvino"]
    assert {drift.images for drift in gate.drifts} == {6}


def test_true_engine_is_verified_by_every_backend(engine, plate_data, tmp_path, capsys, small_checkpoint):
    before = Sidecar.read(engine)
    sheet, figures = tmp_path / "out" / "worst.png", tmp_path / "out" / "gate.json"
    arguments = [
        "--reference",
        str(small_checkpoint),
        "--data",
        str(plate_data),
        "--picture",
        str(sheet),
        "--json",
        str(figures),
    ]
    assert main(["verify", str(engine), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "plate.onnx is verified" in printed
    after = Sidecar.read(engine)
    gate = after.engine.gate
    assert [drift.backend for drift in gate.drifts] == ["onnxruntime", "openvino"]
    assert {drift.images for drift in gate.drifts} == {10}
    assert all(drift.map_correlation > 0.9999 and drift.aupro_drift is not None for drift in gate.drifts)
    assert dataclasses.replace(after, engine=dataclasses.replace(after.engine, gate=None)) == dataclasses.replace(
        before, engine=dataclasses.replace(before.engine, gate=None)
    )
    content = json.loads(figures.read_text())
    assert content["gate"]["verified"] is True
    assert [row["name"] for row in content["rows"]] == ["onnxruntime", "openvino"]
    assert (content["pictures"], content["tells_quality"]) == ({"good": 6, "defective": 4}, False)
    assert content["reference_metrics"]["pixel_auroc"] > 0
    assert "on 10 pictures, 4 of defects: how far each is from pytorch, and not how good the model is" in printed
    assert f"{100 * content['reference_metrics']['pixel_auroc']:.2f}" not in printed  # ten pictures do not tell
    assert cv2.imread(str(sheet)).shape[0] > 2 * 224


def test_good_pictures_that_the_network_knows_are_told_where_its_quality_is(
    engine, plate_data, capsys, small_checkpoint, monkeypatch
):
    known = digest_of(read_image(plate_data / "test" / "good" / "000.png"))
    sidecar = Sidecar.read(engine)
    dataclasses.replace(sidecar, spec=dataclasses.replace(sidecar.spec, seen=known)).write(engine)
    command = ["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(plate_data)]
    assert main(command) == 0
    assert "SEEN PICTURES" not in capsys.readouterr().err  # how far sides differ is exact on any pictures
    monkeypatch.setattr("export.gate.examine.FEWEST_FOR_QUALITY", 4)
    assert main(command) == 0
    assert "remembers 1 of these 6 good pictures (good/000.png)" in capsys.readouterr().err


def test_altered_graph_is_refused_named_and_recorded(engine, plate_data, capsys, small_checkpoint):
    alter(engine, shift_bias(0.05))
    assert main(["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(plate_data)]) == 1
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "plate.onnx is NOT VERIFIED (onnxruntime: largest map error is 0.0" in error
    gate = Sidecar.read(engine).engine.gate
    assert not gate.verified
    assert any(line.startswith("openvino: largest map error") for line in gate.objections)


def test_what_fp32_may_not_do_int8_may(engine, plate_data, small_checkpoint):
    alter(engine, shift_bias(0.05), precision="int8")
    gate = verify(engine, reference=small_checkpoint, data=plate_data).gate
    assert gate.verified
    assert gate.limits == LIMITS["int8"]


def test_metric_drift_of_a_real_graph_is_scikit_learns(engine, plate_data, small_checkpoint):
    def blur(model: onnx.ModelProto) -> None:
        (weight,) = [item for item in model.graph.initializer if item.name.endswith("head.out.weight")]
        values = onnx.numpy_helper.to_array(weight)
        noise = np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
        weight.CopyFrom(onnx.numpy_helper.from_array(values + 3 * values.std() * noise, weight.name))

    alter(engine, blur)
    drift = verify(engine, reference=small_checkpoint, data=plate_data).gate.drifts[0]
    loaded = load(small_checkpoint)
    inspector = InferencePath(loaded.network, loaded.spec).eval()
    defective, masks, maps, scores = [], [], ([], []), ([], [])
    with Detector.open(engine, backend="onnxruntime") as detector, torch.no_grad():
        for picture in read(find_samples(plate_data, None)):
            size = picture.image.shape[:2]
            coarse = inspector.network(
                prepare(torch.from_numpy(to_input(picture.image, spec=loaded.spec)), loaded.spec)
            )
            found = detector.inspect(picture.image)
            defective.append(picture.label != GOOD)
            masks.append(np.zeros(size, np.uint8) if picture.mask is None else picture.mask)
            for side, (anomaly_map, score) in enumerate(
                [
                    (resize_map(coarse[0, 0].numpy(), size), inspector.finish(coarse)[1].item()),
                    (found.anomaly_map, found.score),
                ]
            ):
                maps[side].append(anomaly_map.ravel())
                scores[side].append(score)
    truth = np.concatenate([mask.ravel() for mask in masks])
    image = [roc_auc_score(defective, side) for side in scores]
    pixel = [roc_auc_score(truth, np.concatenate(side)) for side in maps]
    assert drift.image_auroc_drift == pytest.approx(100 * (image[1] - image[0]), abs=1e-6)
    assert drift.pixel_auroc_drift == pytest.approx(100 * (pixel[1] - pixel[0]), abs=1e-3)
    assert abs(drift.pixel_auroc_drift) > 0.1


def test_labels_without_masks_are_judged_by_whole_pictures(engine, plate_data, tmp_path, small_checkpoint, capsys):
    data = shutil.copytree(plate_data, tmp_path / "plate")
    shutil.rmtree(data / "ground_truth")
    assert main(["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(data)]) == 0
    assert "NO MASKS for 4 of 4 defective pictures" in capsys.readouterr().err
    gate = Sidecar.read(engine).engine.gate
    assert gate.verified
    assert gate.drifts[0].image_auroc_drift == pytest.approx(0, abs=1)
    assert (gate.drifts[0].pixel_auroc_drift, gate.drifts[0].aupro_drift) == (None, None)


def test_masks_of_nothing_are_refused_before_anything_is_run(engine, plate_data, tmp_path, small_checkpoint):
    data = shutil.copytree(plate_data, tmp_path / "plate")
    mask = data / "ground_truth" / "scratch" / "000_mask.png"
    mask.rename(mask.with_name("any.png"))
    with pytest.raises(DataError, match=r"scratch/000\.png has no mask, expected .* such as any\.png"):
        verify(engine, reference=small_checkpoint, data=data)
    with pytest.raises(DataError, match=r"scratch/000\.png has no mask"):
        Pictures(data=data).require_usable()


def test_plan_that_cannot_run_here_is_judged_by_its_graph_and_says_so(engine, plate_data, capsys, small_checkpoint):
    plan = as_plan(engine)
    assert (
        main(["verify", str(plan), "--reference", str(small_checkpoint), "--data", str(plate_data), "--images", "3"])
        == 0
    )
    printed = capsys.readouterr()
    assert "plate.plan itself has not been executed" in printed.out
    assert "NOT EXECUTED" in printed.err
    gate = Sidecar.read(plan).engine.gate
    assert (gate.verified, gate.executed) == (True, False)
    assert gate.drifts[0].images == 3


def test_plan_beside_another_graph_is_refused(engine, plate_data, small_checkpoint):
    plan = as_plan(engine)
    alter(engine, shift_bias(0.05))
    shutil.copy(engine, engine.with_name("plate.plan.onnx"))
    with pytest.raises(VerificationError, match=r"plate\.plan\.onnx has SHA-256 .* was built from"):
        verify(plan, reference=small_checkpoint, data=plate_data)


def test_plan_without_its_graph_is_refused(engine, plate_data, small_checkpoint):
    plan = as_plan(engine)
    engine.with_name("plate.plan.onnx").unlink()
    with pytest.raises(EngineError, match="was built with TensorRT-RTX"):
        verify(plan, reference=small_checkpoint, data=plate_data)


def test_float32_graph_serves_as_reference_where_there_is_no_torch(engine, plate_data, traced_engine):
    alter(engine, shift_bias(0.05), precision="int8")
    arguments = ["verify", str(engine), "--reference", str(traced_engine), "--data", str(plate_data), "--images", "4"]
    code = f"import sys; sys.modules['torch'] = None\nfrom export.__main__ import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Sidecar.read(engine).engine.gate.reference == "onnx-fp32"


def test_checkpoint_where_there_is_no_torch_says_what_to_give(engine, plate_data, small_checkpoint):
    arguments = ["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(plate_data)]
    code = f"import sys; sys.modules['torch'] = None\nfrom export.__main__ import main\nsys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "give the float32 .onnx file instead" in done.stderr


def test_graph_does_not_vouch_for_itself(engine, plate_data, traced_engine):
    for reference in (engine, traced_engine):
        with pytest.raises(VerificationError, match="cannot vouch for itself"):
            verify(engine, reference=reference, data=plate_data)


def test_another_network_is_no_reference(engine, plate_data, tmp_path, small_checkpoint):
    loaded = load(small_checkpoint)
    with torch.no_grad():
        loaded.network.feature_aggregation.head.out.bias.add_(0.1)
    spec = dataclasses.replace(loaded.spec, weights_sha256=fingerprint(loaded.network.state_dict()))
    save(tmp_path / "other.safetensors", Checkpoint(loaded.network, spec, loaded.config))
    with pytest.raises(VerificationError, match="is not the network of the engine"):
        verify(engine, reference=tmp_path / "other.safetensors", data=plate_data)


@pytest.mark.slow
def test_resize_in_the_graph_is_measured_on_its_own(tmp_path, plate_data, capsys, small_checkpoint):
    engine = tmp_path / "frames.onnx"
    frames = ["--frame-size", "120x140"]
    assert main(["onnx", str(small_checkpoint), "-o", str(engine), "--data", str(plate_data / "test"), *frames]) == 0
    capsys.readouterr()
    assert main(["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(plate_data)]) == 0
    assert "resize in the graph" in capsys.readouterr().out
    gate = Sidecar.read(engine).engine.gate
    assert max(drift.max_map_error for drift in gate.drifts) < 1e-4 < gate.resize.max_map_error < 0.5
    assert gate.resize.aupro_drift is not None
    write_image(tmp_path / "other" / "a.png", np.zeros((50, 60, 3), np.uint8))
    before = Sidecar.path_for(engine).read_bytes()
    assert main(["verify", str(engine), "--reference", str(small_checkpoint), "--data", str(tmp_path / "other")]) == 1
    assert "exported for frames of 120 x 140" in capsys.readouterr().err
    assert Sidecar.path_for(engine).read_bytes() == before


def test_sidecar_of_another_engine_is_refused(engine, plate_data, small_checkpoint):
    path = Sidecar.path_for(engine)
    kept = path.read_bytes()
    alter(engine, shift_bias(0.05))
    path.write_bytes(kept)
    with pytest.raises(EngineError, match="the sidecar is another one's"):
        verify(engine, reference=small_checkpoint, data=plate_data)


def test_unknown_precision_is_refused(engine, plate_data, small_checkpoint):
    alter(engine, shift_bias(0), precision="fp8")
    with pytest.raises(SpecError, match="expected one of fp32, fp16, bf16, int8"):
        verify(engine, reference=small_checkpoint, data=plate_data)


@pytest.mark.parametrize("option", ["picture", "json_file"])
def test_output_that_cannot_be_written_leaves_the_sidecar(engine, plate_data, option, small_checkpoint):
    before = Sidecar.path_for(engine).read_bytes()
    with pytest.raises(OutputError, match="cannot write"):
        verify(engine, reference=small_checkpoint, data=plate_data, **{option: Path("/dev/null/out.png")})
    assert Sidecar.path_for(engine).read_bytes() == before


def test_full_disk_leaves_the_sidecar(engine, plate_data, monkeypatch, small_checkpoint):
    before = Sidecar.path_for(engine).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OutputError, match="No space left"):
            verify(engine, reference=small_checkpoint, data=plate_data, images=2)
    assert Sidecar.path_for(engine).read_bytes() == before
    assert sorted(path.name for path in engine.parent.iterdir()) == ["plate.onnx", "plate.onnx.json"]


def test_refused_engine_gets_another_name():
    assert unverified_name(Path("a/stlm.plan")) == Path("a/stlm.unverified.plan")
    verified = Gate(True, True, "pytorch", LIMITS["fp32"], ())
    require_verified(Path("stlm.plan"), verified)
    with pytest.raises(VerificationError, match="a: 1; a: 2; a: 3 …"):
        refused = dataclasses.replace(verified, verified=False, objections=("a: 1", "a: 2", "a: 3", "a: 4"))
        require_verified(Path("stlm.plan"), refused)
