"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from stlm_edge.errors import OutputError
from stlm_edge.files import (
    make_folder,
    remove_left_over,
    replacing,
    require_place,
    sha256,
    temporary_name,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def full_disk(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_text_is_written_into_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"


def test_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old and long")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_error_inside_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_bytes(b"x")


def test_full_disk_is_an_output_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OutputError, match=r"a\.txt \(No space left on device\); free space"):
            write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_disk_that_fills_up_when_flushed_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OutputError, match="No space left"):
            write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == []


def test_file_in_the_way_of_a_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(OutputError, match="cannot write"):
        make_folder(tmp_path / "file")


def test_written_file_has_the_usual_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_hash_is_that_of_the_content(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_place_that_cannot_be_written_to_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "engine.plan", tmp_path / "file" / "new" / "engine.plan"):
        with pytest.raises(OutputError, match=r"cannot write .* \(Not a directory\)"):
            require_place(path)
    require_place(tmp_path / "new" / "folder" / "engine.plan")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_is_another_users_is_known_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        require_place(tmp_path / "engine.plan")


def test_what_a_killed_run_left_is_written_over_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    temporary_name(path).write_bytes(b"half of what was to be")
    write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["state.pt"]


def test_what_is_of_use_after_a_kill_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "line.avi"
    with replacing(path, outlives_kill=True) as killed:
        killed.write_text("half a video")
        (tmp_path / "kept").hardlink_to(killed)  # as if the block never ended
    assert killed.name.startswith(".line.avi.") and killed.suffix == ".avi"
    with replacing(path, outlives_kill=True) as second:
        assert second != killed
    assert (tmp_path / "kept").read_text() == "half a video"


def test_two_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        assert first.suffix == second.suffix == ".txt"
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # which ended last
    assert names(tmp_path) == ["a.txt"]


def test_link_in_the_place_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    temporary_name(tmp_path / "a.txt").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "precious").read_text() == "kept"
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "ä" * 127, "a." + "b" * 250])
def test_longest_names_are_written(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        with replacing(tmp_path / name), replacing(tmp_path / name) as second:
            second.write_text("x")
    assert names(tmp_path) == [name]


def test_left_over_of_earlier_versions_is_removed_unless_somebody_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    for name in (".state.pt.abcd1234.pt", ".state.pt.abcd1235.pt", ".state.pt.ABCD1234.pt", ".other.pt.abcd1234.pt"):
        (tmp_path / name).touch()
    with (tmp_path / ".state.pt.abcd1235.pt").open() as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        remove_left_over(path)
    assert sorted(names(tmp_path)) == [".other.pt.abcd1234.pt", ".state.pt.ABCD1234.pt", ".state.pt.abcd1235.pt"]
