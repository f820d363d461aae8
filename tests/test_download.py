"""Downloads from a server on this machine: resumed, checked, and never half of one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stlm_edge import download
from stlm_edge.download import Published, fetch
from stlm_edge.errors import DownloadError, OutputError

CONTENT = bytes(range(256)) * 4096


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def published(file_server) -> Published:
    file_server.files["/weights.bin"] = CONTENT
    return Published(
        url=f"{file_server.address}/weights.bin", sha256=hashlib.sha256(CONTENT).hexdigest(), licence="none"
    )


def unchecked(published: Published) -> Published:
    return Published(published.url, None, "none")


def test_download_goes_on_where_it_stopped(file_server, published, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1000])
    path = fetch(published, folder=tmp_path)
    assert path.read_bytes() == CONTENT
    assert file_server.asked == ["bytes=1000-"]
    assert fetch(published, folder=tmp_path) == path
    assert len(file_server.asked) == 1  # what is there is not fetched again
    assert names(tmp_path) == ["weights.bin"]


def test_connection_that_is_cut_keeps_what_has_arrived(file_server, published, tmp_path):
    file_server.stop_after = 300_000
    with pytest.raises(DownloadError, match=r"stopped after 300000 of 1048576 bytes; run again"):
        fetch(published, folder=tmp_path)
    with pytest.raises(DownloadError, match=r"stopped after 600000 of 1048576"):
        fetch(published, folder=tmp_path)
    assert names(tmp_path) == ["weights.bin.part"]
    file_server.stop_after = None
    assert fetch(published, folder=tmp_path).read_bytes() == CONTENT
    assert file_server.asked == [None, "bytes=300000-", "bytes=600000-"]


def test_ctrl_c_keeps_what_has_arrived(published, tmp_path, monkeypatch, caplog):
    import tqdm

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tqdm.tqdm, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(published, folder=tmp_path)
    assert names(tmp_path) == ["weights.bin.part"]
    assert "run again to go on" in caplog.text
    assert fetch(published, folder=tmp_path).read_bytes() == CONTENT


def test_server_without_ranges_sends_all_again(file_server, published, tmp_path):
    file_server.ranges = False
    (tmp_path / "weights.bin.part").write_bytes(b"x" * 1000)
    assert fetch(published, folder=tmp_path).read_bytes() == CONTENT


def test_complete_partial_file_is_only_checked(file_server, published, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(CONTENT)
    assert fetch(published, folder=tmp_path).read_bytes() == CONTENT
    assert file_server.asked == [f"bytes={len(CONTENT)}-"]


def test_partial_file_longer_than_the_published_one_is_removed(published, tmp_path):
    (tmp_path / "weights.bin.part").write_bytes(CONTENT + b"x")
    with pytest.raises(DownloadError, match=r"had 1048577 bytes, .* has 1048576; it was deleted"):
        fetch(unchecked(published), folder=tmp_path)
    assert fetch(published, folder=tmp_path).read_bytes() == CONTENT


def test_download_of_something_else_is_refused_and_removed(file_server, published, tmp_path):
    file_server.files["/weights.bin"] = b"other"
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch(published, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_altered_file_in_place_is_fetched_again_and_said(published, tmp_path, caplog):
    (tmp_path / "weights.bin").write_bytes(b"altered")
    assert fetch(published, folder=tmp_path).read_bytes() == CONTENT
    assert "another SHA-256" in caplog.text


def test_unknown_hash_is_said_aloud_with_the_one_that_was_found(file_server, published, tmp_path, caplog):
    fetch(unchecked(published), folder=tmp_path)
    fetch(unchecked(published), folder=tmp_path)
    said = [record.getMessage() for record in caplog.records if "NOT CHECKED" in record.getMessage()]
    assert len(said) == 2
    assert all(hashlib.sha256(CONTENT).hexdigest() in line for line in said)
    assert len(file_server.asked) == 1


def test_licence_is_shown_before_anything_is_fetched(file_server, published, tmp_path, caplog):
    caplog.set_level("INFO")
    del file_server.files["/weights.bin"]
    with pytest.raises(DownloadError, match="404"):
        fetch(published, folder=tmp_path)
    assert "licence: none" in caplog.text


def test_file_larger_than_any_that_is_published_is_refused(file_server, published, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", 1000)
    with pytest.raises(DownloadError, match="has 1048576 bytes, expected at most 1000"):
        fetch(published, folder=tmp_path)
    file_server.says_length = False
    with pytest.raises(DownloadError, match="sends more and more, expected at most 1000"):
        fetch(published, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_server_that_goes_on_elsewhere_is_noticed(file_server, published, tmp_path):
    file_server.content_range = "bytes 7-9/10"
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match="asked for what comes from byte 1000 on"):
        fetch(published, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_unreachable_server_is_one_clear_error_and_leaves_no_folder(tmp_path):
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(Published("http://127.0.0.1:9/weights.bin", "0" * 64, "none"), folder=tmp_path / "data")
    assert names(tmp_path) == []


def test_place_that_cannot_be_written_to_is_refused(published, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        fetch(published, folder=tmp_path / "file")
