"""Which pictures are inspected, in which order, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.batch.listing import list_pictures
from stlm_edge.errors import SourceError


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for name in ("a/2.png", "a/10.JPG", "a/notes.txt", "a/deep/1.bmp", "b/1.png"):
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "parts"


def names(*inputs: Path, results: Path = Path("nowhere")) -> list[str]:
    return [picture.name for picture in list_pictures(inputs, results=results).pictures]


def test_folder_is_taken_with_all_below_it(parts: Path) -> None:
    assert names(parts) == ["a/10.JPG", "a/2.png", "a/deep/1.bmp", "b/1.png"]


def test_names_begin_below_what_the_inputs_have_in_common(parts: Path) -> None:
    assert names(parts / "b", parts / "a") == ["b/1.png", "a/10.JPG", "a/2.png", "a/deep/1.bmp"]
    assert names(parts / "a/deep/1.bmp", parts / "a/2.png") == ["deep/1.bmp", "2.png"]
    assert names(parts / "b/1.png") == ["1.png"]
    assert list_pictures([parts / "a" / ".." / "b"], results=parts).root == parts / "b"


def test_picture_named_twice_is_inspected_once(parts: Path) -> None:
    assert names(parts / "b", parts / "b/1.png") == ["1.png"]


def test_file_named_by_hand_is_taken_whatever_its_suffix(parts: Path) -> None:
    assert names(parts / "a/notes.txt") == ["notes.txt"]


def test_overlays_of_an_earlier_run_are_left_out(parts: Path) -> None:
    (parts / "overlays").mkdir()
    (parts / "overlays/1.png.jpg").touch()
    assert len(names(parts)) == 5
    assert names(parts, results=parts) == ["a/10.JPG", "a/2.png", "a/deep/1.bmp", "b/1.png"]


def test_labels_are_those_of_the_folders_beside_good(mvtec_test_folder: Path) -> None:
    by_folder = list_pictures([mvtec_test_folder], results=Path("nowhere")).pictures
    by_file = list_pictures(sorted(mvtec_test_folder.rglob("*.png")), results=Path("nowhere")).pictures
    assert by_file == by_folder
    assert [picture.label for picture in by_folder] == ["good", "good", "scratch", "scratch", "scratch"]


def test_without_a_folder_good_there_are_no_labels(parts: Path) -> None:
    assert {picture.label for picture in list_pictures([parts], results=Path("nowhere")).pictures} == {None}


def test_masks_are_not_taken_for_parts(parts: Path) -> None:
    (parts / "ground_truth").mkdir()
    (parts / "ground_truth/1_mask.png").touch()
    with pytest.raises(SourceError, match=r"holds masks .*give its folders 'test' instead"):
        names(parts)


def test_what_does_not_exist_or_holds_nothing_is_said(parts: Path) -> None:
    with pytest.raises(SourceError, match="nowhere does not exist"):
        names(parts, Path("nowhere"))
    (parts / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty holds no picture, expected one of \.bmp"):
        names(parts / "empty")
