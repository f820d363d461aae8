"""DAGM, split as the paper does in 4.1.1."""

from __future__ import annotations

import shutil

import pytest

from stlm_edge.datasets import categories, load_category, read_truth
from stlm_edge.errors import DataError


def good_tested(category) -> list[str]:
    return [sample.path.name for sample in category.test if sample.label == "good"]


def test_defects_are_tested_thirty_good_ones_too_and_the_others_trained_on(make_dagm):
    category = load_category(make_dagm("Class1"), "Class1")
    assert category.name == "Class1"
    assert [sample.label for sample in category.test] == ["anomaly"] * 5 + ["good"] * 30
    assert len(category.train) == 40 + 20 - 30
    assert all(sample.label == "good" and sample.mask is None for sample in category.train)
    used = [sample.path for sample in (*category.train, *category.test)]
    assert len(set(used)) == len(used) == 65  # every picture once


def test_pictures_of_both_halves_are_trained_on_and_tested(make_dagm):
    category = load_category(make_dagm("Class1"), "Class1")
    for samples in (category.train, category.test[:5], category.test[5:]):
        assert {sample.path.parent.name for sample in samples} == {"Train", "Test"}


def test_defects_have_the_ellipses_as_masks(make_dagm):
    root = make_dagm("Class1")
    defects = load_category(root, "Class1").test[:5]
    for sample in defects:
        assert sample.mask == sample.path.parent / "Label" / f"{sample.path.stem}_label.PNG"
        assert read_truth(sample, size=(12, 16)).sum() == 8


def test_split_is_the_same_every_time_and_everywhere(make_dagm, tmp_path):
    root = make_dagm("Class1")
    first = load_category(root, "Class1")
    assert load_category(root, "Class1") == first
    assert load_category(root / "Class1", None) == first
    copy = tmp_path / "elsewhere" / "Class7"
    shutil.copytree(root / "Class1", copy)
    assert good_tested(load_category(copy, None)) == good_tested(first)
    assert good_tested(first)[:4] == ["0001.PNG", "0002.PNG", "0004.PNG", "0005.PNG"]  # a change breaks old figures


def test_another_seed_chooses_other_good_pictures(make_dagm):
    root = make_dagm("Class1")
    chosen = [good_tested(load_category(root, "Class1", dagm_seed=seed)) for seed in range(4)]
    assert all(len(names) == 30 for names in chosen)
    assert len({tuple(names) for names in chosen}) == 4


def test_choice_has_no_preference(make_dagm):
    """Each of 60 pictures is chosen by about half of 200 seeds: 100 plus or minus 5 standard deviations."""
    root = make_dagm("Class1")
    counts: dict[str, int] = {}
    for seed in range(200):
        for name in good_tested(load_category(root, "Class1", dagm_seed=seed)):
            counts[name] = counts.get(name, 0) + 1
    assert len(counts) == 60
    assert 65 < min(counts.values()) <= max(counts.values()) < 135


def test_one_more_picture_changes_at_most_one_choice(make_dagm):
    root = make_dagm("Class1")
    before = set(good_tested(load_category(root, "Class1")))
    shutil.copy(root / "Class1" / "Train" / "0030.PNG", root / "Class1" / "Train" / "9999.PNG")
    assert len(before - set(good_tested(load_category(root, "Class1")))) <= 1


def test_categories_are_the_classes_in_the_order_of_their_numbers(make_dagm):
    root = make_dagm("Class10", "Class2", "Class1", good=(1, 1), defective=(1, 1))
    (root / "papers").mkdir()
    assert categories(root) == ["Class1", "Class2", "Class10"]


@pytest.mark.parametrize("good", [(10, 20), (30, 0), (0, 1)])
def test_thirty_good_pictures_or_fewer_are_refused(make_dagm, good):
    with pytest.raises(DataError, match=rf"has {sum(good)} good pictures, expected more than 30"):
        load_category(make_dagm("Class1", good=good), "Class1")


def test_thirty_one_good_pictures_leave_one_to_train_on(make_dagm):
    assert len(load_category(make_dagm("Class1", good=(30, 1)), "Class1").train) == 1


@pytest.mark.parametrize("missing", ["Test", "Train/Label", "Test/Label"])
def test_missing_half_or_labels_are_refused(make_dagm, missing):
    root = make_dagm("Class1")
    shutil.rmtree(root / "Class1" / missing)
    with pytest.raises(DataError, match=r"Label does not exist, found the folders .*needs Train, Train/Label"):
        load_category(root, "Class1")


def test_half_without_pictures_is_refused(make_dagm):
    root = make_dagm("Class1", good=(31, 0), defective=(1, 0))
    with pytest.raises(DataError, match="Test has no pictures"):
        load_category(root, "Class1")


def test_defect_that_labels_name_but_no_mask_shows_is_refused(make_dagm):
    root = make_dagm("Class1")
    mask = sorted((root / "Class1" / "Train" / "Label").glob("*.PNG"))[0]
    mask.unlink()
    with pytest.raises(DataError, match=rf"is defective by .*Labels\.txt but has no mask, expected .*{mask.name}"):
        load_category(root, "Class1")


def test_labels_file_may_be_missing(make_dagm):
    root = make_dagm("Class1")
    before = load_category(root, "Class1")
    for half in ("Train", "Test"):
        (root / "Class1" / half / "Label" / "Labels.txt").unlink()
    assert load_category(root, "Class1") == before


def test_mask_without_a_picture_is_passed_over(make_dagm):
    root = make_dagm("Class1")
    labels = root / "Class1" / "Train" / "Label"
    shutil.copy(next(labels.glob("*.PNG")), labels / "9000_label.PNG")
    assert len(load_category(root, "Class1").test) == 35
