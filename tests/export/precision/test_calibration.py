"""Which pictures an engine is calibrated on."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest

from export.precision.calibration import choose_pictures
from stlm_edge.errors import DataError
from stlm_edge.files import sha256
from stlm_edge.imaging import write_image


def fill(folder: Path, *, count: int, first: int = 0) -> None:
    """Write pictures that all differ."""
    for index in range(first, first + count):
        write_image(folder / f"{index:03d}.png", np.full((4, 4, 3), index, np.uint8))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """MVTec AD's layout: 6 good pictures to train on; 2 good, 3 scratched and 1 bent to test."""
    root = tmp_path / "part"
    fill(root / "train" / "good", count=6)
    fill(root / "test" / "good", count=2, first=10)
    fill(root / "test" / "scratch", count=3, first=20)
    fill(root / "test" / "bent", count=1, first=30)
    for kind, numbers in (("scratch", (20, 21, 22)), ("bent", (30,))):
        for number in numbers:
            write_image(root / "ground_truth" / kind / f"{number:03d}_mask.png", np.full((4, 4), 255, np.uint8))
    return root


def test_choice_is_seeded_and_recorded(tmp_path: Path) -> None:
    fill(tmp_path, count=20)
    paths, record = choose_pictures(tmp_path, count=8, seed=3)
    assert (paths, record) == choose_pictures(tmp_path, count=8, seed=3)
    assert paths == sorted(set(paths))
    assert (record.images, record.seed) == (8, 3)
    assert record.sha256 == hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest()
    others, other = choose_pictures(tmp_path, count=8, seed=4)
    assert others != paths
    assert other.sha256 != record.sha256


def test_record_changes_with_a_pixel(tmp_path: Path) -> None:
    fill(tmp_path, count=2)
    _, before = choose_pictures(tmp_path)
    write_image(tmp_path / "001.png", np.full((4, 4, 3), 99, np.uint8))
    assert choose_pictures(tmp_path)[1].sha256 != before.sha256


def test_fewer_pictures_than_asked_for_are_all_taken(tmp_path: Path) -> None:
    fill(tmp_path / "monday", count=2)
    fill(tmp_path / "tuesday", count=3)
    paths, record = choose_pictures(tmp_path, count=64)
    assert len(paths) == record.images == 5


def test_good_training_pictures_of_a_part_are_taken(part: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths, _ = choose_pictures(part)
    assert {path.parent for path in paths} == {part / "train" / "good"}
    assert caplog.text == ""


@pytest.mark.parametrize("other", ["train", "ground_truth"])
def test_labelled_defects_are_left_out_with_a_warning(
    part: Path, other: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Either of MVTec AD's other folders tells what `test` is."""
    (part / ("ground_truth" if other == "train" else "train")).rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        paths, record = choose_pictures(part / "test")
    assert {path.parent.name for path in paths} == {"good"}
    assert record.images == 2
    assert "4 of 6 pictures" in caplog.text


def test_masks_are_no_pictures(part: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (part / "train").rename(tmp_path / "elsewhere")
    paths, _ = choose_pictures(part)
    assert {path.parent for path in paths} == {part / "test" / "good"}
    assert "4 of 6 pictures" in caplog.text


def test_folder_called_test_is_not_a_label_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "test" / "camera1", count=3)
    assert choose_pictures(tmp_path / "test")[1].images == 3
    assert caplog.text == ""


def test_folder_of_defects_alone_is_refused(part: Path) -> None:
    with pytest.raises(DataError, match="3 labelled defective and 0 masks"):
        choose_pictures(part / "test" / "scratch")


def test_folder_of_masks_alone_is_refused(part: Path) -> None:
    with pytest.raises(DataError, match="0 labelled defective and 4 masks"):
        choose_pictures(part / "ground_truth")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None, lambda path: path.write_text("a")])
def test_folder_without_pictures_is_refused(tmp_path: Path, make) -> None:
    make(tmp_path / "good")
    with pytest.raises(DataError, match="good"):
        choose_pictures(tmp_path / "good")
