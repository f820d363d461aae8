from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.comparison import compare, table
from benchmarks.intervals import METRICS, Judged, draw_weights, interval, resample
from stlm_edge.errors import DataError


def judged(kind: str, group: str, rng: np.random.Generator, *, contrast: float = 1.0, size=(24, 30)) -> Judged:
    mask = np.zeros(size, np.uint8)
    if kind != "good":
        mask[4:12, 5:15] = 1
        mask[18:20, 20:24] = 1
    anomaly_map = (rng.normal(0, 1, size) + contrast * mask).astype(np.float32)
    return Judged(kind, group, anomaly_map, mask, float(anomaly_map.max() + rng.normal(0, 0.5)))


@pytest.fixture
def pictures():
    """Two pictures of each of 8 good parts, and of 4 with a dent and 4 with a scratch."""
    rng = np.random.default_rng(0)
    kinds = ["good"] * 8 + ["dent"] * 4 + ["scratch"] * 4
    return [judged(kind, f"part{part}", rng) for part, kind in enumerate(kinds) for _ in range(2)]


def metric_values(figures) -> list[float]:
    return [getattr(figures, metric) for metric in METRICS]


def test_histograms_give_the_exact_metrics_but_for_a_little(pictures):
    for result in resample(pictures, resamples=10).values():
        assert metric_values(result.binned) == pytest.approx(metric_values(result.exact), abs=2e-3)
        assert result.binned.image_auroc == pytest.approx(result.exact.image_auroc, abs=1e-12)


def test_a_draw_is_what_the_exact_metrics_say_of_the_pictures_drawn(pictures):
    from stlm_edge.metrics import pixel_metrics, roc_auc

    draws = resample(pictures, resamples=3, seed=5)["all"].draws
    weights = draw_weights(pictures, resamples=3, seed=5)
    for index, counts in enumerate(weights.astype(int)):
        drawn = [picture for picture, count in zip(pictures, counts, strict=True) for _ in range(count)]
        pixels = pixel_metrics([picture.anomaly_map for picture in drawn], [picture.mask for picture in drawn])
        scores, labels = zip(*((picture.score, picture.kind != "good") for picture in drawn), strict=True)
        wanted = [roc_auc(np.array(scores), np.array(labels)), pixels.auroc, pixels.aupro, pixels.ap]
        assert [values[index] for values in metric_values(draws)] == pytest.approx(wanted, abs=2e-3)


def test_pictures_of_a_part_are_drawn_together_and_kinds_keep_their_number(pictures):
    weights = draw_weights(pictures, resamples=200, seed=0)
    assert np.array_equal(weights[:, 0::2], weights[:, 1::2])
    for kind, count in (("good", 16), ("dent", 8), ("scratch", 8)):
        members = [index for index, picture in enumerate(pictures) if picture.kind == kind]
        assert (weights[:, members].sum(axis=1) == count).all()
    assert weights.max() > 2


def test_interval_is_wider_when_pictures_of_a_part_are_alike():
    rng = np.random.default_rng(1)
    parts = [judged(kind, f"{kind}{part}", rng) for kind in ("good", "dent") for part in range(10)]
    together = [picture for picture in parts for _ in range(4)]
    apart = [
        Judged(picture.kind, str(index), picture.anomaly_map, picture.mask, picture.score)
        for index, picture in enumerate(together)
    ]
    widths = []
    for pictures in (together, apart):
        low, high = interval(resample(pictures, resamples=300)["all"].draws.image_auroc)
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]


def test_interval_covers_the_value_and_follows_the_seed(pictures):
    first, again, other = (resample(pictures, resamples=300, seed=seed)["all"] for seed in (0, 0, 1))
    low, high = interval(first.draws.pixel_auroc)
    assert low < first.exact.pixel_auroc < high
    assert np.array_equal(first.draws.pixel_auroc, again.draws.pixel_auroc)
    assert not np.array_equal(first.draws.pixel_auroc, other.draws.pixel_auroc)


def test_scores_of_one_value_only_are_half_right(pictures):
    flat = [Judged(p.kind, p.group, np.zeros_like(p.anomaly_map), p.mask, 0.0) for p in pictures]
    result = resample(flat, resamples=10)["all"]
    assert result.exact.image_auroc == result.binned.image_auroc == 0.5
    assert result.binned.pixel_auroc == pytest.approx(0.5)
    assert metric_values(result.binned) == pytest.approx(metric_values(result.exact), abs=1e-9)


def test_without_masks_pixel_metrics_are_undefined_and_written_as_null(pictures):
    unmasked = [Judged(p.kind, p.group, p.anomaly_map, np.zeros_like(p.mask), p.score) for p in pictures]
    bar = resample(unmasked, resamples=10)
    assert math.isnan(bar["all"].exact.pixel_ap)
    row = compare(bar, []).to_dict()["rows"][-1]
    assert row["estimates"]["pixel_ap"]["value"] is None
    assert "-" in table(compare(bar, []))


def test_only_good_pictures_are_refused(pictures):
    with pytest.raises(DataError, match="found 16 good and 0 defective"):
        resample([picture for picture in pictures if picture.kind == "good"])


def test_gain_is_paired_and_spread_is_over_models():
    rng = np.random.default_rng(3)
    kinds = ["good"] * 8 + ["dent"] * 8
    bar, better, best = (
        resample([judged(kind, str(i), rng, contrast=c) for i, kind in enumerate(kinds)], resamples=200)
        for c in (0.5, 2, 3)
    )
    comparison = compare(bar, [better, best])
    rows = {row.method: row.estimates["pixel_auroc"] for row in comparison.rows if row.kind == "all"}
    mean = (better["all"].exact.pixel_auroc + best["all"].exact.pixel_auroc) / 2
    assert rows["model"].value == pytest.approx(mean)
    assert rows["model"].spread > 0.01
    assert rows["gain"].value == pytest.approx(mean - bar["all"].exact.pixel_auroc)
    assert 0 < rows["gain"].low < rows["gain"].value < rows["gain"].high
    assert rows["bar"].spread is None
    assert [row.method for row in compare(bar, []).rows] == ["bar", "bar"]
    same = {row.method: row.estimates["aupro"] for row in compare(bar, [bar]).rows}
    assert same["gain"].value == same["gain"].low == same["gain"].high == 0
