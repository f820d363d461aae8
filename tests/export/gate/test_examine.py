"""Figures of drift are those of the textbooks, however the pictures come in."""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from export.gate.examine import DriftMeter, GateMetrics, examine, rank_correlation
from export.gate.limits import LIMITS, exceptions, objections
from export.gate.pictures import Picture
from export.gate.report import table
from stlm_edge.errors import DataError, EngineError, VerificationError
from stlm_edge.imaging import resize_map
from stlm_edge.inspection import Answer
from stlm_edge.metrics import QualityMeter, aupro
from stlm_edge.sidecar import Drift

RNG = np.random.default_rng


def answer(values, score=0.5) -> Answer:
    return Answer(np.asarray(values, np.float32), score)


class Stated:
    """Answers by a formula: the picture's first channel as the map, moved by a little; its maximum as the score."""

    def __init__(self, name, *, noise=0.0, fails_at=None):
        self.name = name
        self._rng = RNG(7)
        self._noise = noise
        self._fails_at = fails_at
        self._count = 0

    def inspect(self, image) -> Answer:
        self._count += 1
        if self._count == self._fails_at:
            raise EngineError("answered with values that are not finite")
        coarse = image[::4, ::4, 0].astype(np.float32) / 255
        coarse = (coarse + self._noise * self._rng.standard_normal(coarse.shape)).astype(np.float32)
        return Answer(coarse, float(coarse.max()))


def labelled_pictures(count, *, masks=True):
    """Grey noise; every third one has a brighter square, where the mask is."""
    for index in range(count):
        image = RNG(index).integers(0, 200, (24, 32, 3), dtype=np.uint8)
        mask = np.zeros((24, 32), np.uint8)
        if index % 3 == 0:
            mask[4:12, 8:20] = 1
            image[mask == 1] = np.minimum(image[mask == 1], 195) + 60
        yield Picture(
            f"{index}", image, "spot" if index % 3 == 0 else "good", mask if index % 3 == 0 and masks else None
        )


def test_figures_over_a_stream_are_those_over_everything_at_once():
    meter = DriftMeter()
    rng = RNG(0)
    pairs = []
    for _ in range(30):
        wanted = rng.beta(1, 5, (5, 7)).astype(np.float32)
        found = (wanted + 0.01 * rng.standard_normal((5, 7))).astype(np.float32)
        scores = (float(wanted.max()), float(found.max()))
        meter.add(answer(wanted, scores[0]), answer(found, scores[1]))
        pairs.append((wanted.ravel(), found.ravel(), *scores))
    wanted, found = (np.concatenate([pair[side] for pair in pairs]).astype(np.float64) for side in (0, 1))
    wanted_scores, found_scores = (np.array([pair[side] for pair in pairs]) for side in (2, 3))
    errors = np.abs(found - wanted)
    drift = meter.drift("x")
    assert drift.max_map_error == pytest.approx(errors.max(), rel=1e-9)
    assert 1 <= drift.p99_map_error / np.quantile(errors, 0.99, method="inverted_cdf") <= 1.0101
    assert drift.map_correlation == pytest.approx(np.corrcoef(wanted, found)[0, 1], abs=1e-12)
    assert drift.max_score_error == pytest.approx(np.abs(found_scores - wanted_scores).max())
    assert drift.score_rank_correlation == pytest.approx(stats.spearmanr(wanted_scores, found_scores)[0], abs=1e-12)


def test_rank_correlation_with_ties_is_spearmans():
    wanted, found = RNG(1).integers(0, 9, (2, 50)).astype(float)
    assert rank_correlation(wanted, found) == pytest.approx(stats.spearmanr(wanted, found)[0], abs=1e-12)


def test_equal_answers_have_no_drift():
    meter = DriftMeter()
    values = RNG(0).random((4, 4))
    for score in (0.1, 0.9):
        meter.add(answer(values, score), answer(values, score))
    assert meter.drift("x") == Drift("x", 2, 0.0, 0.0, pytest.approx(1.0), 0.0, pytest.approx(1.0))


def test_flat_maps_of_the_network_correlate_with_nothing():
    meter = DriftMeter()
    meter.add(answer(np.full((4, 4), 0.3)), answer(0.3 + 1e-5 * RNG(0).random((4, 4))))
    drift = meter.drift("x")
    assert (drift.map_correlation, drift.score_rank_correlation) == (None, None)
    assert objections(drift, LIMITS["fp32"], pairs=0) == []


def test_flat_map_of_a_backend_is_objected_to():
    meter = DriftMeter()
    meter.add(answer(RNG(0).random((4, 4))), answer(np.full((4, 4), 0.5)))
    drift = meter.drift("dead")
    assert drift.map_correlation == 0
    assert any(
        "dead: correlation of the maps is 0.000000" in line for line in objections(drift, LIMITS["int8"], pairs=0)
    )


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(VerificationError, match=r"found a map of \(2, 2\), the reference's is \(4, 4\)"):
        DriftMeter().add(answer(np.zeros((4, 4))), answer(np.zeros((2, 2))))


def test_metrics_are_scikit_learns_at_the_pictures_size():
    reference, subject = Stated("reference"), Stated("x", noise=0.3)
    examination = examine(reference, [subject], labelled_pictures(24), limits=LIMITS["fp16"])
    metrics = []
    for side in (Stated("reference"), Stated("x", noise=0.3)):
        pictures = list(labelled_pictures(24))
        answers = [side.inspect(picture.image) for picture in pictures]
        maps = [resize_map(found.anomaly_map, (24, 32)) for found in answers]
        masks = [np.zeros((24, 32), np.uint8) if p.mask is None else p.mask for p in pictures]
        metrics.append(
            (
                roc_auc_score([p.label != "good" for p in pictures], [found.score for found in answers]),
                roc_auc_score(np.stack(masks).ravel(), np.stack(maps).ravel()),
                aupro(maps, masks),
            )
        )
    (row,) = examination.rows
    assert (row.drift.image_auroc_drift, row.drift.pixel_auroc_drift, row.drift.aupro_drift) == pytest.approx(
        [100 * (found - wanted) for wanted, found in zip(*metrics, strict=True)], abs=1e-9
    )
    assert abs(row.drift.pixel_auroc_drift) > 1
    assert [line for line in row.objections if "pixel AUROC" in line]


def test_many_pictures_are_more_than_one_portion_and_measure_the_same():
    pictures = list(labelled_pictures(150))
    meter = QualityMeter()
    answers = [Stated("x", noise=0.3).inspect(picture.image) for picture in pictures]
    for picture, found in zip(pictures, answers, strict=True):
        meter.add(found, label=picture.label, size=(24, 32), mask=picture.mask)
    masks = [np.zeros((24, 32), np.uint8) if p.mask is None else p.mask for p in pictures]
    maps = [resize_map(found.anomaly_map, (24, 32)) for found in answers]
    assert meter.quality().aupro == pytest.approx(aupro(maps, masks), abs=1e-12)


def test_without_masks_there_is_image_auroc_alone_and_without_defects_nothing():
    reference = Stated("reference")
    unmarked = examine(reference, [reference], labelled_pictures(9, masks=False), limits=LIMITS["fp32"])
    assert unmarked.metrics.image_auroc == 1
    assert (unmarked.metrics.pixel_auroc, unmarked.metrics.aupro) == (None, None)
    good = (picture for picture in labelled_pictures(9) if picture.label == "good")
    assert examine(reference, [reference], good, limits=LIMITS["fp32"]).metrics == GateMetrics(None, None, None)


def test_one_picture_is_enough():
    (row,) = examine(Stated("reference"), [Stated("x")], labelled_pictures(1), limits=LIMITS["fp32"]).rows
    assert row.drift.images == 1
    assert row.drift.score_rank_correlation is None
    assert row.objections == ()


def test_no_picture_is_an_error():
    with pytest.raises(DataError, match="found no picture"):
        examine(Stated("reference"), [Stated("x")], [], limits=LIMITS["fp32"])


def test_backend_that_fails_once_is_not_verified_and_the_others_go_on():
    subjects = [Stated("a", fails_at=3), Stated("b")]
    examination = examine(Stated("reference"), subjects, labelled_pictures(6), limits=LIMITS["fp32"])
    gate = examination.gate(executed=True)
    assert not gate.verified
    assert gate.objections == ("a: failed on 2",)
    assert [(drift.backend, drift.images) for drift in gate.drifts] == [("b", 6)]


def test_pair_of_pictures_that_changes_places_is_no_objection_and_two_are():
    values = {"images": 5, "max_map_error": 0, "p99_map_error": 0, "map_correlation": 1.0, "max_score_error": 0}
    one = Drift("x", score_rank_correlation=1.0, image_auroc_drift=-100 / 6, **values)
    two = Drift("x", score_rank_correlation=1.0, image_auroc_drift=-200 / 6, **values)
    assert objections(one, LIMITS["fp16"], pairs=6) == []
    assert objections(two, LIMITS["fp16"], pairs=6) == [
        "x: drift of image AUROC in points is -33.3, expected at most 16.6667"
    ]
    (said,) = exceptions(one, LIMITS["fp16"], pairs=6)
    assert "x: image AUROC may move by 16.7 points here instead of 0.1, which is one pair" in said
    assert exceptions(two, LIMITS["fp16"], pairs=6) == []
    assert exceptions(dataclasses.replace(one, image_auroc_drift=0.1), LIMITS["fp16"], pairs=6) == []


def test_table_says_why_a_figure_beyond_its_limit_is_no_objection():
    examination = examine(Stated("reference"), [Stated("x")], labelled_pictures(6), limits=LIMITS["int8"])
    (row,) = examination.rows
    assert not any("places" in line for line in table(examination, precision="int8", widened=()))
    moved = dataclasses.replace(row.drift, image_auroc_drift=100 / 8)
    examination = dataclasses.replace(examination, rows=(dataclasses.replace(row, drift=moved),))
    lines = list(table(examination, precision="int8", widened=()))
    assert "±0.5" in "\n".join(lines)
    assert any(line.startswith("x: image AUROC may move by 12.5 points here instead of 0.5") for line in lines)


@pytest.mark.parametrize(("count", "tells"), [(87, False), (90, True)])
def test_quality_is_told_by_thirty_pictures_of_either_kind_and_drift_by_any(count, tells):
    pictures = list(labelled_pictures(count))
    good = sum(picture.label == "good" for picture in pictures)
    assert min(good, count - good) == (30 if tells else 29)
    examination = examine(Stated("reference"), [Stated("x", noise=0.3)], pictures, limits=LIMITS["int8"])
    assert examination.tells_quality is tells
    lines = list(table(examination, precision="int8", widened=()))
    (drift,) = (row.drift for row in examination.rows)
    assert any(f"{drift.pixel_auroc_drift:+.3f}" in line for line in lines)
    value = f"{100 * examination.metrics.pixel_auroc:.2f}"
    assert any(value in line for line in lines[1:2]) is tells
    assert ("pixel AUROC drift" in lines[0]) is not tells
    (said,) = [line for line in lines if line.startswith(f"on {count} pictures, {count - good} of defects")]
    assert ("not how good the model is" in said) is not tells
    assert "stlm evaluate tells" in said


@pytest.mark.parametrize("count", [3, 24, 500])
def test_neighbours_in_rank_that_change_places_are_no_objection(count):
    wanted = np.arange(count, dtype=np.float64)
    values = {"images": count, "max_map_error": 0, "p99_map_error": 0, "map_correlation": 1.0, "max_score_error": 0}
    one, more = wanted.copy(), wanted[::-1].copy()
    one[[0, 1]] = one[[1, 0]]
    for found, is_fine in ((one, True), (more, False)):
        drift = Drift("x", score_rank_correlation=rank_correlation(wanted, found), **values)
        assert (objections(drift, LIMITS["fp32"], pairs=0) == []) is is_fine
        beyond = is_fine and drift.score_rank_correlation < LIMITS["fp32"].min_rank_correlation
        said = exceptions(drift, LIMITS["fp32"], pairs=0)
        assert ["two neighbours in rank" in line for line in said] == [True] * beyond


def test_pictures_are_not_kept():
    alive: list[weakref.ref] = []

    def stream():
        for picture in labelled_pictures(40):
            alive.append(weakref.ref(picture.image))
            yield picture

    counts = []

    class Counting(Stated):
        def inspect(self, image):
            counts.append(sum(reference() is not None for reference in alive))
            return super().inspect(image)

    examine(Stated("reference"), [Counting("x", noise=0.1)], stream(), limits=LIMITS["fp32"])
    assert len(counts) == 40
    assert max(counts) <= 4  # the one inspected, the one before it, and the worst case
