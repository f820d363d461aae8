"""Which pictures show the same part: as a file or names say it, or as they look."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from stlm_edge.datasets import Look, Parts, find_parts, parts_as_said
from stlm_edge.datasets.near_duplicates import MOST_PICTURES, near_duplicates
from stlm_edge.datasets.parts import by_pattern
from stlm_edge.errors import ConfigError, DataError, SpecError
from stlm_edge.plate.part import render_part


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "train" / "good" / name for name in ("a1.png", "a2.png", "b1.png")]
    (tmp_path / "test" / "good").mkdir(parents=True)
    paths[0].parent.mkdir(parents=True)
    for path in (*paths, tmp_path / "test" / "good" / "a1.png"):
        path.write_bytes(b"")
    return paths


def grouped(text: str | bytes, pictures: list[Path]) -> tuple[int, ...]:
    root = pictures[0].parents[2]
    path = root / "elsewhere" / "parts.csv"
    path.parent.mkdir()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = parts_as_said(pictures, groups=path, group_by="", folders=[root])
    assert found is not None and str(path) in str(found)
    return found.numbers


LINES = "train/good/a1.png,7\ntrain/good/a2.png,7\ntrain/good/b1.png,x\n"


@pytest.mark.parametrize(
    "text",
    [
        "picture,part\n" + LINES,
        "file,tile\n" + LINES,
        ("\ufeffPicture;Part;light\r\n" + LINES.replace(",", ";").replace("\n", ";3\r\n")),
        ("part\tpicture\n7\ta1.png\n7\ta2.png\nx\tb1.png\n").encode("utf-16"),
        "picture,part\n" + LINES.replace("/", "\\") + "\n",
        "picture,part\n" + LINES + "test/good/a1.png,9\n",
        "picture,part\n" + LINES + LINES,
        "picture,part\n" + LINES.replace("2.png,7", "2.png,7.0"),
        "picture;part\n" + LINES.replace("2.png,7", "2.png,7,0").replace("g,", "g;"),
        "picture,part\n" + LINES.replace("train/", "../train/"),
    ],
)
def test_file_says_which_pictures_show_a_part(text, pictures):
    assert grouped(text, pictures) == (0, 0, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the columns picture, part"),
        ("picture,piece\na1.png,1\n", "lacks the columns part"),
        ("picture,file,part\na1.png,a1.png,1\n", "picture as the name of several columns"),
        (
            "picture,part\n" + LINES + "train/good/c1.png,1\nc2.png,1\n",
            "names 2 pictures that are not there, the first",
        ),
        (
            "picture,part\nC:\\set\\good\\a1.png,7\n",
            "the first is C:/set/good/a1.png; give the file of these pictures, write",
        ),
        ("picture,part\n" + LINES + "../none.png,7\n", "that is not there"),
        ("picture,part\ntrain/good/a1.png,7\n", "lacks 2 of 3 pictures"),
        ("picture,part\n" + LINES + "train/good/a1.png,8\n", "line 5: found train/good/a1.png in a second part"),
        ("picture,part\n" + LINES + "a1.png,8\n", "a1.png in two parts by a1.png"),
        ("picture,part\n" + LINES + "a2.png,\n", "line 5: found {'part': '', 'picture': 'a2.png'}"),
        (b"\xff\xfe\x00", "cannot be read"),
        ('picture,part\n"a', "cannot be read"),
    ],
)
def test_file_that_says_it_wrongly_is_refused_in_a_line(text, words, pictures):
    with pytest.raises(DataError) as caught:
        grouped(text, pictures)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_name_that_two_pictures_have_is_refused(pictures):
    pictures.append(pictures[0].parents[2] / "test" / "good" / "a1.png")
    with pytest.raises(DataError, match=r"a1\.png and .*a1\.png by a1\.png, expected one picture"):
        grouped("picture,part\na1.png,1\na2.png,1\nb1.png,1\n", pictures)


def test_file_that_is_not_there_is_told(pictures, tmp_path):
    with pytest.raises(DataError, match="No such file"):
        parts_as_said(pictures, groups=tmp_path / "none.csv", group_by="", folders=[])


@pytest.mark.parametrize(
    ("pattern", "numbers"), [("^(.)", (0, 0, 1)), ("^.", (0, 0, 1)), ("[0-9]", (0, 1, 0)), (".+", (0, 1, 2))]
)
def test_names_say_which_pictures_show_a_part(pattern, numbers, pictures):
    found = parts_as_said(pictures, groups=None, group_by=pattern, folders=[])
    assert found is not None and found.numbers == numbers


def test_suffix_and_folder_of_a_picture_are_no_part_of_its_name(tmp_path):
    pictures = [tmp_path / name for name in ("a/x1.png", "a/x2.jpg", "b/x1.tif")]
    for pattern, numbers in (("[0-9]$", (0, 1, 0)), (".+", (0, 1, 0))):
        assert by_pattern(pattern, pictures).numbers == numbers
    for pattern in ("png", "^a/"):
        with pytest.raises(DataError, match=r"finds no part in the name x1 \(without suffix\)"):
            by_pattern(pattern, pictures)


def test_catastrophic_expression_ends_in_one_line(monkeypatch):
    monkeypatch.setattr("stlm_edge.patterns.LONGEST_S", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(ConfigError, match=r"takes longer than 0\.2 s, since it repeats what it repeats") as caught:
        by_pattern("(([a-z0-9_]+)+)+$", [Path("tile_0001_camera_2_exposure_4_of_the_series!.png")])
    assert len(str(caught.value).splitlines()) == 1
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_names_are_searched_beside_the_first_thread_too():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(by_pattern, "^.", [Path("a1.png"), Path("b1.png")]).result().numbers == (0, 1)


@pytest.mark.parametrize(
    ("pattern", "error", "words"),
    [
        ("(", ConfigError, "expected a regular expression"),
        ("2", DataError, "finds no part in the name a1 "),
        ("^(x)?", DataError, "finds no part in the name a1 "),
    ],
)
def test_expression_that_says_nothing_is_refused(pattern, error, words, pictures):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        parts_as_said(pictures, groups=None, group_by=pattern, folders=[])


def test_pictures_that_all_show_one_part_are_taken_one_by_one(pictures, caplog):
    found = find_parts(pictures[:2], [], groups=None, group_by="a", folders=[])
    assert found.numbers == (0, 1)
    assert [record.getMessage()[:32] for record in caplog.records] == ["ONE PART: all 2 good pictures sh"]


def test_parts_come_back_from_a_record():
    parts = Parts.of("abca", how="by the names")
    assert parts.numbers == (0, 1, 2, 0)
    assert Parts.from_record(parts.to_record()) == parts
    for numbers in ("", "1 x", "1  2", "-1", "1" * 10):
        with pytest.raises(SpecError, match="expected whole numbers"):
            Parts.from_record({"numbers": numbers, "how": ""})


def surface(rng: np.random.Generator) -> np.ndarray:
    """A part of its own: clouds."""
    clouds = cv2.GaussianBlur(rng.normal(size=(96, 96)).astype(np.float32), (0, 0), 3)
    return np.repeat(((clouds - clouds.min()) / np.ptp(clouds) * 160 + 40).astype(np.uint8)[:, :, None], 3, axis=2)


def another_look(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The same part, moved a little, in another light and with the camera's noise."""
    moved = np.roll(image, tuple(rng.integers(-2, 3, size=2)), axis=(0, 1)).astype(np.float32)
    lit = moved * rng.uniform(0.6, 1.2) + rng.normal(scale=3, size=image.shape)
    return np.clip(lit, 0, 255).astype(np.uint8)


def found(images: list[np.ndarray]) -> list[int]:
    return near_duplicates([Look.of(image) for image in images])


def test_looks_of_a_part_are_found_in_another_light_and_place():
    rng = np.random.default_rng(0)
    images = [another_look(rng, part) for part in [surface(rng) for _ in range(15)] for _ in range(4)]
    assert Parts.of(found(images), how="").numbers == tuple(np.repeat(range(15), 4))


def test_parts_in_a_fixture_are_not_taken_for_one(caplog):
    images = [render_part(np.random.default_rng(index), size=(96, 96), defect=None).image for index in range(40)]
    assert found(images) == list(range(40))
    assert found([*images, images[7].copy()]) == [*range(40), 7]


def test_pictures_without_structure_are_one_part_and_told_where_there_is_no_other(caplog):
    rng = np.random.default_rng(1)
    grey = [np.full((64, 64, 3), value, np.uint8) for value in (90, 91, 200, 90)]
    parts = [surface(rng) for _ in range(10)]
    assert found([*parts, *grey]) == [*range(10), 10, 10, 10, 10]
    assert found([*grey, parts[0], parts[0].copy()]) == [0, 0, 0, 0, 4, 4]  # too few to compare others
    assert found(parts[:4]) == [0, 1, 2, 3]
    looks = [Look.of(image) for image in grey * 3]
    assert find_parts([Path("a")] * 12, looks, groups=None, group_by="", folders=[]).count == 12
    assert "ONE PART: all 12 good pictures show it" in caplog.text


def test_pictures_of_noise_are_not_taken_for_one():
    rng = np.random.default_rng(1)
    assert found([rng.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(40)]) == list(range(40))


def test_too_many_pictures_are_not_compared_and_it_is_said():
    look = Look.of(surface(np.random.default_rng(2)))
    many = find_parts(
        [Path("a")] * (MOST_PICTURES + 1), [look] * (MOST_PICTURES + 1), groups=None, group_by="", folders=[]
    )
    assert many.count == MOST_PICTURES + 1
    assert f"more than {MOST_PICTURES} are not compared" in str(many)
