from __future__ import annotations

import csv
import dataclasses
import errno
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from runtime.event import Event
from runtime.regions import Region
from stlm_edge.errors import OutputError

from .conftest import ENGINE, inspection, never_drawn, part, sink_for

LATENCY_MS = {
    "capture": 1,
    "wait": 2,
    "prepare": 3,
    "upload": 4,
    "infer": 5,
    "download": 6,
    "decide": 7,
    "total": 28,
}


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def indices(path: Path) -> list[int]:
    return [event["frame"] for event in events(path)]


def test_event_has_all_that_is_needed_to_trace_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "new" / "events.jsonl"
    region = Region(left=10, top=20, width=30, height=40, area=900, peak=0.812345)
    with sink_for(path) as sink:
        sink.write(inspection(7, label="scratch", regions=(region,), alarm=True))
        (event,) = events(path)
    captured = datetime.fromisoformat(event.pop("time"))
    assert captured.tzinfo == timezone.utc
    assert abs((datetime.now(timezone.utc) - captured).total_seconds()) < 5
    assert event == {
        "frame": 7,
        "source": "test://",
        "score": 0.75,
        "threshold": 0.5,
        "anomalous": True,
        "alarm": True,
        "part": 4,
        "regions": [{"box": [10, 20, 30, 40], "area": 900, "peak": 0.8123}],
        "frame_size": [96, 192],
        "label": "scratch",
        "latency_ms": LATENCY_MS,
        "engine_sha256": ENGINE,
    }


def test_result_of_a_part_is_an_event_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    region = Region(left=10, top=20, width=30, height=40, area=900, peak=0.8)
    with sink_for(path) as sink:
        sink.write_part(part(3, worst=inspection(7, regions=(region,)), part_id="4711\n\x1b[2J"))
        sink.write_part(part(4, "missed"))
    rejected, missed = events(path)
    assert datetime.fromisoformat(rejected.pop("time")).tzinfo == timezone.utc
    assert rejected == {
        "event": "part-result",
        "text": r"part 3 (4711\x0a\x1b[2J) is reject, score 0.750, by 2 frames in 12.5 ms",
        "part": 3,
        "part_id": r"4711\x0a\x1b[2J",
        "part_result": "reject",
        "frames": 2,
        "part_ms": pytest.approx(12.5),
        "worst": {
            "frame": 7,
            "source": "test://",
            "score": 0.75,
            "threshold": 0.5,
            "regions": [{"box": [10, 20, 30, 40], "area": 900, "peak": 0.8}],
            "frame_size": [96, 192],
        },
        "engine_sha256": ENGINE,
    }
    assert [missed[key] for key in ("part", "part_id", "part_result", "worst")] == [4, None, "missed", None]


def test_event_of_an_unlabelled_frame_has_no_label(tmp_path: Path) -> None:
    with sink_for(tmp_path / "events.jsonl") as sink:
        sink.write(inspection())
    assert "label" not in events(tmp_path / "events.jsonl")[0]


def test_verdict_says_which_recipe_it_was(tmp_path: Path) -> None:
    with sink_for(tmp_path / "events.jsonl") as sink:
        sink.write(dataclasses.replace(inspection(), recipe="plate"))
        sink.write(inspection())
    assert [event.get("recipe") for event in events(tmp_path / "events.jsonl")] == ["plate", None]


def test_frame_with_a_fault_is_neither_good_nor_anomalous(tmp_path: Path) -> None:
    with sink_for(tmp_path / "events.jsonl") as sink:
        sink.write(inspection(fault="frozen"))
    (event,) = events(tmp_path / "events.jsonl")
    assert (event["fault"], event["score"], event["anomalous"], event["regions"]) == ("frozen", None, None, [])


def test_notices_stand_between_the_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with sink_for(path) as sink:
        sink.write(inspection(0))
        sink.write_event(Event("camera-lost", "camera 0 is gone", time.monotonic() - 60))
        sink.write(inspection(1))
    event = events(path)[1]
    age_s = (datetime.now(timezone.utc) - datetime.fromisoformat(event.pop("time"))).total_seconds()
    assert 59 < age_s < 65
    assert event == {"event": "camera-lost", "text": "camera 0 is gone"}


@pytest.mark.parametrize("name", ["events.jsonl", "scores.csv"])
def test_logs_draw_nothing(tmp_path: Path, name: str) -> None:
    with sink_for(tmp_path / name) as sink:
        assert not sink.takes_pictures
        sink.write(inspection(picture=never_drawn).without_picture())


def test_restart_appends_to_what_yesterday_wrote(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for index in range(2):
        with sink_for(path) as sink:
            sink.write(inspection(index))
    assert indices(path) == [0, 1]


def test_file_that_does_not_consist_of_lines_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x" * 300_000)
    with pytest.raises(OutputError, match="does not consist of lines"):
        sink_for(path)
    assert path.read_bytes() == b"x" * 300_000


_WRITER = """
import sys
from tests.runtime.sinks.conftest import inspection, sink_for
sink = sink_for(sys.argv[1])
for index in range(10**9):
    sink.write(inspection(index))
    print(index, flush=True)
"""


@pytest.mark.heavy
def test_killed_program_leaves_a_readable_log_to_which_the_next_one_appends(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    command = [sys.executable, "-c", _WRITER, str(path)]
    writer = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 200:
            os.kill(writer.pid, signal.SIGKILL)
            break
    said = [200, *(int(line) for line in writer.stdout.read().split("\n")[:-1])]
    writer.stdout.close()
    assert writer.wait() == -signal.SIGKILL
    whole = path.read_text().rpartition("\n")[0].split("\n")
    assert [json.loads(line)["frame"] for line in whole] == list(range(len(whole)))
    assert len(whole) > said[-1]
    with sink_for(path) as sink:
        sink.write(inspection(4711))
    assert indices(path)[-2:] == [len(whole) - 1, 4711]


@pytest.mark.parametrize("name", ["events.jsonl", "scores.csv"])
def test_log_is_set_aside_by_size_and_the_oldest_goes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with sink_for(f"{path}?rotate=10KB&keep=2") as sink:
        for index in range(300):
            sink.write(inspection(index))
    names = [name, f"{name}.1", f"{name}.2"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == names
    assert all(entry.stat().st_size <= 10_000 for entry in tmp_path.iterdir())
    text = "".join((tmp_path / name).read_text() for name in reversed(names))
    pattern = r'"frame": (\d+)' if name.endswith("jsonl") else r"Z?\+00:00,(\d+)"
    found = [int(index) for index in re.findall(pattern, text)]
    assert found == list(range(found[0], 300))
    assert found[0] > 0


def test_default_rotation_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink_for(tmp_path / "events.jsonl").close()
    assert "is set aside when it has 100MB; 20 old ones are kept" in caplog.text


def test_failed_line_leaves_no_half_of_it_before_the_next_one(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(64)
    (folder / "others").write_bytes(bytes(20_000))
    path = folder / "events.jsonl"
    with sink_for(path) as sink:
        written = 0
        with pytest.raises(OutputError, match=r"cannot write .*events\.jsonl \(No space left"):
            while True:
                sink.write(inspection(written))
                written += 1
        assert indices(path) == list(range(written))
        (folder / "others").unlink()
        sink.write(inspection(4711))
    assert indices(path) == [*range(written), 4711]


def test_log_comes_back_when_its_folder_does(tmp_path: Path) -> None:
    path = tmp_path / "share" / "events.jsonl"
    path.parent.mkdir()
    with sink_for(f"{path}?rotate=10KB") as sink:
        sink.write(inspection(0))
        path.parent.rename(tmp_path / "away")
        path.parent.touch()  # so that it cannot be made again
        with pytest.raises(OutputError, match="cannot write"):
            for _ in range(100):
                sink.write(inspection(1))
        path.parent.unlink()
        (tmp_path / "away").rename(path.parent)
        sink.write(inspection(2))
    assert indices(path) == [0, 2]


@pytest.mark.parametrize("name", ["events.jsonl", "scores.csv"])
@pytest.mark.parametrize("act", ["rename", "rename and create", "delete", "move folder", "delete folder", "other file"])
def test_log_that_was_moved_or_deleted_goes_on_at_its_place(
    tmp_path: Path, name: str, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, away = tmp_path / "logs" / name, tmp_path / "away"
    other_file = tmp_path / "other"
    other_file.write_text("" if name.endswith("csv") else '{"frame": 9}\n')
    with sink_for(path) as sink:
        for index in (0, 1):
            sink.write(inspection(index))
        before = path.read_text()
        if act.startswith("rename"):
            path.rename(away)
            if act.endswith("create"):
                path.touch()
        elif act == "move folder":
            path.parent.rename(away)
        elif act == "other file":
            other_file.replace(path)
        else:
            path.unlink()
            if act == "delete folder":
                path.parent.rmdir()
        for index in (2, 3):
            sink.write(inspection(index))
    kept = {"rename": away, "rename and create": away, "move folder": away / name}.get(act)
    assert kept is None or kept.read_text() == before
    assert frames_of(path) == ([9] if act == "other file" and name.endswith("jsonl") else []) + [2, 3]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{path} was {'moved' if kept else 'deleted, or moved and compressed,'} while it was written; " in warning


def frames_of(path: Path) -> list[int]:
    """The frames that a log or a table has."""
    if path.suffix == ".jsonl":
        return indices(path)
    with path.open(newline="") as file:
        return [int(row["frame"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["events.jsonl", "scores.csv"])
def test_log_that_another_program_empties_or_writes_to_is_gone_on_with(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with sink_for(path) as sink:
        sink.write(inspection(0))
        os.truncate(path, 0)  # as by `copytruncate`
        sink.write(inspection(1))
        assert frames_of(path) == [1]
        half = '{"time": "20' if name.endswith("jsonl") else "20"
        with path.open("a") as other:
            other.write(half)
        sink.write(inspection(2))
    lines = path.read_text().splitlines()
    assert lines[-2] == half
    assert frames_of_line(lines[-1]) == 2


def frames_of_line(line: str) -> int:
    return json.loads(line)["frame"] if line.startswith("{") else int(line.split(",")[1])


def test_log_behind_a_link_is_set_aside_beside_the_file_itself(tmp_path: Path) -> None:
    path, place = tmp_path / "events.jsonl", tmp_path / "disk" / "line.jsonl"
    place.parent.mkdir()
    path.symlink_to(place)
    with sink_for(f"{path}?rotate=10KB&keep=2") as sink:
        for index in range(70):
            sink.write(inspection(index))
    assert path.is_symlink()
    assert sorted(entry.name for entry in place.parent.iterdir()) == ["line.jsonl", "line.jsonl.1", "line.jsonl.2"]
    assert indices(path)[-1] == 69


def test_link_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    path, first, second = (tmp_path / name for name in ("events.jsonl", "first.jsonl", "second.jsonl"))
    path.symlink_to(first)
    with sink_for(path) as sink:
        sink.write(inspection(0))
        path.unlink()
        path.symlink_to(second)
        sink.write(inspection(1))
    assert (indices(first), indices(second)) == ([0], [1])


@pytest.mark.parametrize("way", ["same", "dots", "hard link", "symbolic link"])
@pytest.mark.parametrize("name", ["events.jsonl", "scores.csv"])
def test_file_that_is_being_written_is_refused_under_any_name(tmp_path: Path, name: str, way: str) -> None:
    path, other = tmp_path / name, tmp_path / f"other-{name}"
    with sink_for(path) as sink:
        sink.write(inspection(0))
        if way == "hard link":
            other.hardlink_to(path)
        elif way == "symbolic link":
            other.symlink_to(path)
        else:
            other = path if way == "same" else tmp_path / "." / ".." / tmp_path.name / name
        with pytest.raises(OutputError, match="is being written by another program or output"):
            sink_for(other)
        sink.write(inspection(1))
    assert frames_of(path) == [0, 1]
    sink_for(other).close()  # since nobody has it any more


def test_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with sink_for(tmp_path / "events.jsonl") as sink:
        sink.write(inspection(0))
    assert indices(tmp_path / "events.jsonl") == [0]
    assert "cannot be locked (No locks available)" in caplog.text


def test_path_that_may_not_be_looked_at_any_more_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"

    def denied(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with sink_for(path) as sink:
        sink.write(inspection(0))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", denied)
            sink.write(inspection(1))
    assert indices(path) == [0, 1]


@pytest.mark.heavy
def test_disk_that_is_mounted_over_the_folder_gets_the_lines_that_follow(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "events.jsonl"
    with sink_for(path) as sink:
        sink.write(inspection(0))
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(path.parent)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount a disk")
        try:
            sink.write(inspection(1))
            assert indices(path) == [1]
            sink.close()
        finally:
            subprocess.run(["umount", str(path.parent)], check=True)
    assert indices(path) == [0]


def test_line_that_fails_takes_back_nothing_that_others_wrote(
    tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(64)
    path = folder / "events.jsonl"
    with sink_for(path) as sink:
        sink.write(inspection(0))
        with path.open("a") as other:
            other.write('{"frame": 7}\n')
        (folder / "others").write_bytes(bytes(60_000))
        with pytest.raises(OutputError, match="No space left"):
            for _ in range(1000):
                sink.write(inspection(1))
        assert indices(path)[:2] == [0, 7]


def test_log_that_cannot_be_set_aside_grows_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.jsonl"
    (tmp_path / "events.jsonl.1" / "in the way").mkdir(parents=True)
    with sink_for(f"{path}?rotate=10KB&keep=1") as sink:
        for index in range(60):
            sink.write(inspection(index))
    assert indices(path) == list(range(60))
    assert caplog.text.count("cannot be set aside") == 1


DEEP_OBJECT, DEEP_LIST = '{"a":' * 20_000, "[" * 100_000


@pytest.mark.parametrize(
    ("end", "kept", "told"),
    [
        (DEEP_OBJECT, [DEEP_OBJECT], []),
        (DEEP_LIST, [DEEP_LIST], []),
        ("a note of my own", ["a note of my own"], []),
        ('{"frame": 7}', ['{"frame": 7}'], []),  # which lacks only its line feed
        ('{"time": "2026-11-28T15:18:28.332+00:00", "frame": 7, "sour', [], ["half a line", '"frame": 7, "sour']),
        ('{"fra', [], ["half a line", '{"fra']),
        ('{"ti\0\0\0', [], ["half a line"]),
        ("\0" * 5000, [], []),  # as after a power cut
    ],
    ids=["deep object", "deep list", "foreign text", "whole", "own", "short", "own and zeros", "zeros"],
)
def test_only_an_own_half_line_is_cut_off_and_told_of(
    tmp_path: Path, end: str, kept: list[str], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"frame": 0}\n' + end)
    with sink_for(path) as sink:
        sink.write(inspection(1))
    lines = path.read_text().splitlines()
    assert json.loads(lines[0])["frame"] == 0 and json.loads(lines[-1])["frame"] == 1
    assert lines[1:-1] == kept
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert not told or (len(warnings) == 1 and all(words in warnings[0] for words in told))


def test_events_on_a_full_device(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    sink = sink_for(tmp_path / "events.jsonl")
    with pytest.raises(OutputError, match="No space left"):
        sink.write(inspection())
    sink.close()
    sink.close()


def test_pipe_that_nobody_reads_is_an_error_and_no_silence(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    os.mkfifo(path)
    with pytest.raises(OutputError, match="nobody reads from it; start its reader first"):
        sink_for(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with sink_for(path) as sink:
        sink.write(inspection(0))
        assert json.loads(os.read(reader, 1 << 16))["frame"] == 0
        os.close(reader)
        with pytest.raises(OutputError, match="nobody reads from it"):
            sink.write(inspection(1))
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        sink.write(inspection(2))
        assert json.loads(os.read(reader, 1 << 16))["frame"] == 2
    os.close(reader)
