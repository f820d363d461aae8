"""DAGM, split as the paper does in 4.1.1."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def test_mask_of_no_picture_is_refused(make_dagm):
    root = make_dagm("Class1")
    labels = root / "Class1" / "Train" / "Label"
    shutil.copy(next(labels.glob("*.PNG")), labels / "9000_label.PNG")
    with pytest.raises(DataError, match=r"9000_label\.PNG is the mask of no picture in .*Train.*expected \d+_label"):
        load_category(root, "Class1")


def test_mask_of_a_kind_that_is_not_read_is_to_be_converted(make_dagm):
    root = make_dagm("Class1")
    mask = next((root / "Class1" / "Train" / "Label").glob("*.PNG"))
    mask.rename(mask.with_suffix(".gif"))
    with pytest.raises(DataError, match=r"_label\.gif, the mask of .* is of a kind that is not read here; convert it"):
        load_category(root, "Class1")


def test_file_in_the_place_of_the_labels_is_not_taken_for_missing_ones(make_dagm):
    root = make_dagm("Class1")
    shutil.rmtree(root / "Class1" / "Test" / "Label")
    (root / "Class1" / "Test" / "Label").touch()
    with pytest.raises(DataError, match=r"Test/Label is a file, expected a folder"):
        load_category(root, "Class1")


def test_masks_under_a_name_that_hides_their_pictures_are_refused(make_dagm):
    """Without the text that names them, all defective pictures would count as good."""
    root = make_dagm("Class1")
    for half in ("Train", "Test"):
        labels = root / "Class1" / half / "Label"
        (labels / "Labels.txt").unlink()
        for mask in labels.glob("*.PNG"):
            mask.rename(labels / f"defect-{mask.name}")
    with pytest.raises(DataError, match=r"defect-.* is the mask of no picture in .*, nor are 2 more"):
        load_category(root, "Class1")


@pytest.mark.parametrize("name", ["{}_mask.PNG", "{}.PNG", "{}_gt.png", "{}_Label.bmp"])
def test_masks_under_other_usual_names_are_found(make_dagm, name):
    root = make_dagm("Class1")
    wanted = [sample.path for sample in load_category(root, "Class1").test[:5]]
    for mask in root.rglob("*_label.PNG"):
        number = mask.stem.removesuffix("_label")
        mask.rename(mask.with_name(name.format(number)))
    category = load_category(root, "Class1")
    assert [sample.path for sample in category.test[:5]] == wanted
    assert all(sample.mask is not None for sample in category.test[:5])


def test_two_masks_of_one_picture_are_refused(make_dagm):
    root = make_dagm("Class1")
    mask = next(root.rglob("*_label.PNG"))
    shutil.copy(mask, mask.with_suffix(".bmp"))
    with pytest.raises(DataError, match=r"has 2 masks, .*_label\.PNG and .*_label\.bmp in .*Label; keep one"):
        load_category(root, "Class1")


def test_labels_alone_are_enough(make_dagm):
    root = make_dagm("Class1")
    before = load_category(root, "Class1")
    for mask in root.rglob("*_label.PNG"):
        mask.unlink()
    after = load_category(root, "Class1")
    assert [(s.path, s.label) for s in after.test] == [(s.path, s.label) for s in before.test]
    assert {sample.mask for sample in after.test} == {None}
    assert after.train == before.train


def test_neither_masks_nor_labels_are_refused(make_dagm):
    for name, half in (("Class1", "Train"), ("Class2", "Test")):
        root = make_dagm(name)
        for file in (root / name / half / "Label").iterdir():
            file.unlink()
        with pytest.raises(DataError, match=rf"{half}/Label holds neither masks nor Labels\.txt"):
            load_category(root, name)


def labels_text(root):
    return root / "Class1" / "Train" / "Label" / "Labels.txt"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["\t", " ", ";"])
def test_labels_are_read_as_any_editor_writes_them(make_dagm, encoding, ending, separator):
    """Without masks, so that it is the text that tells."""
    root = make_dagm("Class1")
    before = load_category(root, "Class1")
    for mask in root.rglob("*_label.PNG"):
        mask.unlink()
    for path in root.rglob("Labels.txt"):
        path.write_bytes(path.read_text().replace("\n", ending).replace("\t", separator).encode(encoding))
    assert [(s.path, s.label) for s in load_category(root, "Class1").test] == [(s.path, s.label) for s in before.test]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("61\t0\t0061.PNG\t0\t0", "61\t0\t0065.PNG\t0\t0", r"0065\.PNG is good by .* but has the mask 0065_label"),
        ("61\t0\t0061.PNG\t0\t0", "61\t1\t0061.PNG\t1\t0061_label.PNG", r"0061\.PNG is defective by .* no mask"),
        ("61\t0\t0061.PNG\t0\t0", "61\t1\t0999.PNG\t1\t0999_label.PNG", "names 0999 as defective, which is not in"),
        ("61\t0\t0061.PNG\t0\t0", "61\tyes\t0061.PNG", "line 40: found '61 yes 0061.PNG', expected number, 0 or 1"),
        ("61\t0\t0061.PNG\t0\t0", "<html>", "line 40: found '<html>'"),
    ],
)
def test_labels_that_contradict_masks_or_are_no_labels_are_refused(make_dagm, old, new, words):
    root = make_dagm("Class1")
    text = (
        labels_text(root).read_text().replace("65\t1\t0065.PNG\t1\t0065_label.PNG", "")
        if "0065" in new
        else (labels_text(root).read_text())
    )
    assert old in text
    labels_text(root).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        load_category(root, "Class1")


def test_mask_that_two_pictures_could_have_is_refused(make_dagm):
    root = make_dagm("Class1")
    mask = next(root.rglob("*_label.PNG"))
    picture = mask.parents[1] / mask.name.replace("_label", "")
    shutil.copy(picture, picture.with_suffix(".bmp"))
    with pytest.raises(DataError, match=rf"is one of 2 pictures called {picture.stem} that .*{mask.name} may be"):
        load_category(root, "Class1")


def without_masks(root: Path) -> Path:
    for mask in root.rglob("*_label.PNG"):
        mask.unlink()
    return root / "Class1" / "Test" / "Label" / "Labels.txt"


def test_text_alone_must_name_every_picture(make_dagm):
    """A text that breaks off would make good pictures of the defective ones after it."""
    root = make_dagm("Class1")
    text = without_masks(root)
    load_category(root, "Class1")
    lines = text.read_text().splitlines(keepends=True)
    for kept, left in ((lines[:-2], 2), ([], len(lines) - 1)):
        text.write_text("".join(kept))
        with pytest.raises(DataError, match=rf"Labels\.txt does not name {left} of {len(lines) - 1} pictures"):
            load_category(root, "Class1")


def test_text_that_contradicts_itself_is_refused(make_dagm):
    root = make_dagm("Class1")
    text = without_masks(root)
    line = next(line for line in text.read_text().splitlines() if "\t1\t" in line)
    text.write_text(text.read_text() + "\n" + line.replace("\t1\t", "\t0\t", 1))
    with pytest.raises(DataError, match=r"Labels\.txt, line \d+: \d+ is good in one line and defective in another"):
        load_category(root, "Class1")
