"""Measuring a checkpoint on labelled pictures: figures, pictures and plots."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from stlm_edge.datasets import Sample, load_category
from stlm_edge.errors import DataError, SpecError
from stlm_edge.imaging import read_image, to_input
from stlm_edge.metrics import pixel_metrics, roc_auc
from stlm_edge.names import escaped, from_cell
from stlm_edge.network.checkpoint import load, save
from stlm_edge.network.inference import InferencePath
from stlm_edge.seen import digest_of, seen_of
from train.__main__ import main
from train.evaluate import evaluate, inspect, resize_mask, score_images
from train.evaluation import DefectVerdicts, Scored
from train.plots import write_curves
from train.report import evaluation_table, write_scores
from train.sheets import choose, choose_missed, verdict, write_contact_sheet


@pytest.fixture
def inspector(checkpoint) -> InferencePath:
    loaded = load(checkpoint)
    return InferencePath(loaded.network, loaded.spec)


@pytest.fixture
def samples(plate) -> tuple[Sample, ...]:
    return load_category(plate, "plate").test


@torch.no_grad()
def test_batches_answer_as_the_inspector_does_one_by_one(inspector, samples):
    for sample, result in zip(samples, inspect(inspector, samples), strict=True):
        maps, scores = inspector(torch.from_numpy(to_input(read_image(sample.path), spec=inspector.spec)))
        assert result.sample == sample
        assert result.anomaly_map.shape == result.tlm_map.shape == result.mask.shape == (96, 96)
        assert result.answer.score == pytest.approx(float(scores[0]), abs=1e-6)
        assert np.abs(cv2.resize(maps[0].numpy(), (96, 96)) - result.anomaly_map).max() < 1e-5


def test_figures_are_those_of_all_maps_at_their_own_resolution(inspector, samples):
    results = list(inspect(inspector, samples))
    evaluation = evaluate(inspector, samples).evaluation
    for scores, maps, values in (
        (evaluation.overall, [r.anomaly_map for r in results], [r.answer.score for r in results]),
        (evaluation.tlm_only.overall, [r.tlm_map for r in results], [r.tlm_answer.score for r in results]),
    ):
        pixels = pixel_metrics(maps, [r.mask for r in results])
        assert (scores.pixel_auroc, scores.pixel_ap, scores.aupro) == (pixels.auroc, pixels.ap, pixels.aupro)
        assert scores.pixel_fnr == pixels.best_f1.fnr
        assert scores.image_auroc == roc_auc(np.array(values), np.array([r.sample.label != "good" for r in results]))
    defect = np.concatenate([r.anomaly_map[r.mask > 0] for r in results])
    assert evaluation.overall.pixel_fnr_at_half == pytest.approx(np.mean(defect < 0.5))
    assert math.isnan(evaluation.tlm_only.overall.pixel_fnr_at_half)


def test_figures_at_a_metric_size_are_those_of_maps_and_masks_of_that_size(inspector, samples):
    results = list(inspect(inspector, samples))
    evaluation = evaluate(inspector, samples, metric_size=(64, 80)).evaluation
    maps = [cv2.resize(r.answer.anomaly_map, (80, 64)) for r in results]
    pixels = pixel_metrics(maps, [resize_mask(r.mask, (64, 80)) for r in results])
    assert (evaluation.overall.pixel_auroc, evaluation.overall.aupro) == (pixels.auroc, pixels.aupro)
    own = evaluate(inspector, samples).evaluation
    assert own.overall.aupro != evaluation.overall.aupro
    assert own.overall.image_auroc == evaluation.overall.image_auroc
    assert (own.metric_size, evaluation.metric_size) == (None, (64, 80))
    assert "at 64 x 80, to which maps and masks were brought" in evaluation_table(evaluation)
    assert "to which maps" not in evaluation_table(own)


def test_mask_is_shrunk_as_pillow_shrinks_a_picture():
    """By whose rule, anti-aliased, the authors' code brings masks to 1024 x 1024."""
    mask = np.zeros((90, 120), np.uint8)
    cv2.circle(mask, (60, 40), 23, 255, -1)
    cv2.line(mask, (5, 5), (30, 80), 255, 2)
    wanted = np.asarray(Image.fromarray(mask).resize((40, 30), Image.BILINEAR), np.float32) / 255
    found = resize_mask(mask, (30, 40))
    clear = np.abs(wanted - 0.5) > 0.01  # Pillow rounds to whole grey levels
    assert np.array_equal(found[clear], (wanted >= 0.5)[clear])
    assert set(np.unique(found)) == {0, 1}
    assert resize_mask(np.full((3, 3), 7, np.uint8), (6, 6)).all()


def test_each_kind_is_measured_beside_all_good_pictures(inspector, samples):
    evaluation = evaluate(inspector, samples).evaluation
    alone = evaluate(inspector, [s for s in samples if s.label in ("good", "stain")]).evaluation
    assert set(evaluation.kinds) == {"chip", "missing_hole", "scratch", "stain"}
    for found, wanted in ((evaluation, alone), (evaluation.tlm_only, alone.tlm_only)):
        both = (dataclasses.astuple(found.kinds["stain"]), dataclasses.astuple(wanted.overall))
        assert both[0] == pytest.approx(both[1], abs=1e-3, nan_ok=True)  # other neighbours in a batch round otherwise


def test_pictures_without_good_ones_leave_undefined_what_needs_them(inspector, samples):
    evaluation = evaluate(inspector, [sample for sample in samples if sample.label == "chip"]).evaluation
    scores = evaluation.overall
    assert math.isnan(scores.image_auroc)
    assert scores.image_ap == 1
    assert math.isnan(evaluation.f1_optimal_threshold)
    assert "F1-optimal" not in evaluation_table(evaluation)
    assert not math.isnan(scores.pixel_auroc)


def test_good_pictures_that_the_network_has_learnt_from_are_told(inspector, samples, caplog):
    known = [sample.path for sample in samples if sample.label == "good"][:1]
    spec = dataclasses.replace(inspector.spec, seen=seen_of([digest_of(read_image(path)) for path in known]))
    evaluate(InferencePath(inspector.network, spec), samples)
    assert f"SEEN PICTURES: the network has learnt from or remembers 1 of these 2 good pictures ({known[0]})" in (
        caplog.text
    )
    assert "flatter it" in caplog.text


def test_nothing_to_measure_is_an_error(inspector, samples):
    with pytest.raises(DataError, match="no test pictures"):
        evaluate(inspector, [])
    inspector.spec = dataclasses.replace(inspector.spec, threshold=None)
    with pytest.raises(SpecError, match="no threshold yet"):
        evaluate(inspector, samples)


@pytest.mark.heavy
def test_command_writes_figures_scores_pictures_and_plots(plate, checkpoint, tmp_path, capsys):
    folder = tmp_path / "measured"
    loaded = load(checkpoint)
    high = dataclasses.replace(loaded.spec.threshold, value=0.9999)
    save(checkpoint, dataclasses.replace(loaded, spec=dataclasses.replace(loaded.spec, threshold=high)))
    assert main(["evaluate", str(checkpoint), "--data", str(plate), "--category", "plate", "-o", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "all, TLM only" in printed
    assert printed.splitlines()[5].split()[-4:] == ["4", "of", "4", "-"]  # all kinds together: nothing is found
    assert {path.name for path in folder.iterdir()} == {
        "evaluation.json",
        "evaluation.png",
        "evaluation-missed.png",
        "evaluation-curves.png",
        "evaluation-scores.png",
        "evaluation-scores.csv",
    }
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["tlm_only"]["overall"]["pixel_fnr_at_half"] is None
    assert evaluation["weights_sha256"] == load(checkpoint).spec.weights_sha256
    lines = list(csv.DictReader((folder / "evaluation-scores.csv").read_text().splitlines()))
    assert len(lines) == 6
    for line in lines:
        assert (float(line["score"]) >= evaluation["threshold"]) == (line["anomalous"] == "1")
    assert evaluation["verdicts"]["all"] == {"defective": 4, "missed": 4, "found_marked": 0, "peak_in_mask": 0}
    for name in ("evaluation.png", "evaluation-missed.png", "evaluation-curves.png", "evaluation-scores.png"):
        assert read_image(folder / name).std() > 10
    # With nothing missed, the sheet of before does not stay.
    save(checkpoint, loaded)
    assert main(["evaluate", str(checkpoint), "--data", str(plate), "--category", "plate", "-o", str(folder)]) == 0
    assert not (folder / "evaluation-missed.png").exists()
    every = json.loads((folder / "evaluation.json").read_text())["verdicts"]["all"]
    assert (every["missed"], every["found_marked"]) == (0, 4)
    lines = list(csv.DictReader((folder / "evaluation-scores.csv").read_text().splitlines()))
    assert sum(line["peak_in_mask"] == "1" for line in lines) == every["peak_in_mask"]
    assert f"found for the defect itself: {every['peak_in_mask']} of 4 " in capsys.readouterr().out
    assert {line["peak_in_mask"] for line in lines if line["label"] == "good"} == {""}


@pytest.mark.heavy
def test_names_of_every_kind_are_tabled_safely(plate, checkpoint, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(plate / "plate", data)
    kind = sorted(path.name for path in (data / "test").iterdir() if path.name != "good")[0]
    odd = os.fsdecode(b"=k\xfc$a$|\n")
    for place in ("test", "ground_truth"):
        (data / place / kind).rename(data / place / odd)
    picture = sorted((data / "test" / odd).iterdir())[0]
    mask = next((data / "ground_truth" / odd).glob(f"{picture.stem}*"))
    mask.rename(mask.with_name(mask.name.replace(picture.stem, os.fsdecode(b"\x1b[31m\xe4"))))
    picture.rename(picture.with_name(os.fsdecode(b"\x1b[31m\xe4") + picture.suffix))
    assert main(["evaluate", str(checkpoint), "--data", str(data), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert escaped(odd) in printed.out
    content = json.loads((tmp_path / "out" / "evaluation.json").read_bytes().decode())
    assert escaped(odd) in content["kinds"]
    lines = list(csv.DictReader((tmp_path / "out" / "evaluation-scores.csv").read_text(encoding="utf-8").splitlines()))
    assert [from_cell(line["picture"]) for line in lines if "[31m" in line["picture"]] == [
        f"{odd}/" + os.fsdecode(b"\x1b[31m\xe4") + picture.suffix
    ]
    assert {from_cell(line["label"]) for line in lines} >= {odd, "good"}


def scored(label: str, *scores: float) -> list[Scored]:
    return [Scored(Sample(label, label, None), score, 0.0) for score in scores]


def test_sheet_shows_the_clearest_the_closest_and_the_worst():
    chosen = choose(scored("chip", 0.9, 0.1, 0.55, 0.7), threshold=0.5)
    assert [(role, picture.score) for role, picture in chosen] == [("best", 0.9), ("borderline", 0.55), ("worst", 0.1)]
    chosen = choose(scored("good", 0.9, 0.1, 0.45, 0.2), threshold=0.5)
    assert [(role, picture.score) for role, picture in chosen] == [("best", 0.1), ("borderline", 0.45), ("worst", 0.9)]
    assert [role for role, _ in choose(scored("chip", 0.9, 0.2), threshold=0.5)] == ["best", "worst"]
    assert [role for role, _ in choose(scored("chip", 0.9), threshold=0.5)] == ["best"]


def test_verdicts_in_words():
    words = [verdict(scored(label, score)[0], threshold=0.5) for label in ("good", "chip") for score in (0.4, 0.5)]
    assert words == ["passed", "false alarm", "missed", "found"]
    found = dataclasses.replace(scored("chip", 0.6)[0], peak_in_mask=False)
    assert verdict(found, threshold=0.5) == "found beside it"
    assert verdict(dataclasses.replace(found, score=0.4), threshold=0.5) == "missed"


def test_missed_defects_come_kind_by_kind_in_turns_the_lowest_first():
    pictures = [*scored("chip", 0.3, 0.1, 0.9, 0.2), *scored("good", 0.1), *scored("stain", 0.4, 0.5)]
    assert [(role, p.sample.label, p.score) for role, p in choose_missed(pictures, threshold=0.5)] == [
        ("missed 1 of 3", "chip", 0.1),
        ("missed 1 of 1", "stain", 0.4),
        ("missed 2 of 3", "chip", 0.2),
        ("missed 3 of 3", "chip", 0.3),
    ]


def test_found_for_something_beside_the_defect_is_counted_apart():
    peaks = (True, True, False, None, False)
    pictures = [
        dataclasses.replace(picture, peak_in_mask=peak)
        for picture, peak in zip(scored("chip", 0.9, 0.2, 0.8, 0.7, 0.1), peaks, strict=True)
    ]
    assert DefectVerdicts.of(pictures, threshold=0.5) == DefectVerdicts(
        defective=5, missed=2, found_marked=2, peak_in_mask=1
    )


def test_verdicts_are_told_for_each_kind_and_together(inspector, samples):
    low = dataclasses.replace(inspector.spec.threshold, value=1e-3)
    inspector.spec = dataclasses.replace(inspector.spec, threshold=low)
    results = evaluate(inspector, samples)
    verdicts = results.evaluation.verdicts
    assert set(verdicts) == {"chip", "missing_hole", "scratch", "stain", "all"}
    for name in ("missed", "defective", "found_marked", "peak_in_mask"):
        assert getattr(verdicts["all"], name) == sum(
            getattr(verdicts[kind], name) for kind in verdicts if kind != "all"
        )
    for result in inspect(inspector, [sample for sample in samples if sample.label != "good"]):
        row, column = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
        near = result.mask[max(0, row - 12) : row + 13, max(0, column - 12) : column + 13]  # 8 of 64 are 12 of 96
        assert verdicts[result.sample.label].peak_in_mask == near.any()


def test_network_without_two_streams_is_measured_without_their_map(inspector, samples, tmp_path, monkeypatch):
    def one_map(inspector, images):
        return inspector(images)

    monkeypatch.setattr("train.evaluate.both_maps", one_map)
    results = evaluate(inspector, samples)
    assert results.evaluation.tlm_only is None
    assert "TLM only" not in evaluation_table(results.evaluation)
    write_scores(tmp_path / "scores.csv", results)
    lines = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert {line["tlm_score"] for line in lines} == {""}
    write_contact_sheet(tmp_path / "sheet.png", inspector, results)
    write_curves(tmp_path / "curves.png", results)
    assert read_image(tmp_path / "sheet.png").std() > 10


def test_scores_of_prepared_pictures_are_those_of_an_inspection(inspector, plate):
    images = [np.full((64, 64, 3), 40 * index, np.uint8) for index in range(5)]
    scores = score_images(inspector, iter(images))
    with torch.no_grad():
        alone = [float(inspector(torch.from_numpy(image[None]))[1][0]) for image in images]
    assert scores == pytest.approx(alone, abs=1e-6)


def test_intervals_are_over_parts(inspector, samples):
    assert evaluate(inspector, samples).evaluation.intervals is None
    parts = list(range(len(samples)))
    evaluation = evaluate(inspector, samples, parts=parts).evaluation
    found = evaluation.intervals
    assert found.parts == len(samples) == 6
    for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
        low, high = found.figures[name]
        assert low <= getattr(evaluation.overall, name) + 2e-3
        assert high >= getattr(evaluation.overall, name) - 2e-3
        assert low < high or name == "image_auroc"  # which is 0 here in each draw
    # None or each of 4 parts is missed, so it is in each draw; counting says how little that tells of others.
    surely = 1 - 0.025 ** (1 / 4)
    assert found.figures["missed_share"] == pytest.approx({0: (0, surely), 4: (1 - surely, 1)}[evaluation.missed])
    assert "95 % intervals over 6 parts, in %: image AUROC " in evaluation_table(evaluation)
    # In another order, with the same parts, it is the same.
    again = evaluate(inspector, samples[::-1], parts=parts[::-1]).evaluation.intervals
    assert again.figures["pixel_auroc"] == pytest.approx(found.figures["pixel_auroc"], abs=2e-3)
    # Of one part there is no other to draw.
    one = evaluate(inspector, samples, parts=[0] * len(samples)).evaluation.intervals
    low, high = one.figures["pixel_auroc"]
    assert (one.parts, low) == (1, high)


def test_intervals_leave_out_what_is_undefined(inspector, samples):
    chips = [sample for sample in samples if sample.label == "chip"]
    found = evaluate(inspector, chips, parts=[0] * len(chips)).evaluation.intervals
    assert set(found.figures) >= {"missed_share"}
    assert not {"image_auroc", "false_alarm_share"} & set(found.figures)
    unmarked = [dataclasses.replace(sample, mask=None) for sample in samples]
    found = evaluate(inspector, unmarked, parts=range(6)).evaluation.intervals
    assert set(found.figures) == {"image_auroc", "missed_share", "false_alarm_share"}


@pytest.mark.heavy
def test_command_takes_the_parts_from_a_file_or_from_names(plate, checkpoint, tmp_path, capsys):
    arguments = ["evaluate", str(checkpoint), "--data", str(plate), "--category", "plate", "-o", str(tmp_path / "out")]
    lines = [f"test/{path.parent.name}/{path.name},{path.parent.name}" for path in (plate / "plate/test").glob("*/*")]
    (tmp_path / "parts.csv").write_text("\n".join(["picture,part", *lines]))
    assert main([*arguments, "--groups", str(tmp_path / "parts.csv")]) == 0
    assert "95 % intervals over 5 parts, in %: " in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["intervals"]
    assert found["parts"] == 5
    low, high = found["figures"]["pixel_auroc"]
    assert 0 <= low <= high <= 1
    assert main([*arguments, "--group-by", "^00[01]"]) == 0
    assert "95 % intervals over 2 parts" in capsys.readouterr().out
    (tmp_path / "parts.csv").write_text("picture,part\nnowhere.png,1\n")
    assert main([*arguments, "--groups", str(tmp_path / "parts.csv")]) == 1
    assert "nowhere.png" in capsys.readouterr().err.splitlines()[-1]
    assert main([*arguments, "--groups", "x.csv", "--group-by", "a"]) == 2
