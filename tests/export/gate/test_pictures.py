"""Which pictures an engine is judged by."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest

from export.gate.pictures import choose, find_samples, read, synthetic
from stlm_edge.datasets import GOOD, Sample
from stlm_edge.errors import DataError, ImageError
from stlm_edge.imaging import write_image


def labels(samples) -> Counter[str]:
    return Counter(sample.label for sample in samples)


def test_data_set_and_its_test_folder_show_the_same_pictures_with_masks(plate_data):
    whole, test = find_samples(plate_data, None), find_samples(plate_data / "test", None)
    assert labels(whole) == labels(test)
    assert labels(whole)[GOOD] == 6
    assert {sample.path.name for sample in whole if sample.mask} == {s.path.name for s in test if s.mask}
    assert find_samples(plate_data.parent, plate_data.name) == whole


def test_folder_of_one_kind_of_defect_is_labelled(plate_data):
    assert labels(find_samples(plate_data / "test" / "scratch", None)) == {"scratch": 1}


def test_test_folder_without_ground_truth_has_labels_and_no_masks(plate_data, tmp_path):
    shutil.copytree(plate_data / "test", tmp_path / "test")
    samples = find_samples(tmp_path / "test", None)
    assert len(labels(samples)) == 5
    assert {sample.mask for sample in samples} == {None}


def test_missing_mask_beside_others_leaves_the_label(plate_data, tmp_path):
    shutil.copytree(plate_data, tmp_path / "plate")
    next((tmp_path / "plate" / "ground_truth" / "scratch").iterdir()).unlink()
    for folder in (tmp_path / "plate", tmp_path / "plate" / "test"):
        samples = find_samples(folder, None)
        assert labels(samples) == labels(find_samples(plate_data, None))
        assert {sample.label for sample in samples if sample.mask is None} == {GOOD, "scratch"}


def test_plain_folder_counts_as_good_and_masks_are_no_pictures(plate_data, tmp_path):
    for index in range(2):
        write_image(tmp_path / "any" / f"{index}.png", np.zeros((8, 8, 3), np.uint8))
    assert labels(find_samples(tmp_path, None)) == {GOOD: 2}
    assert all("ground_truth" not in sample.path.parts for sample in find_samples(plate_data.parent, None))


def test_empty_and_missing_folders_are_errors(tmp_path):
    with pytest.raises(DataError, match="has no pictures"):
        find_samples(tmp_path, None)
    with pytest.raises(DataError, match="does not exist"):
        find_samples(tmp_path / "nowhere", None)


def test_choice_keeps_shares_and_leaves_no_label_out(tmp_path):
    samples = [
        Sample(tmp_path / f"{label}{i}.png", label, None)
        for label, n in (("good", 60), ("a", 30), ("b", 2))
        for i in range(n)
    ]
    chosen = choose(samples, 23)
    assert labels(chosen) == {"good": 15, "a": 7, "b": 1}
    assert chosen == choose(samples, 23)
    assert list(chosen) == sorted(chosen, key=samples.index)
    assert labels(choose(samples, 3)) == {"good": 1, "a": 1, "b": 1}
    assert choose(samples, None) == choose(samples, 500) == tuple(samples)


def test_grey_picture_is_read_as_colour(tmp_path):
    write_image(tmp_path / "a.png", np.full((8, 9), 70, np.uint8))
    (picture,) = read(find_samples(tmp_path, None))
    assert picture.image.shape == (8, 9, 3)
    assert picture.label == GOOD
    assert picture.mask is not None
    assert not picture.mask.any()


def test_unreadable_picture_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError, match=r"broken\.png"):
        list(read(find_samples(tmp_path, None)))


def test_drawn_parts_have_the_size_of_frames_and_their_truth():
    pictures = list(synthetic((96, 128)))
    assert {picture.image.shape for picture in pictures} == {(96, 128, 3)}
    assert all((picture.mask is None) == (picture.label == GOOD) for picture in pictures)
    assert {GOOD, "scratch"} < {picture.label for picture in pictures}
