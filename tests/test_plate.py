"""The synthetic part: reproducible, and truthful about its defects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stlm_edge.datasets import load_category
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import read_image
from stlm_edge.masks import read_mask
from stlm_edge.plate import SMALLEST_SIDE
from stlm_edge.plate.__main__ import main
from stlm_edge.plate.part import DEFECT_KINDS, SyntheticPart, render_part, write_dataset

KINDS = pytest.mark.parametrize("kind", DEFECT_KINDS)
SEEDS = range(12)


def render(seed: int, kind: str | None, size: tuple[int, int] = (256, 256)) -> SyntheticPart:
    return render_part(np.random.default_rng(seed), size=size, defect=kind)


@pytest.mark.parametrize("kind", [None, *DEFECT_KINDS])
def test_same_seed_gives_the_same_part(kind: str | None) -> None:
    first, again = render(4, kind), render(4, kind)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)


def test_parts_of_one_generator_differ() -> None:
    rng = np.random.default_rng(0)
    first, second = (render_part(rng, size=(128, 128), defect=None).image for _ in range(2))
    assert np.abs(first.astype(int) - second).mean() > 2


@KINDS
def test_part_differs_from_the_good_one_on_the_mask_and_nowhere_else(kind: str) -> None:
    for seed in SEEDS:
        good, defective = render(seed, None), render(seed, kind)
        changed = (good.image != defective.image).any(axis=2)
        mask = defective.mask == 1
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.85
        assert defective.defect == kind


def test_good_part_has_an_empty_mask() -> None:
    part = render(0, None)
    assert part.defect is None
    assert not part.mask.any()


@KINDS
def test_defect_is_clearly_visible(kind: str) -> None:
    for seed in SEEDS:
        good, defective = render(seed, None), render(seed, kind)
        difference = np.abs(good.image.astype(int) - defective.image).max(axis=2)
        assert difference[defective.mask == 1].mean() > 15
        assert 0.0005 < defective.mask.mean() < 0.03


@KINDS
def test_extent_of_a_defect_is_the_stated_share_of_the_side(kind: str) -> None:
    low, high = {"scratch": (0.1, 0.42), "stain": (0.05, 0.17), "chip": (0.02, 0.11), "missing_hole": (0.05, 0.11)}[
        kind
    ]
    for seed in SEEDS:
        _, (width, height), _ = cv2.minAreaRect(cv2.findNonZero(render(seed, kind, (512, 512)).mask))
        assert low < max(width, height) / 512 < high


@pytest.mark.parametrize("size", [(256, 384), (384, 256), (200, 333), (1024, 1024), (SMALLEST_SIDE, SMALLEST_SIDE)])
def test_part_is_drawn_at_any_size(size: tuple[int, int]) -> None:
    for kind in DEFECT_KINDS:
        part = render(1, kind, size)
        assert part.image.shape == (*size, 3)
        assert part.image.dtype == part.mask.dtype == np.uint8
        assert part.mask.shape == size
        assert set(np.unique(part.mask)) == {0, 1}


def test_same_part_is_drawn_at_every_size() -> None:
    small, large = render(2, "stain", (256, 256)), render(2, "stain", (512, 512))
    shrunk = cv2.resize(large.mask, (256, 256), interpolation=cv2.INTER_AREA)
    both = np.count_nonzero((shrunk > 0) & (small.mask > 0))
    assert both > 0.8 * np.count_nonzero(small.mask)


def test_pictures_are_neither_black_nor_burnt_out() -> None:
    for seed in SEEDS:
        image = render(seed, None).image
        assert np.mean(image == 255) < 0.02
        assert 70 < image.mean() < 170


def test_unknown_defect_and_too_small_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'dent', expected one of scratch"):
        render(0, "dent")
    with pytest.raises(ConfigError, match="at least"):
        render(0, None, (SMALLEST_SIDE - 1, 256))


def test_data_set_is_written_in_the_layout_that_is_read(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=3, test_good=2, test_defective_per_kind=2, size=(96, 128), seed=1, category="plate")
    category = load_category(tmp_path, "plate")
    assert len(category.train) == 3
    assert sorted({sample.label for sample in category.test}) == sorted(("good", *DEFECT_KINDS))
    assert len(category.test) == 2 + 2 * len(DEFECT_KINDS)
    for sample in category.test:
        assert read_image(sample.path).shape == (96, 128, 3)
        if sample.mask is not None:
            assert read_mask(sample.mask, size=(96, 128)).any()
            assert set(np.unique(cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED))) == {0, 255}


def test_program_writes_the_data_set_that_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--category", "lid", "--train", "2", "--test-good", "1", "--defects", "1", "--size", "96"]
    assert main([str(tmp_path), *options, "--seed", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "lid")
    category = load_category(tmp_path, "lid")
    assert (len(category.train), len(category.test)) == (2, 1 + len(DEFECT_KINDS))
    first = read_image(category.train[0].path)
    assert first.shape == (96, 96, 3)
    assert main([str(tmp_path), *options, "--seed", "4"]) == 0
    assert not np.array_equal(read_image(category.train[0].path), first)


def test_program_answers_wrong_usage_with_2_and_a_place_it_cannot_write_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--size", "10"]) == 2
    (tmp_path / "lid").write_text("in the way")
    assert main([str(tmp_path), "--category", "lid"]) == 1
    assert "error: cannot write" in capsys.readouterr().err
