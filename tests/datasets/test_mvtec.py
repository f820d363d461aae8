"""MVTec AD's layout, plain folders and textures, on files that the tests make."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stlm_edge.datasets import categories, check_masks, load_category, read_truth, texture_paths
from stlm_edge.datasets.mvtec import labelled_by_folder
from stlm_edge.errors import DataError, ImageError
from stlm_edge.imaging import read_image, write_image
from stlm_edge.masks import read_mask
from tests.picture_files import write_deep


def write(path: Path, *, shape: tuple[int, ...] = (12, 16, 3), dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_deep(path, np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype))


def make_category(root: Path) -> Path:
    for name in ("002", "000", "001"):
        write(root / "train" / "good" / f"{name}.png")
    write(root / "test" / "good" / "000.png")
    for kind in ("scratch", "chip"):
        for name in ("001", "000"):
            write(root / "test" / kind / f"{name}.png")
            write(root / "ground_truth" / kind / f"{name}_mask.png", shape=(12, 16))
    return root


def test_mvtec_layout_is_listed_in_order(tmp_path: Path) -> None:
    category = load_category(make_category(tmp_path / "data" / "plate").parent, "plate")
    assert category.name == "plate"
    assert [sample.path.name for sample in category.train] == ["000.png", "001.png", "002.png"]
    assert all(sample.label == "good" and sample.mask is None for sample in category.train)
    found = [(sample.label, sample.path.name) for sample in category.test]
    assert found == [
        ("chip", "000.png"),
        ("chip", "001.png"),
        ("good", "000.png"),
        ("scratch", "000.png"),
        ("scratch", "001.png"),
    ]
    masks = [sample.mask for sample in category.test]
    assert masks[2] is None
    assert masks[1] == tmp_path / "data" / "plate" / "ground_truth" / "chip" / "001_mask.png"


def test_category_folder_itself_can_be_given(tmp_path: Path) -> None:
    root = make_category(tmp_path / "plate")
    assert load_category(root, None) == load_category(tmp_path, "plate")


def test_linked_category_has_the_name_of_its_link(tmp_path: Path) -> None:
    make_category(tmp_path / "store" / "000017")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "plate").symlink_to(tmp_path / "store" / "000017")
    assert load_category(tmp_path / "data", "plate").name == "plate"
    assert load_category(tmp_path / "data" / "plate", None).name == "plate"


def test_plain_folder_is_good_pictures_to_train_on(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg"):
        write(tmp_path / "parts" / name)
    category = load_category(tmp_path / "parts", None)
    assert (category.name, category.test) == ("parts", ())
    assert [sample.path.name for sample in category.train] == ["a.jpg", "b.png"]


def test_name_of_the_current_folder_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "parts" / "a.png")
    monkeypatch.chdir(tmp_path / "parts")
    assert load_category(Path(), None).name == "parts"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".PNG", ".Jpg", ".TIF"])
def test_pictures_of_every_suffix_are_found_and_read(tmp_path: Path, suffix: str) -> None:
    for shape in ((12, 16), (20, 9, 3)):
        write(tmp_path / f"a{suffix}", shape=shape)
        (sample,) = load_category(tmp_path, None).train
        assert read_image(sample.path).shape == (*shape[:2], 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_of_16_bits_are_found_and_read(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", shape=(8, 9), dtype=np.uint16)
    (sample,) = load_category(tmp_path, None).train
    assert read_image(sample.path).dtype == np.uint8


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    root = make_category(tmp_path / "plate")
    for name in (".hidden.png", "notes.txt", "Thumbs.db"):
        (root / "train" / "good" / name).write_bytes(b"x")
    write(root / "test" / ".cache" / "000.png")
    (root / "train" / "good" / "folder.png").mkdir()
    category = load_category(root, None)
    assert len(category.train) == 3
    assert {sample.label for sample in category.test} == {"good", "scratch", "chip"}


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_mask_may_have_another_suffix_than_its_picture(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "train" / "good" / "0.jpg")
    write(tmp_path / "test" / "chip" / "0.jpg")
    mask = write(tmp_path / "ground_truth" / "chip" / f"0_mask{suffix}", shape=(12, 16))
    assert load_category(tmp_path, None).test[0].mask == mask


def test_mask_without_a_picture_is_passed_over(tmp_path: Path) -> None:
    root = make_category(tmp_path / "plate")
    write(root / "ground_truth" / "chip" / "900_mask.png", shape=(12, 16))
    write(root / "ground_truth" / "dent" / "000_mask.png", shape=(12, 16))
    assert len(load_category(root, None).test) == 5


def test_category_without_test_pictures_can_be_trained_on(tmp_path: Path) -> None:
    write(tmp_path / "train" / "good" / "0.png")
    assert load_category(tmp_path, None).test == ()


def masks_of(root: Path, kind: str = "chip") -> list[str | None]:
    samples = [sample for sample in load_category(root, None).test if sample.label == kind]
    return [None if sample.mask is None else sample.mask.name for sample in samples]


@pytest.mark.parametrize("name", ["{}.png", "{}_label.png", "{}_gt.PNG", "{}_Mask.TIF", "{}_mask.jpg", "{}_MASK.Bmp"])
def test_mask_may_have_other_usual_names(tmp_path: Path, name: str) -> None:
    root = make_category(tmp_path / "plate")
    folder = root / "ground_truth" / "chip"
    for number in ("000", "001"):
        (folder / f"{number}_mask.png").unlink()
        write(folder / name.format(number), shape=(12, 16))
    assert masks_of(root) == [name.format("000"), name.format("001")]
    check_masks(load_category(root, None).test)


def test_picture_with_the_name_of_a_mask_keeps_its_own(tmp_path: Path) -> None:
    write(tmp_path / "train" / "good" / "0.png")
    for name in ("part", "part_gt"):
        write(tmp_path / "test" / "chip" / f"{name}.png")
        write(tmp_path / "ground_truth" / "chip" / f"{name}_mask.png", shape=(12, 16))
    assert masks_of(tmp_path) == ["part_mask.png", "part_gt_mask.png"]


def test_labels_are_enough_where_there_are_no_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_category(tmp_path / "plate")
    shutil.rmtree(root / "ground_truth" / "chip")
    samples = load_category(root, None).test
    assert [sample.label for sample in samples] == ["chip", "chip", "good", "scratch", "scratch"]
    assert masks_of(root) == [None, None]
    assert masks_of(root, "scratch") == ["000_mask.png", "001_mask.png"]
    assert read_truth(samples[0], size=(12, 16)) is None
    check_masks(samples)
    assert "NO MASKS for 2 of 4 defective pictures (chip), the first is" in caplog.text


@pytest.mark.parametrize("name", ["test", "train/good"])
def test_file_in_the_place_of_a_folder_is_not_taken_for_a_missing_one(tmp_path: Path, name: str) -> None:
    root = make_category(tmp_path / "plate")
    shutil.rmtree(root / name)
    (root / name).touch()
    with pytest.raises(DataError, match=rf"{name} is a file, expected a folder; move it away"):
        load_category(root, None)


def test_one_mask_that_is_missing_leaves_one_picture_unmarked_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_category(tmp_path / "plate")
    (root / "ground_truth" / "chip" / "001_mask.png").unlink()
    assert masks_of(root) == ["000_mask.png", None]
    check_masks(load_category(root, None).test)
    assert "NO MASKS for 1 of 4 defective pictures" in caplog.text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: (folder / "001_mask.png").rename(folder / "1-mask.png"), r"no mask, .*such as 1-mask\.png"),
        (lambda folder: folder.rename(folder.with_name("Chip")), r"chip/000\.png has no mask, .*rename .*truth/Chip"),
        (lambda folder: folder.parent.rename(folder.parent.with_name("Ground-Truth")), "rename the folder .*Ground-Tr"),
        (
            lambda folder: (folder / "001_mask.png").rename(folder / "001_mask.gif"),
            r"001_mask\.gif, .*convert it to PNG",
        ),
        (lambda folder: [shutil.rmtree(folder), folder.touch()], "chip is a file and no folder; move it away"),
        (lambda folder: [shutil.rmtree(folder.parent), folder.parent.touch()], "ground_truth is a file and no folder"),
        (
            lambda folder: shutil.copy(folder / "001_mask.png", folder / "001.png"),
            r"has 2 masks, 001\.png and 001_mask",
        ),
        (
            lambda folder: [(folder / "001_mask.png").unlink(), (folder / "001").mkdir()],
            "is a folder, as in MVTec LOCO",
        ),
    ],
)
def test_mask_that_nobody_can_place_stops_only_what_looks_at_pixels(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    root = make_category(tmp_path / "plate")
    make(root / "ground_truth" / "chip")
    category = load_category(root, None)
    assert len(category.train) == 3
    assert [sample.label for sample in category.test] == ["chip", "chip", "good", "scratch", "scratch"]
    with pytest.raises(DataError, match=words):
        check_masks(category.test)


@pytest.mark.parametrize("name", ["Good", "GOOD", "ok", "OK", "normal"])
def test_good_pictures_under_another_name_are_not_taken_for_defects(tmp_path: Path, name: str) -> None:
    root = make_category(tmp_path / "plate")
    (root / "test" / "good").rename(root / "test" / name)
    with pytest.raises(
        DataError, match=rf"test/{name} would be a kind of defect, expected good pictures in .*test/good"
    ):
        load_category(root, None)


def test_truth_that_contradicts_the_label_is_refused(tmp_path: Path) -> None:
    root = make_category(tmp_path / "plate")
    shutil.copytree(root / "ground_truth" / "chip", root / "ground_truth" / "good")
    chip, _, good, *_ = load_category(root, None).test
    assert chip.mask is not None
    assert good.mask is not None
    marks = np.zeros((12, 16), np.uint8)
    write_image(chip.mask, marks)
    with pytest.raises(ImageError, match=r"000_mask\.png is black, but .*chip/000\.png is labelled chip; mark"):
        read_truth(chip, size=(12, 16))
    write_image(good.mask, marks)
    assert np.array_equal(read_truth(good, size=(12, 16)), marks)
    marks[2:5, 3:6] = 255
    for path in (chip.mask, good.mask):
        write_image(path, marks)
    assert np.array_equal(read_truth(chip, size=(12, 16)), marks // 255)
    with pytest.raises(ImageError, match=r"marks 9 pixels of .*good/000\.png, labelled good"):
        read_truth(good, size=(12, 16))
    corner = np.full_like(marks, 255)
    corner[:3, :3] = 0
    for inverted in (255 - marks, np.full_like(marks, 255), corner):
        write_image(chip.mask, inverted)
        with pytest.raises(ImageError, match=r"marks (95.3|100) % of .* and most of its border, so it looks inverted"):
            read_truth(chip, size=(12, 16))


def test_links_keep_the_labels_of_the_folders_they_lie_in(tmp_path: Path) -> None:
    root = make_category(tmp_path / "plate")
    store = tmp_path / "store"
    store.mkdir()
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(store / f"{number}.png")
        path.symlink_to(store / f"{number}.png")
    (tmp_path / "linked").symlink_to(root / "test")
    for folder in (root / "test", tmp_path / "linked"):
        found = labelled_by_folder(texture_paths(folder))
        assert [sample.label for sample in found if sample is not None] == ["chip"] * 2 + ["good"] + ["scratch"] * 2
    assert labelled_by_folder([store / "0.png"]) == [None]


def test_mask_of_another_size_is_refused_when_it_is_read(tmp_path: Path) -> None:
    root = make_category(tmp_path / "plate")
    write(root / "ground_truth" / "chip" / "000_mask.png", shape=(10, 16))
    sample = load_category(root, None).test[0]
    assert sample.mask is not None
    with pytest.raises(ImageError, match=r"10 x 16.*12 x 16"):
        read_mask(sample.mask, size=(12, 16))


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist, expected a folder"):
        load_category(tmp_path / "nowhere", None)
    with pytest.raises(DataError, match=r"a\.png is a file"):
        load_category(write(tmp_path / "a.png"), None)


@pytest.mark.parametrize("content", [[], ["notes.txt", ".hidden.png"]])
def test_folder_without_pictures_is_refused(tmp_path: Path, content: list[str]) -> None:
    for name in content:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"neither pictures \(\.bmp.*nor train/good/.*found no folder"):
        load_category(tmp_path, None)


def test_run_whose_figures_would_be_learnt_from_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "evaluation-curves.png")
    assert len(load_category(tmp_path, None).train) == 1
    (tmp_path / "run.json").touch()
    with pytest.raises(DataError, match=r"is the folder of a training, and evaluation-curves\.png in it a figure"):
        load_category(tmp_path, None)


def test_reviewed_defects_alone_are_refused_by_what_they_lack(tmp_path: Path) -> None:
    write(tmp_path / "test/scratch/a.png")
    with pytest.raises(DataError, match=r"has test/ and no train/good/, expected good pictures .* put some into"):
        load_category(tmp_path, None)


def test_data_set_without_a_category_given_names_the_categories(tmp_path: Path) -> None:
    make_category(tmp_path / "plate")
    with pytest.raises(DataError, match="found the folders plate"):
        load_category(tmp_path, None)


def test_missing_category_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    make_category(tmp_path / "plate")
    make_category(tmp_path / "gear")
    with pytest.raises(DataError, match="no category 'bolt', found the folders gear, plate"):
        load_category(tmp_path, "bolt")


@pytest.mark.parametrize("folder", ["train", "train/good", "train/fine"])
def test_category_without_good_training_pictures_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="no good pictures to train on"):
        load_category(tmp_path, None)


def test_textures_are_found_at_any_depth(tmp_path: Path) -> None:
    names = ["wood/oak/1.JPG", "a.png", "wood/2.png"]
    for name in names:
        write(tmp_path / name)
    write(tmp_path / ".cache" / "3.png")
    (tmp_path / "sources.csv").write_text("x")
    assert texture_paths(tmp_path) == sorted(tmp_path / name for name in names)


def test_texture_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        texture_paths(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        texture_paths(tmp_path / "nowhere")


def test_categories_are_the_folders_in_the_layout(tmp_path: Path) -> None:
    make_category(tmp_path / "plate")
    make_category(tmp_path / "gear")
    write(tmp_path / "pictures of the paper" / "1.png")
    assert categories(tmp_path) == ["gear", "plate"]


def test_categories_of_plain_folders_are_those_with_pictures(tmp_path: Path) -> None:
    write(tmp_path / "bolt" / "1.png")
    write(tmp_path / "nut" / "1.png")
    (tmp_path / "notes").mkdir()
    assert categories(tmp_path) == ["bolt", "nut"]


def test_folder_without_categories_is_refused(tmp_path: Path) -> None:
    make_category(tmp_path / "plate")
    for folder in (tmp_path / "plate", tmp_path / "plate" / "test" / "good"):
        with pytest.raises(DataError, match=r"has no category: looked for .*VisA.*MVTec AD.*DAGM"):
            categories(folder)
    with pytest.raises(DataError, match="does not exist"):
        categories(tmp_path / "nowhere")


def test_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", forbidden)
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); check the path and its rights"):
            load_category(tmp_path, None)


def test_mask_that_two_pictures_could_have_is_refused_where_pixels_are_judged(tmp_path: Path) -> None:
    root = make_category(tmp_path)
    write(root / "test" / "chip" / "000.jpg")
    samples = load_category(root, None).test
    with pytest.raises(DataError, match=r"chip/000\.jpg is one of 2 pictures called 000 that .*000_mask\.png may be"):
        check_masks(samples)
    (root / "ground_truth" / "chip" / "000_mask.png").unlink()
    check_masks(load_category(root, None).test)
