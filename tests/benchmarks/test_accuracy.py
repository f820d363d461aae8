"""Engines are judged by labelled pictures as the runtime runs them, and compared with their network."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.accuracy import judge, labelled_set, main
from benchmarks.record import read
from export.gate.network import NetworkInspector
from runtime.detector import Detector
from stlm_edge.datasets import read_truth
from stlm_edge.imaging import read_image, resize_map
from stlm_edge.metrics import aupro, pixel_metrics
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from stlm_edge.plate.part import write_dataset
from stlm_edge.seen import digest_of
from stlm_edge.sidecar import Sidecar
from train.evaluate import evaluate

from ..export.tiny import checkpoint
from ..runtime.conftest import SPEC, brightness_graph, write_engine
from .drawn_set import draw_set

ORT = ("--backend", "onnxruntime")
"""OpenVINO would compile the engine, which a quick test does not."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_set(tmp_path / "spots")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "plate.onnx")


def test_figures_are_those_of_the_detectors_own_maps_scores_and_verdicts(
    data: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "accuracy.json"
    assert main([*ORT, "--engine", str(engine), "--data", str(data), "--json", str(path)]) == 0
    record = read(path)
    assert record.is_complete
    (entry,) = record.details["engines"]
    maps, masks, scores = [], [], []
    with Detector.open(engine, backend="onnxruntime") as detector:
        for sample in labelled_set(data, None).samples:
            image = read_image(sample.path)
            anomaly = detector.inspect(image)
            maps.append(anomaly.anomaly_map)
            masks.append(read_truth(sample, size=(image.shape[0], image.shape[1])))
            scores.append(anomaly.score)
    labels = [mask.any() for mask in masks]
    pixels, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    # Of six pairs, the good picture of 120 scores higher than the spots of 100 and 90.
    assert entry["image_auroc"] == pytest.approx(4 / 6, abs=1e-6)
    assert entry["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
    assert entry["pixel_auroc"] == pytest.approx(roc_auc_score(truth, pixels), abs=1e-6)
    assert entry["pixel_ap"] == pytest.approx(average_precision_score(truth, pixels), abs=1e-6)
    assert entry["aupro"] == pytest.approx(aupro(maps, masks), abs=1e-6)
    assert (entry["missed"], entry["false_alarms"], entry["threshold"]) == (2, 0, 0.5)
    assert (entry["found_marked"], entry["peak_in_mask"]) == (1, 1)
    assert (entry["input_size"], entry["precision"]) == ([64, 128], "fp32")
    measure = record.measures["plate.onnx image_auroc"]
    assert (measure.unit, measure.better, measure.is_exact) == ("%", "higher", False)
    assert measure.values == pytest.approx((400 / 6,), abs=1e-4)
    said = capsys.readouterr()
    assert "2 good and 3 defective" in said.out
    assert "66.7" in said.out
    assert "plate.onnx: 2 of 3 defective pictures missed and 0 of 2 good ones called anomalous at 0.5" in said.out
    assert "plate.onnx: 1 of 1 found ones with a mask have the peak of their map in it" in said.out
    assert "UNVERIFIED ENGINE" in said.err


def test_drift_is_from_the_first_engine_of_the_same_network(
    data: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weaker = write_engine(tmp_path / "weaker.onnx", model=brightness_graph(factor=0.9))
    other = write_engine(tmp_path / "other.onnx", spec=dataclasses.replace(SPEC, weights_sha256="1" * 64))
    path = tmp_path / "accuracy.json"
    arguments = ["--engine", str(engine), "--engine", str(weaker), "--engine", str(other)]
    assert main([*ORT, *arguments, "--data", str(data), "--json", str(path)]) == 0
    told = capsys.readouterr().out
    assert "weaker.onnx: image AUROC +0.000, pixel AUROC +0.000, AUPRO +0.000 points from plate.onnx" in told
    first, second, third = (entry["drift"] for entry in read(path).details["engines"])
    assert first is None
    assert third is None  # of another network: its distance would say nothing of the engine
    assert second["reference"] == "plate.onnx"
    assert second["map_max"] == 0
    assert second["score_max"] == pytest.approx(0.1 * 250 / 255, rel=1e-4)
    assert second["rank"] == pytest.approx(1)
    assert (second["image_auroc"], second["pixel_auroc"], second["aupro"]) == (0, 0, 0)


@pytest.mark.heavy
def test_each_engine_runs_on_each_backend(data: Path, engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    backends = ["--backend", "openvino", "--backend", "onnxruntime"]
    assert main(["--engine", str(engine), "--data", str(data), *backends, "--json", str(path)]) == 0
    entries = read(path).details["engines"]
    assert [entry["library"] for entry in entries] == ["openvino", "onnxruntime"]
    assert [entry["name"] for entry in entries] == ["plate.onnx on openvino", "plate.onnx on onnxruntime"]
    assert entries[1]["drift"]["map_max"] < 1e-6


def test_good_pictures_that_an_engine_knows_are_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = next(sample.path for sample in labelled_set(data, None).samples if sample.label == "good")
    spec = dataclasses.replace(SPEC, seen=digest_of(read_image(known)))
    engine = write_engine(tmp_path / "plate.onnx", spec=spec)
    assert main([*ORT, "--engine", str(engine), "--data", str(data)]) == 0
    assert "SEEN PICTURES: plate.onnx has learnt from or remembers 1 of these" in capsys.readouterr().err


def test_fewer_images_are_taken_of_each_kind(data: Path, engine: Path, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.json"
    assert main([*ORT, "--engine", str(engine), "--data", str(data), "--images", "2", "--json", str(path)]) == 0
    details = read(path).details
    assert (details["images"], details["good"], details["defective"]) == (2, 1, 1)
    assert "2 of 5" in details["data"]


def test_category_of_a_data_set_is_judged(data: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ORT, "--engine", str(engine), "--data", str(data.parent), "--category", data.name]) == 0
    assert "spots, 5 test pictures" in capsys.readouterr().out


def test_labels_without_masks_give_the_figures_of_whole_pictures(
    data: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data / "ground_truth")
    path = tmp_path / "accuracy.json"
    assert main([*ORT, "--engine", str(engine), "--data", str(data), "--json", str(path)]) == 0
    (entry,) = read(path).details["engines"]
    assert entry["image_auroc"] == pytest.approx(4 / 6, abs=1e-6)
    assert [entry[name] for name in ("pixel_auroc", "pixel_ap", "aupro")] == [None] * 3
    assert "NO MASKS for 3 of 3 defective pictures (spot)" in capsys.readouterr().err


@pytest.mark.heavy
def test_network_in_pytorch_gets_the_figures_of_an_evaluation(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=1, test_good=4, test_defective_per_kind=1, size=(120, 140), seed=3, category="plate")
    loaded = load(checkpoint(tmp_path / "tiny.safetensors"))
    inspector = InferencePath(loaded.network, loaded.spec)
    pictures = labelled_set(tmp_path / "plate", None)
    wanted = evaluate(inspector, pictures.samples).evaluation
    found = judge(NetworkInspector(inspector), pictures, input_size=loaded.spec.input_size)
    quality = found.quality
    assert quality.image_auroc == pytest.approx(wanted.overall.image_auroc, abs=1e-9)
    assert quality.image_ap == pytest.approx(wanted.overall.image_ap, abs=1e-9)
    mistakes = found.mistakes(pictures, loaded.spec.require_threshold())
    every = wanted.verdicts["all"]
    assert mistakes == {
        **{"missed": wanted.missed, "false_alarms": wanted.false_alarms},
        **{"found_marked": every.found_marked, "peak_in_mask": every.peak_in_mask},
    }
    assert every.found_marked == 4
    # The runtime enlarges maps at once. Enlarged over the input's size, as an evaluation does, they are the same maps.
    masks = [read_truth(sample, size=(120, 140)) for sample in pictures.samples]
    detour = [
        resize_map(resize_map(answer.anomaly_map, loaded.spec.input_size), (120, 140)) for answer in found.answers
    ]
    pixels = pixel_metrics(detour, masks)
    for metric, value in (("pixel_auroc", pixels.auroc), ("pixel_ap", pixels.ap), ("aupro", pixels.aupro)):
        assert value == pytest.approx(getattr(wanted.overall, metric), abs=1e-4), metric
        assert getattr(quality, metric) == pytest.approx(value, abs=0.02), metric


@pytest.mark.heavy
def test_reference_of_other_weights_is_refused_with_both_names(
    data: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, path = checkpoint(tmp_path / "tiny.safetensors"), tmp_path / "accuracy.json"
    arguments = ["--engine", str(engine), "--reference", str(reference), "--data", str(data), "--json", str(path)]
    assert main(arguments) == 1
    line = _one_error(capsys)
    assert str(engine) in line
    assert str(reference) in line
    assert not path.exists()


@pytest.mark.heavy
def test_engines_are_refused_before_the_first_picture(
    data: Path, engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.onnx"
    shutil.copy(engine, bare)
    strange = write_engine(tmp_path / "strange.onnx", model=brightness_graph(factor=0.5))
    shutil.copy(Sidecar.path_for(engine), Sidecar.path_for(strange))
    good = ["--engine", str(engine), "--data", str(data), "--json", str(tmp_path / "accuracy.json")]
    for more, said in (
        (["--engine", str(tmp_path / "none.onnx")], "none.onnx is not a file"),
        (["--engine", str(bare)], "has no bare.onnx.json beside it"),
        (["--engine", str(strange)], "the sidecar is another one's"),
        (["--engine", str(engine)], "two subjects of the name"),
        (["--backend", "tensorrt"], "tensorrt cannot run it"),
        (["--reference", str(tmp_path / "none.safetensors")], "none.safetensors is no file"),
    ):
        assert main([*good, *more]) == 1
        assert said in _one_error(capsys)
        assert not (tmp_path / "accuracy.json").exists()


def test_pictures_of_one_kind_only_are_refused(data: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ORT, "--engine", str(engine), "--data", str(data / "test" / "good")]) == 1
    assert "found 2 pictures without labels" in _one_error(capsys)
    shutil.rmtree(data / "test" / "spot")
    assert main([*ORT, "--engine", str(engine), "--data", str(data)]) == 1
    line = _one_error(capsys)
    assert "2 good and 0 defective" in line
    assert "folder of a category, which has test/good and test/<defect>" in line


def test_engine_that_fails_leaves_what_was_judged_before_it(data: Path, engine: Path, tmp_path: Path) -> None:
    late = write_engine(tmp_path / "late.onnx", model=brightness_graph(factor=float("nan")))
    path = tmp_path / "accuracy.json"
    arguments = ["--engine", str(engine), "--engine", str(late), "--data", str(data)]
    assert main([*ORT, *arguments, "--json", str(path)]) == 1
    record = read(path)
    assert not record.is_complete
    assert [entry["name"] for entry in record.details["engines"]] == ["plate.onnx"]


def _one_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line
