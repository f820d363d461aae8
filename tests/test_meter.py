"""The streamed meter against scikit-learn, a plain reference of the overlap, and the golden fixtures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from stlm_edge import metrics
from stlm_edge.errors import StlmError
from stlm_edge.imaging import resize_map
from stlm_edge.inspection import Answer
from stlm_edge.metrics import QualityMeter, missed_share
from stlm_edge.scoring import image_score

GOLDEN = Path(__file__).parent / "golden"
ARRAYS = dict(np.load(GOLDEN / "metrics.npz"))
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())["metrics"]
SIZE = (24, 32)


def labelled(count: int, *, noise: float, levels: int = 50):
    """Pictures of good parts, spots and scratches by turns, with coarse maps of few different values."""
    for index in range(count):
        rng = np.random.default_rng(index)
        label = ("good", "spot", "good", "scratch")[index % 4]
        mask = np.zeros(SIZE, np.uint8)
        if label == "spot":
            mask[2:8, 3:9] = mask[12:20, 14:30] = 1
        if label == "scratch":
            mask[5, :] = 1
        coarse = mask[::4, ::4] + noise * rng.random((6, 8))
        coarse = (np.round(levels * coarse) / levels).astype(np.float32)
        yield label, mask, Answer(coarse, float(coarse.mean()))


def plain_aupro(maps, masks, *, limit: float = 0.3) -> float:
    """One threshold after the other: the definition, which takes its time."""
    scores, truth = np.stack(maps), np.stack(masks) > 0
    regions = []
    for index, mask in enumerate(truth):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, labels == number) for number in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        above = scores >= threshold
        rate = float(above[~truth].mean())
        points.append((rate, float(np.mean([above[index][region].mean() for index, region in regions]))))
    x, y = np.array(points).T
    grid = np.append(x[x <= limit], limit)
    height = np.append(y[x <= limit], np.interp(limit, x, y))
    return float(np.sum(np.diff(grid) * (height[1:] + height[:-1]) / 2) / limit)


def reference(pictures):
    """Image AUROC and AP, pixel AUROC and AP, AUPRO, at the pictures' size."""
    defective = [label != "good" for label, _, _ in pictures]
    scores = [answer.score for _, _, answer in pictures]
    maps = [resize_map(answer.anomaly_map, SIZE) for _, _, answer in pictures]
    masks = [mask for _, mask, _ in pictures]
    truth, pixels = np.stack(masks).ravel(), np.stack(maps).ravel()
    return (
        roc_auc_score(defective, scores),
        average_precision_score(defective, scores),
        roc_auc_score(truth, pixels),
        average_precision_score(truth, pixels),
        plain_aupro(maps, masks),
    )


def figures(quality):
    return (quality.image_auroc, quality.image_ap, quality.pixel_auroc, quality.pixel_ap, quality.aupro)


def metered(pictures, *, sides: int = 1) -> QualityMeter:
    meter = QualityMeter(sides)
    for label, mask, *answers in pictures:
        meter.add(*answers, label=label, size=SIZE, mask=mask)
    return meter


@pytest.mark.parametrize("name", ["main", "coarse"])
def test_golden_pictures_one_at_a_time_have_the_golden_figures(name):
    meter, expected = QualityMeter(), EXPECTED[name]
    for anomaly_map, mask in zip(ARRAYS[f"{name}_scores"], ARRAYS[f"{name}_masks"], strict=True):
        answer = Answer(anomaly_map, image_score(anomaly_map, top_k=100))
        meter.add(answer, label="spot" if mask.any() else "good", size=mask.shape, mask=mask if mask.any() else None)
    quality = meter.quality()
    wanted = [expected[key] for key in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3")]
    assert figures(quality) == pytest.approx(wanted, abs=1e-9)
    assert quality.images == len(expected["image_labels"])
    assert quality.image_best_f1.tp == expected["image_f1_optimum"]["tp"]
    assert quality.pixel_best_f1.fnr == pytest.approx(expected["pixel_f1_optimum"]["fnr"], abs=1e-9)
    (*_, (kind, curves)) = meter.by_kind()
    assert kind == "all"
    assert missed_share(curves.pixel, 0.5) == pytest.approx(expected["pixel_fnr_at_fixed_threshold_0.5"], abs=1e-9)


@pytest.mark.parametrize("portion", [10, 1000, 10**9])
def test_figures_are_scikit_learns_and_the_plain_overlap_whatever_is_sorted_at_once(monkeypatch, portion):
    monkeypatch.setattr(metrics, "_POOLED_PIXELS", portion)
    pictures = list(labelled(20, noise=1.5))
    assert figures(metered(pictures).quality()) == pytest.approx(reference(pictures), abs=1e-9)


def test_each_kind_is_measured_beside_all_good_pictures_and_all_kinds_come_last():
    pictures = list(labelled(20, noise=1.5))
    by_kind = {kind: curves.quality() for kind, curves in metered(pictures).by_kind()}
    assert list(by_kind) == ["scratch", "spot", "all"]
    for kind, quality in by_kind.items():
        chosen = [entry for entry in pictures if kind == "all" or entry[0] in ("good", kind)]
        assert quality.images == len(chosen)
        assert figures(quality) == pytest.approx(reference(chosen), abs=1e-9)


def test_sides_are_measured_each_by_its_own_answers():
    sides = [list(labelled(12, noise=noise)) for noise in (0.5, 2.5)]
    both = [(label, mask, answer, other[2]) for (label, mask, answer), other in zip(*sides, strict=True)]
    meter = metered(both, sides=2)
    for side, pictures in enumerate(sides):
        assert figures(meter.quality(side)) == pytest.approx(reference(pictures), abs=1e-9)
    assert meter.quality(0).pixel_auroc > meter.quality(1).pixel_auroc


def test_side_that_missed_a_picture_has_no_figures_and_the_others_keep_theirs():
    pictures = list(labelled(8, noise=1))
    meter = metered([(label, mask, a, None if i == 5 else a) for i, (label, mask, a) in enumerate(pictures)], sides=2)
    assert meter.quality(1) is None
    assert figures(meter.quality(0)) == pytest.approx(reference(pictures), abs=1e-9)
    with pytest.raises(StlmError, match="found 7 answers to 8 pictures"):
        list(meter.by_kind(1))


def test_map_that_is_larger_than_its_picture_is_kept_at_the_pictures_size():
    pictures = list(labelled(8, noise=1))
    large = [(label, mask, Answer(resize_map(a.anomaly_map, (240, 320)), a.score)) for label, mask, a in pictures]
    meter = metered(large)
    assert figures(meter.quality()) == pytest.approx(reference(large), abs=1e-9)
    assert all(kept.shape == SIZE for kept in meter._maps[0])


def test_defect_whose_place_is_unknown_leaves_the_pixels_undefined_and_nothing_else():
    pictures = [(label, None, answer) for label, _, answer in labelled(8, noise=1)]
    quality = metered(pictures).quality()
    assert quality.image_auroc == reference(list(labelled(8, noise=1)))[0]
    assert all(math.isnan(value) for value in (quality.pixel_auroc, quality.pixel_ap, quality.aupro))


def test_without_a_defect_every_figure_is_undefined():
    quality = metered([entry for entry in labelled(8, noise=1) if entry[0] == "good"]).quality()
    assert quality.images == 4
    assert all(math.isnan(value) for value in figures(quality))


def test_what_cannot_be_counted_is_refused():
    answer = Answer(np.zeros((2, 2), np.float32), 0.5)
    with pytest.raises(StlmError, match=r"mask of \(3, 3\) for a picture of \(2, 2\)"):
        QualityMeter().add(answer, label="spot", size=(2, 2), mask=np.ones((3, 3), np.uint8))
    with pytest.raises(StlmError, match="1 of 1 scores are NaN"):
        QualityMeter().add(Answer(answer.anomaly_map, math.nan), label="spot", size=(2, 2), mask=None)
