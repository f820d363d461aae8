"""Archives are unpacked whole or not at all, and never outside of their folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from stlm_edge.archives import descend, unpack
from stlm_edge.errors import DataError, OutputError

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


@pytest.mark.parametrize("name", ["../evil", "a/../../../evil"])
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
