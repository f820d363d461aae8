from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cells import AREAS
from benchmarks.intervals import parts_of, resample
from stlm_edge.errors import DataError
from stlm_edge.inspection import Answer
from stlm_edge.metrics import pixel_metrics, roc_auc
from stlm_edge.resampling import Histograms, Judged, Values, draw_weights


def judged(kind: str, part: str, rng: np.random.Generator, *, contrast: float = 1.0, size=(24, 30)) -> Judged:
    mask = np.zeros(size, np.uint8)
    if kind != "good":
        mask[4:12, 5:15] = 1
        mask[18:20, 20:24] = 1
    anomaly_map = (rng.normal(0, 1, size) + contrast * mask).astype(np.float32)
    return Judged(kind, part, Answer(anomaly_map, float(anomaly_map.max() + rng.normal(0, 0.5))), mask)


@pytest.fixture
def pictures() -> list[Judged]:
    """Two pictures of each of 8 good parts, and of 4 with a dent and 4 with a scratch."""
    rng = np.random.default_rng(0)
    kinds = ["good"] * 8 + ["dent"] * 4 + ["scratch"] * 4
    return [judged(kind, f"part{part}", rng) for part, kind in enumerate(kinds) for _ in range(2)]


def interval(draws: Values) -> tuple[float, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return low, high


def values(figures: Mapping[str, float]) -> list[float]:
    return [figures[metric] for metric in AREAS]


def binned(pictures: list[Judged]) -> dict[str, Values]:
    """From the histograms of all pictures, each counted once."""
    return {name: found[0] for name, found in Histograms(pictures).figures(np.ones((1, len(pictures)))).items()}


def test_histograms_give_the_exact_metrics_but_for_a_little(pictures: list[Judged]) -> None:
    exact = resample(pictures, resamples=10)["all"].exact
    assert values(binned(pictures)) == pytest.approx(values(exact), abs=2e-3)
    assert binned(pictures)["image_auroc"] == pytest.approx(exact["image_auroc"], abs=1e-12)


def test_a_draw_is_what_the_exact_metrics_say_of_the_pictures_drawn(pictures: list[Judged]) -> None:
    draws = resample(pictures, resamples=3, seed=5)["all"].draws
    weights = draw_weights([p.kind for p in pictures], [p.part for p in pictures], resamples=3, seed=5)
    for index, counts in enumerate(weights.astype(int)):
        drawn = [picture for picture, count in zip(pictures, counts, strict=True) for _ in range(count)]
        pixels = pixel_metrics([picture.answer.anomaly_map for picture in drawn], [picture.mask for picture in drawn])
        scores, labels = zip(*((picture.answer.score, picture.kind != "good") for picture in drawn), strict=True)
        wanted = [roc_auc(np.array(scores), np.array(labels)), pixels.auroc, pixels.aupro, pixels.ap]
        assert [draws[metric][index] for metric in AREAS] == pytest.approx(wanted, abs=2e-3)


def test_pictures_of_a_part_are_drawn_together_and_kinds_keep_their_number(pictures: list[Judged]) -> None:
    weights = draw_weights([p.kind for p in pictures], [p.part for p in pictures], resamples=200, seed=0)
    assert np.array_equal(weights[:, 0::2], weights[:, 1::2])
    for kind, count in (("good", 16), ("dent", 8), ("scratch", 8)):
        members = [index for index, picture in enumerate(pictures) if picture.kind == kind]
        assert (weights[:, members].sum(axis=1) == count).all()
    assert weights.max() > 2


def test_interval_is_wider_when_pictures_of_a_part_are_alike() -> None:
    rng = np.random.default_rng(1)
    parts = [judged(kind, f"{kind}{part}", rng) for kind in ("good", "dent") for part in range(10)]
    together = [picture for picture in parts for _ in range(4)]
    apart = [Judged(picture.kind, str(index), picture.answer, picture.mask) for index, picture in enumerate(together)]
    widths = []
    for pictures in (together, apart):
        low, high = interval(resample(pictures, resamples=300)["all"].draws["image_auroc"])
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]


def test_interval_covers_the_value_and_follows_the_seed(pictures: list[Judged]) -> None:
    first, again, other = (resample(pictures, resamples=300, seed=seed)["all"] for seed in (0, 0, 1))
    low, high = interval(first.draws["pixel_auroc"])
    assert low < first.exact["pixel_auroc"] < high
    assert np.array_equal(first.draws["pixel_auroc"], again.draws["pixel_auroc"])
    assert not np.array_equal(first.draws["pixel_auroc"], other.draws["pixel_auroc"])


def test_each_kind_is_told_with_the_good_pictures(pictures: list[Judged]) -> None:
    found = resample(pictures, resamples=10)
    assert list(found) == ["dent", "scratch", "all"]
    alone = resample([picture for picture in pictures if picture.kind != "scratch"], resamples=10)
    assert found["dent"].exact == alone["all"].exact


def test_scores_of_one_value_only_are_half_right(pictures: list[Judged]) -> None:
    flat = [Judged(p.kind, p.part, Answer(np.zeros(p.mask.shape, np.float32), 0.0), p.mask) for p in pictures]
    exact = resample(flat, resamples=10)["all"].exact
    assert exact["image_auroc"] == binned(flat)["image_auroc"] == 0.5
    assert binned(flat)["pixel_auroc"] == pytest.approx(0.5)
    assert values(binned(flat)) == pytest.approx(values(exact), abs=1e-9)


def test_without_masks_pixel_metrics_are_undefined(pictures: list[Judged]) -> None:
    unmasked = [Judged(p.kind, p.part, p.answer, np.zeros_like(p.mask)) for p in pictures]
    found = resample(unmasked, resamples=10)["all"]
    for metric in ("pixel_auroc", "aupro", "pixel_ap"):
        assert np.isnan(found.exact[metric])
        assert np.isnan(interval(found.draws[metric])).all()
    assert not np.isnan(found.draws["image_auroc"]).any()


def test_without_a_file_each_picture_is_a_part_of_its_own(tmp_path: Path) -> None:
    paths = [tmp_path / "test/good/a.png", tmp_path / "test/bad/a.png"]
    assert parts_of(paths, root=tmp_path, tiles=None) == ["test/good/a.png", "test/bad/a.png"]


def test_pictures_of_one_tile_are_one_part(tmp_path: Path) -> None:
    (tmp_path / "tiles.csv").write_text("file,tile\ntest/good/a.png,7\ntest/good/b.png,7\ntest/good/c.png,8\n")
    paths = [tmp_path / "test/good" / name for name in ("a.png", "b.png", "c.png")]
    first, second, third = parts_of(paths, root=tmp_path, tiles=tmp_path / "tiles.csv")
    assert first == second != third


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,tile\ntest/good/b.png,7\n", "names 1 picture that is not there, the first is test/good/b.png"),
        ("file,tile\ntest/good/a.png\n", "and a line for each picture"),
        ("file,tile\n", "lacks 1 of 1 picture"),
        ("path,kind\na,1\n", "expected a CSV file with the columns picture and part"),
        (None, "expected a CSV file with the columns picture and part"),
    ],
)
def test_file_of_tiles_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "tiles.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        parts_of([tmp_path / "test/good/a.png"], root=tmp_path, tiles=tmp_path / "tiles.csv")
    assert words in str(caught.value)
