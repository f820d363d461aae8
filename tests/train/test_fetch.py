"""`stlm fetch`, with archives that the tests make and a server on this machine."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stlm_edge.datasets import categories, load_category, texture_paths
from stlm_edge.imaging import write_image
from train import fetch as fetching
from train.__main__ import main


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    write_image(path, np.full((8, 8, 3), 90, np.uint8))
    return path.read_bytes()


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def offer(file_server, monkeypatch):
    """Puts an archive on the server in the place of a data set's own."""

    def put(name: str, content: bytes, *, known: bool = True) -> None:
        file_server.files[f"/{name}.tar.gz"] = content
        offered = replace(
            fetching.DATA_SETS[name],
            url=f"{file_server.address}/{name}.tar.gz",
            sha256=sha(content) if known else None,
        )
        monkeypatch.setitem(fetching.DATA_SETS, name, offered)

    return put


@pytest.fixture
def dtd(picture) -> bytes:
    return tar({"dtd/images/banded/banded_0001.jpg": picture, "dtd/labels/labels.txt": b"x"})


@pytest.fixture
def visa(picture) -> bytes:
    rows = "object,split,label,image,mask\ncandle,train,normal,candle/Data/Images/Normal/0000.JPG,\n"
    return tar({"candle/Data/Images/Normal/0000.JPG": picture, "split_csv/1cls.csv": rows.encode()}, "w:")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def one_error(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_textures_are_fetched_unpacked_and_ready_for_training(offer, dtd, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    offer("dtd", dtd)
    assert main(["fetch", "dtd"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == "data/dtd/images"
    assert "research purposes" in captured.err
    assert [path.name for path in texture_paths(Path("data/dtd/images"))] == ["banded_0001.jpg"]
    assert names(Path("data")) == ["dtd"]  # the archive is not kept


def test_visa_is_fetched_and_loads(offer, visa, tmp_path, capsys):
    offer("visa", visa)
    assert main(["fetch", "visa", "-o", str(tmp_path / "VisA")]) == 0
    assert "CC BY 4.0" in capsys.readouterr().err
    assert categories(tmp_path / "VisA") == ["candle"]
    assert len(load_category(tmp_path / "VisA", "candle").train) == 1


def test_fetch_goes_on_after_the_connection_was_cut(offer, file_server, dtd, tmp_path, capsys):
    offer("dtd", dtd)
    file_server.stop_after = 100
    arguments = ["fetch", "dtd", "-o", str(tmp_path / "dtd")]
    assert main(arguments) == 1
    assert "stopped after 100" in one_error(capsys)
    assert names(tmp_path) == ["dtd.tar.gz.part"]
    file_server.stop_after = None
    assert main(arguments) == 0
    assert file_server.asked == [None, "bytes=100-"]
    assert names(tmp_path) == ["dtd"]


def test_archive_that_was_there_before_is_used_and_kept(offer, file_server, dtd, tmp_path):
    offer("dtd", dtd)
    (tmp_path / "dtd.tar.gz").write_bytes(dtd)
    assert main(["fetch", "dtd", "-o", str(tmp_path / "dtd")]) == 0
    assert file_server.asked == []
    assert names(tmp_path) == ["dtd", "dtd.tar.gz"]


def test_existing_folder_is_not_overwritten_and_nothing_is_fetched(offer, file_server, dtd, tmp_path, capsys):
    offer("dtd", dtd)
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "own.txt").write_text("precious")
    assert main(["fetch", "dtd", "-o", str(tmp_path / "dtd")]) == 1
    assert "exists and is not overwritten" in one_error(capsys)
    assert file_server.asked == []
    assert names(tmp_path / "dtd") == ["own.txt"]


def test_another_file_than_the_published_one_is_not_unpacked(offer, file_server, dtd, visa, tmp_path, capsys):
    offer("dtd", dtd)
    file_server.files["/dtd.tar.gz"] = visa
    assert main(["fetch", "dtd", "-o", str(tmp_path / "dtd")]) == 1
    assert "SHA-256" in one_error(capsys)
    assert names(tmp_path) == []


def test_unknown_hash_is_said_aloud_and_can_be_given(offer, dtd, tmp_path, capsys):
    offer("dtd", dtd, known=False)
    assert main(["fetch", "dtd", "-o", str(tmp_path / "a")]) == 0
    error = capsys.readouterr().err
    assert "NOT CHECKED" in error
    assert sha(dtd) in error
    assert main(["fetch", "dtd", "-o", str(tmp_path / "b"), "--sha256", sha(dtd).upper()]) == 0
    assert "NOT CHECKED" not in capsys.readouterr().err
    assert main(["fetch", "dtd", "-o", str(tmp_path / "c"), "--sha256", "0" * 64]) == 1
    assert "expected " + "0" * 64 in one_error(capsys)


@pytest.mark.parametrize("name", ["mvtec", "dagm"])
def test_what_must_be_fetched_by_hand_names_page_licence_and_folder(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", name]) == 1
    line = one_error(capsys)
    for words in (fetching.DATA_SETS[name].page, fetching.DATA_SETS[name].licence, f"data/{name}", "--archive"):
        assert words in line
    assert names(tmp_path) == []


def test_archive_fetched_by_hand_is_checked_against_the_recorded_hash(picture, tmp_path, monkeypatch, capsys):
    content = tar({"mvtec_anomaly_detection/bottle/train/good/0.png": picture}, "w:xz")
    archive = tmp_path / "mvtec.tar.xz"
    archive.write_bytes(content)
    arguments = ["fetch", "mvtec", "-o", str(tmp_path / "mvtec"), "--archive", str(archive)]
    assert main(arguments) == 1
    assert f"--sha256 {sha(content)}" in one_error(capsys)
    assert not (tmp_path / "mvtec").exists()
    monkeypatch.setitem(fetching.DATA_SETS, "mvtec", replace(fetching.DATA_SETS["mvtec"], sha256=sha(content)))
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "CC BY-NC-SA 4.0" in captured.err
    assert "NOT CHECKED" not in captured.err
    assert categories(tmp_path / "mvtec") == ["bottle"]
    assert archive.exists()  # it is the user's own


def test_archives_of_several_classes_become_one_data_set(picture, tmp_path, capsys):
    archives = [
        zipped(
            tmp_path / f"Class{number}.zip",
            {f"Class{number}/Train/0001.PNG": picture, f"Class{number}/Train/Label/Labels.txt": b"1"},
        )
        for number in (1, 10, 2)
    ]
    given = [text for archive in archives for text in ("--archive", str(archive))]
    assert main(["fetch", "dagm", "-o", str(tmp_path / "dagm"), *given]) == 0
    error = capsys.readouterr().err
    assert error.count("NOT CHECKED") == 3
    assert all(sha(archive.read_bytes()) in error for archive in archives)
    assert categories(tmp_path / "dagm") == ["Class1", "Class2", "Class10"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"readme.txt": b"x"}, "has no category"),
        ({"../../evil/train/good/0.png": b"x"}, "outside"),
    ],
)
def test_archive_of_something_else_leaves_nothing(files, words, tmp_path, capsys):
    archive = zipped(tmp_path / "a.zip", files)
    assert main(["fetch", "dagm", "-o", str(tmp_path / "out" / "dagm"), "--archive", str(archive)]) == 1
    assert words in one_error(capsys)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imagenet"], "expected one of dtd, visa, mvtec, dagm"),
        (["dtd", "--sha256", "12"], "64 hexadecimal digits"),
        (["dagm", "--archive", "a.zip", "--archive", "b.zip", "--sha256", "0" * 64], "2 archives, expected one"),
        (["dagm", "--archive", "nowhere.zip"], "nowhere.zip cannot be read"),
        (["dagm", "--archive", "."], "cannot be read"),
        (["dagm", "--archive", "/dev/zero"], "it is a device, expected a file"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_1(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", *arguments]) == 1
    assert words in one_error(capsys)


def test_list_names_licence_and_address_of_each(capsys):
    assert main(["fetch"]) == 0
    listed = capsys.readouterr().out
    for name, data_set in fetching.DATA_SETS.items():
        assert re.search(rf"^{name} ", listed, re.MULTILINE)
        assert data_set.licence in listed
        assert data_set.page in listed
        if data_set.url:
            assert data_set.url in listed
    assert listed.count("NOT KNOWN") == 1
