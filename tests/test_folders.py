"""What of a folder is a picture, whatever else lies there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from stlm_edge.datasets import load_category, texture_paths
from stlm_edge.errors import DataError
from stlm_edge.folders import PICTURE_SUFFIXES, has_picture_name, pictures_below, pictures_in
from stlm_edge.imaging import read_image

LITTER = (
    *("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "ehthumbs.db", ".directory", ".~lock.a.png#"),
    *(f"{folder}/a.png" for folder in ("__MACOSX", "@eaDir", ".thumbnails", ".Trash-0", "$RECYCLE.BIN", ".git")),
    *(f"{folder}/a.png" for folder in ("System Volume Information", "#recycle", "lost+found", ".ipynb_checkpoints")),
)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def made(*names: str) -> Path:
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "in"

    return made


def below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in pictures_below(folder)]


def test_what_systems_leave_behind_is_passed_over_silently(
    make: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("a.png", "b/c.jpg", *LITTER)
    assert below(folder) == ["a.png", "b/c.jpg"]
    assert [path.name for path in pictures_in(folder)] == ["a.png"]
    assert [path.name for path in texture_paths(folder)] == ["a.png", "c.jpg"]
    assert not caplog.records
    assert [sample.path.name for sample in load_category(folder, None).train] == ["a.png"]
    (record,) = caplog.records  # a data set takes no folders below, and says so of pictures alone
    assert "1 picture lies in folders below it, such as b, and is left out" in record.getMessage()


def test_other_suffixes_are_counted_and_said_once(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = make("a.png", "b.gif", "c.GIF", "d/e.txt", "README", "Thumbs.db")
    with caplog.at_level(logging.WARNING):
        assert below(folder) == below(folder) == ["a.png"]
    (record,) = caplog.records
    assert f"{folder}: 4 files are passed over, 2 .gif, 1 .txt, 1 other; pictures are .bmp, " in record.getMessage()


@pytest.mark.parametrize("linked", [False, True])
def test_pictures_in_folders_of_a_kind_are_counted_and_left_out(
    make: Callable[..., Path], caplog: pytest.LogCaptureFixture, linked: bool
) -> None:
    folder = make("train/good/a.png", "test/chip/a.png", "x/b.png", "x/y/c.PNG", "x/.hidden/d.png", "x/e.txt")
    if linked:
        (folder / "test/chip/x").symlink_to(folder / "x")
    else:
        (folder / "x").rename(folder / "test/chip/x")
    with caplog.at_level(logging.WARNING):
        assert [sample.path.name for sample in load_category(folder, None).test] == ["a.png"]
        load_category(folder, None)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{folder / 'test/chip'}: 2 pictures lie in folders below it, such as x, and are left out; move them into "
        f"{folder / 'test/chip'}"
    )


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES))
def test_suffixes_are_taken_in_any_case_and_read(make: Callable[..., Path], suffix: str) -> None:
    """Each suffix with a file as this OpenCV writes it."""
    folder = make(f"a{suffix}", f"b{suffix.upper()}", f"c{suffix.title()}")
    assert below(folder) == [f"a{suffix}", f"b{suffix.upper()}", f"c{suffix.title()}"]
    written_as = {".jfif": ".jpg", ".j2k": ".jp2", ".jpf": ".jp2", ".jpx": ".jp2", ".dib": ".bmp"}.get(suffix, suffix)
    image = np.full((64, 64, 3), 77, np.uint8)
    grey = image[..., 0] if suffix in (".pgm", ".pbm") else image
    path = folder / f"a{suffix}"
    path.write_bytes(cv2.imencode(written_as, grey)[1].tobytes())
    expected = 255 if suffix == ".pbm" else 77
    np.testing.assert_allclose(read_image(path), expected, atol=2)


def test_name_without_more_than_a_suffix_is_hidden() -> None:
    assert not has_picture_name(".png")
    assert not has_picture_name("png")
    assert has_picture_name("a.b.PNG")
    assert has_picture_name("$a.png")
    assert has_picture_name("~a.png")


def test_links_to_folders_are_followed_once(
    make: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("z/deep/a.png")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "s.png").touch()
    (folder / "again").symlink_to(folder / "z")
    (folder / "b").symlink_to(tmp_path / "store")
    (folder / "c").symlink_to(tmp_path / "store")
    (folder / "z" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    with caplog.at_level(logging.WARNING):
        assert below(folder) == ["b/s.png", "z/deep/a.png"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    for name in ("again", "c", "z/up"):
        assert f"{folder / name} leads to a folder that is listed already and is not followed" in said


def test_link_itself_is_a_folder_to_list(make: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make("a.png"))
    assert below(tmp_path / "link") == ["a.png"]


def test_entries_that_are_no_files_are_named(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = make("a.png", "x.png/inside.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "link.png").symlink_to(folder / "a.png")
    os.mkfifo(folder / "pipe.png")
    with caplog.at_level(logging.WARNING):
        assert below(folder) == ["a.png", "link.png", "x.png/inside.png"]
    assert "pipe.png is a pipe and no picture; it is left out" in caplog.text
    assert "gone.png is a link that leads nowhere; it is left out" in caplog.text
    assert "loop.png cannot be looked at (Too many levels of symbolic links)" in caplog.text


def test_many_bad_entries_are_counted(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = make("a.png")
    for index in range(30):
        (folder / f"{index}.png").symlink_to(folder / "nowhere")
    with caplog.at_level(logging.WARNING):
        assert below(folder) == ["a.png"]
    assert len(caplog.records) == 6
    assert "25 more entries of that kind" in caplog.text


def test_tree_that_is_deeper_than_paths_may_be_costs_what_is_below(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deeper than Python recurses, and than the 4096 bytes of a path."""
    (tmp_path / "a.png").touch()
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("ddd", dir_fd=place)
        place = moved(place, "ddd")
    try:
        with caplog.at_level(logging.WARNING):
            assert [path.name for path in pictures_below(tmp_path)] == ["a.png"]
        assert "(File name too long)" in caplog.text
    finally:  # pytest could not remove it
        for _ in range(1500):
            place = moved(place, "..")
            os.rmdir("ddd", dir_fd=place)
        os.close(place)


def moved(place: int, name: str) -> int:
    """The descriptor of a folder beside that of another, which is closed."""
    found = os.open(name, os.O_RDONLY, dir_fd=place)
    os.close(place)
    return found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_read_costs_itself_alone(
    make: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make("a.png", "closed/b.png")
    (folder / "closed").chmod(0)
    with caplog.at_level(logging.WARNING):
        assert below(folder) == ["a.png"]
    assert "closed cannot be read (Permission denied)" in caplog.text
    (folder / "closed").chmod(0o700)


def test_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    for listed in (pictures_in, pictures_below):
        with pytest.raises(DataError, match=r"nowhere cannot be read \(No such file or directory\)"):
            listed(tmp_path / "nowhere")
