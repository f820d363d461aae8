"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from stlm_edge.errors import OutputError
from stlm_edge.files import (
    cache_folder,
    cannot_write,
    folder_for,
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


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "get permission"),
        (errno.EROFS, "mount it"),
        (errno.ENOENT, "its folder is not there"),
        (errno.EIO, "see that there is space and permission"),
        (None, "see that there is space and permission"),
    ],
)
def test_remedy_is_for_what_the_system_says(code: int | None, remedy: str) -> None:
    error = OSError("strange") if code is None else OSError(code, os.strerror(code))
    line = str(cannot_write(Path("a.txt"), error))
    assert line.startswith("cannot write a.txt (")
    assert remedy in line.partition("); ")[2]
    assert ("free space" in line) == (code in (errno.ENOSPC, errno.EDQUOT))


def test_path_that_cannot_be_a_file_is_told_by_its_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, remedy in (
        (tmp_path / "file" / "a.txt", "a part of that path is a file"),
        (tmp_path / "folder", "name a file in it"),
        (tmp_path / ("a" * 300), "choose a shorter name"),
    ):
        with pytest.raises(OutputError, match=remedy):
            write_text(path, "new")
    with pytest.raises(OutputError, match="name a file in it"):
        require_place(tmp_path / "folder")
    assert names(tmp_path) == ["file", "folder"]


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


def refused(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_share_that_lets_nobody_change_modes_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("chmod", "fchmod", "chown", "fchown", "utime"):
        monkeypatch.setattr(os, name, refused)
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    make_folder(tmp_path / "b")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert sorted(names(tmp_path)) == ["a.txt", "b"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_mode_is_that_of_any_new_file_whoever_writes_beside_us(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "alone", "x")
        with replacing(tmp_path / "together") as first, replacing(tmp_path / "together") as second:
            assert first != second
            second.write_text("second")
            assert second.stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~mask}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_that_cannot_flush_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def cannot(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", cannot)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_share_that_renames_over_nothing_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_new(source: str, target: str) -> None:
        if Path(target).exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.link(source, target)
        Path(source).unlink()

    monkeypatch.setattr(os, "replace", only_new)
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def nobody(_: int) -> None:
    raise KeyError("uid not found")


def test_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/somebody/.cache/stlm-edge")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(OutputError, match="Not a directory"):
        write_text(cache_folder() / "a.txt", "x")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/stlm-edge")


def test_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_folders_that_an_error_left_empty_go_again_and_others_stay(tmp_path: Path) -> None:
    with suppress(KeyError), folder_for(tmp_path / "a" / "b"):
        raise KeyError
    assert names(tmp_path) == []
    (tmp_path / "old").mkdir()
    with suppress(KeyError), folder_for(tmp_path / "old"):
        raise KeyError
    with suppress(KeyError), folder_for(tmp_path / "old" / "new" / "empty"):
        write_text(tmp_path / "old" / "new" / "a.txt", "x")
        raise KeyError
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "old",
        "old/new",
        "old/new/a.txt",
    ]


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


def test_folder_that_nobody_may_write_to_is_told_apart_from_one_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for flag, told in ((os.ST_RDONLY, "Read-only file system"), (0, "Permission denied")):
        monkeypatch.setattr(os, "statvfs", lambda _, flag=flag: SimpleNamespace(f_flag=flag))
        with pytest.raises(OutputError, match=told):
            require_place(tmp_path / "summary.json")


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
