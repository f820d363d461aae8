from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from runtime.sinks import SinkContext, check_outputs, open_outputs
from stlm_edge.errors import OutputError

from .conftest import ENGINE, inspection, sink_for

CONTEXT = SinkContext(engine_sha256=ENGINE)


@pytest.mark.parametrize("uri", ["amqp://broker", "line.mkv", "events.json", "events.xyz?rotate=1MB"])
def test_unknown_output_says_what_is_known(uri: str) -> None:
    with pytest.raises(OutputError, match="known are display://"):
        sink_for(uri)


@pytest.mark.parametrize("name", ["line.mp4", "line.avi?minutes=5", "events.jsonl", "scores.csv", "overlays"])
def test_place_below_a_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        sink_for(tmp_path / "file" / name)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("events.jsonl?rotat=1MB", r"there is no option 'rotat', did you mean rotate; known options are rotate, keep"),
        ("events.jsonl?rotate=1", r"rotate is '1', expected a size from 10KB on, with its unit"),
        ("scores.csv?keep=0", r"keep is '0', expected a whole number from 1 on"),
        (
            "overlays?only=good",
            r"only is 'good', expected all, anomalies, reject or unclear; known options are what, only, limit",
        ),
        ("overlays?limit=1MB&limit=2MB", r"limit is given twice"),
        ("line.mp4?minutes=0", r"minutes is '0', expected a number above 0"),
        ("line.mp4?segments", r"'segments' does not consist of NAME=VALUE"),
        ("display://?size=5", r"there is no option 'size'; known options are none"),
    ],
)
def test_option_that_does_not_fit_says_which_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=message):
        sink_for(uri)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("amqp://broker", "unknown scheme"),
        ("events.xml", "unknown suffix"),
        ("", "found nothing as an output"),
        ("?only=anomalies", "found nothing as an output"),
        ("events.jsonl?rotat=1MB", "no option 'rotat'"),
        ("scores.csv?keep=0", "keep is '0'"),
        ("overlays?only=good", "only is 'good'"),
        ("kept?what=raw&near=far", "near is 'far'"),
        ("line.mp4?hours=1", "no option 'hours'"),
        ("display://?size=5", "no option 'size'"),
        ("http://127.0.0.1/x?on=good&snapshot=2", "snapshot is '2'"),
    ],
)
def test_what_can_be_seen_of_an_output_is_seen_without_opening_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=message):
        check_outputs([uri])
    check_outputs(["events.jsonl?rotate=1MB", "line.mp4", "overlays", "display://"])
    assert list(tmp_path.iterdir()) == []


def test_trailing_slash_makes_a_folder_of_any_name(tmp_path: Path) -> None:
    with sink_for(f"{tmp_path / 'line.1'}/"):
        pass
    assert (tmp_path / "line.1").is_dir()


def test_outputs_of_which_one_cannot_be_opened_leave_none_open(tmp_path: Path) -> None:
    uris = [str(tmp_path / "events.jsonl"), "amqp://broker"]
    with pytest.raises(OutputError, match="unknown scheme"):
        open_outputs(uris, context=CONTEXT, drops=True, on_publish=lambda _: None)


def test_line_that_cannot_start_leaves_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "file").touch()
    uris = [f"{tmp_path}/new/overlays?limit=1GB", f"{tmp_path}/old", f"{tmp_path}/file/events.jsonl"]
    with pytest.raises(OutputError, match=r"file/events\.jsonl"):
        open_outputs(uris, context=CONTEXT, drops=True, on_publish=lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "old"]


def test_output_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "events.jsonl")
    with pytest.raises(OutputError, match=r"events\.jsonl is given twice"):
        open_outputs([uri, uri], context=CONTEXT, drops=True, on_publish=lambda _: None)
    assert not Path(uri).exists()


@pytest.mark.parametrize("name", ["events.jsonl", "line.avi", "overlays"])
def test_output_that_is_given_twice_in_other_words_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    uris = [str(tmp_path / name), str(tmp_path / "link" / name)]
    with pytest.raises(OutputError, match="is given twice"):
        open_outputs(uris, context=CONTEXT, drops=True, on_publish=lambda _: None)


def test_no_room_for_temporary_files_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match=r"cannot write display: .*No space left"):
        sink_for("display://")


def test_several_outputs_get_the_same_frames(tmp_path: Path) -> None:
    uris = [str(tmp_path / name) for name in ("events.jsonl", "scores.csv", "overlays", "line.avi")]
    taken: list[float] = []
    with open_outputs(uris, context=CONTEXT, drops=False, on_publish=taken.append) as outputs:
        for index in range(10):
            outputs.write(inspection(index))
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 10
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 11
    assert len(list((tmp_path / "overlays").iterdir())) == 10
    assert (tmp_path / "line.avi").exists()
    assert len(taken) == 40
    assert min(taken) > 0
    assert outputs.drops == outputs.failures == dict.fromkeys(uris, 0)
