"""Archives are unpacked whole or not at all, and never outside of their folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from stlm_edge import archives
from stlm_edge.archives import descend, unpack
from stlm_edge.errors import DataError, OutputError
from stlm_edge.files import folder_beside

FILES = {"set/a.txt": b"a" * 5000, "set/below/b.txt": b"b"}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w", *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as file:
        for member in members:
            file.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def whole(folder: Path) -> Path:
    return folder


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "out" / "target"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_archives_of_every_kind_are_unpacked(tmp_path, target, mode):
    path = tmp_path / "archive"
    archive = write_zip(path, FILES) if mode == "zip" else write_tar(path, FILES, mode)
    unpack([archive], target, find_content=whole)
    assert contents(target) == FILES
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert target.stat().st_mode == tmp_path.joinpath("out").stat().st_mode


def test_several_archives_become_one_folder(tmp_path, target):
    archives = [write_zip(tmp_path / "1.zip", {"1/a": b"1"}), write_tar(tmp_path / "2.tar", {"2/a": b"2"})]
    unpack(archives, target, find_content=whole)
    assert contents(target) == {"1/a": b"1", "2/a": b"2"}


def test_single_folders_are_descended_but_no_further_than_told(tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    assert descend(tmp_path, until=lambda folder: folder.name == "b") == tmp_path / "a" / "b"
    (tmp_path / "a" / "readme.txt").write_text("x")
    assert descend(tmp_path, until=lambda _: False) == tmp_path / "a"


def refuse(archive: Path, target: Path, words: str) -> None:
    with pytest.raises(DataError, match=words):
        unpack([archive], target, find_content=whole)
    assert not target.exists()
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/../../../evil", "/evil"])
def test_members_outside_the_folder_are_refused(tmp_path, target, name):
    refuse(write_tar(tmp_path / "a.tar", FILES | {name: b"x"}), target, "outside")
    refuse(write_zip(tmp_path / "a.zip", FILES | {name: b"x"}), target, "outside")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", ["/tmp/evil", "C:/evil", "..\\evil"])
def test_odd_names_in_a_zip_are_refused(tmp_path, target, name):
    refuse(write_zip(tmp_path / "a.zip", {name: b"x"}), target, "outside")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_out_are_refused(tmp_path, target, kind):
    refuse(write_tar(tmp_path / "a.tar", FILES, "w", link("out", "../../secret", kind)), target, "outside")


def test_links_in_a_zip_are_refused(tmp_path, target):
    member = zipfile.ZipInfo("out")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(member, "/etc/passwd")
    refuse(tmp_path / "a.zip", target, "link")


def test_links_within_are_left_out_and_nothing_is_written_through_them(tmp_path, target, caplog):
    archive = write_tar(tmp_path / "a.tar", FILES | {"door/x": b"x"}, "w", link("door", "set"))
    unpack([archive], target, find_content=whole)
    assert contents(target) == FILES | {"door/x": b"x"}
    assert "left out the link door" in caplog.text


def test_device_is_refused(tmp_path, target):
    member = tarfile.TarInfo("null")
    member.type = tarfile.CHRTYPE
    refuse(write_tar(tmp_path / "a.tar", FILES, "w", member), target, "outside")


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2", "zip"])
def test_damaged_archive_leaves_nothing(tmp_path, target, mode):
    path = tmp_path / "archive"
    noise = {"noise": bytes((7 * index * index) % 251 for index in range(200_000))}
    (write_zip(path, noise) if mode == "zip" else write_tar(path, noise, mode)).touch()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(data[: None if mode == "zip" else -40])
    refuse(path, target, "damaged")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("blocks", [1, 3, 11, 12])
def test_tar_that_breaks_off_at_any_block_leaves_nothing(tmp_path, target, mode, blocks):
    """Its blocks: a header and ten of content, a header and one, the end; tarfile takes a cut between two for it."""
    whole_tar = write_tar(tmp_path / "whole.tar", FILES).read_bytes()
    path = tmp_path / "archive"
    opened = {"w": open, "w:gz": gzip.open, "w:bz2": bz2.open, "w:xz": lzma.open}[mode]
    with opened(path, "wb") as file:
        file.write(whole_tar[: 512 * blocks])
    refuse(path, target, "damaged")


@pytest.mark.parametrize("block", [0, 11])
def test_tar_with_a_damaged_header_leaves_nothing(tmp_path, target, block):
    path = write_tar(tmp_path / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    data[512 * block + 150] ^= 1  # within its check sum
    path.write_bytes(data)
    refuse(path, target, "damaged|neither")


@pytest.mark.parametrize("place", [-8, -6, -4, -1])
def test_flipped_byte_of_the_check_sum_leaves_nothing(tmp_path, target, place):
    path = write_tar(tmp_path / "a.tar.gz", FILES, "w:gz")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    refuse(path, target, "damaged")


def test_zip_with_a_flipped_byte_leaves_nothing(tmp_path, target):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("a.txt", b"a" * 1000)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"a" * 1000, b"a" * 999 + b"b"))
    refuse(path, target, "damaged")
    path.write_bytes(data[: len(data) // 2])
    refuse(path, target, "neither")


def test_name_that_comes_twice_is_refused(tmp_path, target):
    path = tmp_path / "a.tar"
    for names in (["a", "./a"], ["a", "a/b"], ["a/b", "a"]):
        with tarfile.open(path, "w") as file:
            for name in names:
                file.addfile(tarfile.TarInfo(name), io.BytesIO())
        refuse(path, target, "twice")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x/a", b"1")
        file.writestr("x/./a", b"2")
    refuse(tmp_path / "a.zip", target, "twice")


def test_archive_that_unpacks_to_more_than_any_data_set_is_refused(tmp_path, target, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 10_000)
    zeros = {"zeros": bytes(1_000_000)}
    refuse(write_zip(tmp_path / "a.zip", zeros), target, "unpacks to more than")
    refuse(write_tar(tmp_path / "a.tar.gz", zeros, "w:gz"), target, "unpacks to more than")
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    refuse(write_tar(tmp_path / "b.tar", {f"{n}": b"" for n in range(9)}), target, "more than 3 files")


def test_description_of_a_member_that_takes_memory_is_refused(tmp_path, target):
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(1024))
    refuse(tmp_path / "a.tar", target, "neither|damaged")
    second = tarfile.TarInfo("first").tobuf() + member.tobuf() + bytes(1024)
    (tmp_path / "b.tar").write_bytes(second)
    refuse(tmp_path / "b.tar", target, "damaged")


@pytest.mark.parametrize("name", ["d/" * 1500 + "x", "n" * 300], ids=["deep", "long"])
def test_name_that_no_disk_takes_is_refused(tmp_path, target, name):
    refuse(write_tar(tmp_path / "a.tar", FILES | {name: b"x"}), target, "damaged")


def test_pipe_is_refused_at_once(tmp_path, target):
    os.mkfifo(tmp_path / "a.tar")
    refuse(tmp_path / "a.tar", target, "it is a pipe, expected a file")


def test_folder_of_a_killed_run_is_removed_and_that_of_a_living_one_stays(tmp_path, target):
    (target.parent / ".target.abc12345" / "content").mkdir(parents=True)
    with folder_beside(target) as living:
        unpack([write_zip(tmp_path / "a.zip", FILES)], target, find_content=whole)
        assert {path.name for path in target.parent.iterdir()} == {"target", living.name}


def test_file_that_is_no_archive_is_refused(tmp_path, target):
    (tmp_path / "page.html").write_text("<html>Please log in</html>")
    refuse(tmp_path / "page.html", target, "neither a tar nor a zip")
    refuse(tmp_path / "nowhere.zip", target, "cannot be read")


def test_content_that_is_not_wanted_leaves_nothing(tmp_path, target):
    def unwanted(folder: Path) -> Path:
        raise DataError("not what it should be")

    with pytest.raises(DataError, match="not what"):
        unpack([write_zip(tmp_path / "a.zip", FILES)], target, find_content=unwanted)
    assert list(target.parent.iterdir()) == []


def test_existing_target_is_not_overwritten_unless_it_is_empty(tmp_path, target):
    archive = write_zip(tmp_path / "a.zip", FILES)
    target.mkdir(parents=True)
    unpack([archive], target, find_content=whole)
    (target / "own.txt").write_text("precious")
    with pytest.raises(OutputError, match="exists and is not overwritten"):
        unpack([archive], target, find_content=whole)
    assert contents(target) == FILES | {"own.txt": b"precious"}
