from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.sinks.outbox import Outbox, open_outbox
from stlm_edge.errors import OutputError
from stlm_edge.files import state_folder


def numbers(outbox: Outbox) -> list[int]:
    found, last = [], 0
    while (message := outbox.after(last)) is not None:
        last = message.number
        found.append(int(message.payload))
    return found


def test_messages_come_back_in_order_until_they_are_done(tmp_path: Path) -> None:
    with Outbox(tmp_path / "a.queue") as outbox:
        for number in range(10):
            assert outbox.put("part", b"%d" % number)
        first = outbox.after(0)
        assert first is not None and (first.kind, first.payload) == ("part", b"0")
        outbox.done(first.number)
        outbox.done(first.number)
        outbox.done(4)
        assert (numbers(outbox), len(outbox)) == ([1, 2, 4, 5, 6, 7, 8, 9], 8)
    with Outbox(tmp_path / "a.queue") as outbox:
        assert outbox.put("part", b"10")
        assert numbers(outbox) == [1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_what_is_beyond_the_limit_is_counted_and_there_is_room_again_afterwards(tmp_path: Path) -> None:
    with Outbox(tmp_path / "a.queue", limit=10_000) as outbox:
        taken = [outbox.put("part", b"%1000d" % number) for number in range(15)]
        assert taken == [True] * 9 + [False] * 6
        assert outbox.lost == 6
        assert not outbox.put("snapshot", b"1", share=0.5)
        outbox.done(1)
        assert outbox.put("part", b"%1000d" % 15)
        assert numbers(outbox) == [*range(1, 9), 15]


@pytest.mark.heavy
def test_a_killed_program_loses_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from runtime.sinks.outbox import Outbox\n"
        "outbox = Outbox(Path(sys.argv[1]))\n"
        "for number in range(500): outbox.put('part', b'%d' % number)\n"
        "for number in range(1, 101): outbox.done(number)\n"
        "outbox.put('part', b'500')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    file = tmp_path / "a.queue"
    assert subprocess.run([sys.executable, "-c", program, str(file)], check=False).returncode == -9
    with Outbox(file) as outbox:
        assert numbers(outbox) == list(range(100, 501))


def test_what_waits_is_synced_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut keeps what is in the database's own file: the log beside it is written back there by a sync."""
    file = tmp_path / "a.queue"
    now_s = [100.0]
    monkeypatch.setattr("runtime.sinks.outbox.time.monotonic", lambda: now_s[0])
    with Outbox(file) as outbox:
        outbox.put("part", b"of the first second")
        outbox.keep_saved()
        assert b"of the first second" not in file.read_bytes()
        now_s[0] += 1
        outbox.keep_saved()
        assert b"of the first second" in file.read_bytes()


def test_file_in_use_is_refused(tmp_path: Path) -> None:
    with Outbox(tmp_path / "a.queue"), pytest.raises(OutputError, match=r"in use by another .* queue=FOLDER"):
        Outbox(tmp_path / "a.queue")


@pytest.mark.parametrize("damage", ["no database", "zeros", "another table"])
def test_damaged_file_is_kept_aside(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.queue"
    if damage == "another table":
        import sqlite3

        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE message (a)")
        database.close()
    else:
        with Outbox(file) as outbox:
            for number in range(200):
                outbox.put("part", b"%1000d" % number)
        data = bytearray(file.read_bytes())
        data[slice(0, 100) if damage == "no database" else slice(4096, 90_000)] = bytes(
            100 if damage == "no database" else 90_000 - 4096
        )
        file.write_bytes(data)
    with Outbox(file) as outbox:
        assert outbox.put("part", b"1")
        assert numbers(outbox) == [1]
    assert "is damaged" in caplog.text
    assert len(list(tmp_path.glob("a.queue.damaged-*"))) == 1


def test_full_disk_keeps_messages_in_memory_and_saves_them_later(
    tmp_path: Path, limit_files: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(tmp_path / "a.queue") as outbox:
        assert outbox.put("part", b"0")
        limit_files(100_000)
        for number in range(1, 6):
            assert outbox.put("part", b"%90000d" % number)
        assert numbers(outbox) == [0, 1, 2, 3, 4, 5]
        assert caplog.text.count("cannot write") == 1
        outbox.done(1)
        outbox.done(3)
        assert numbers(outbox) == [1, 3, 4, 5]
        limit_files(10**9)
        outbox.save()
    with Outbox(tmp_path / "a.queue") as outbox:
        assert numbers(outbox) == [1, 3, 4, 5]


def test_more_than_memory_holds_is_lost_while_the_disk_takes_nothing(
    tmp_path: Path, limit_files: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.sinks.outbox._MOST_UNSAVED", 3)
    with Outbox(tmp_path / "a.queue") as outbox:
        limit_files(50_000)
        assert [outbox.put("part", b"%90000d" % number) for number in range(5)] == [True] * 3 + [False] * 2
        assert (numbers(outbox), outbox.lost) == ([0, 1, 2], 2)
        limit_files(10**9)


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        open_outbox("mqtt", "mqtt://broker/line", folder=tmp_path / "file" / "queue")


def test_places_have_queues_of_their_own(tmp_path: Path) -> None:
    with (
        open_outbox("mqtt", "mqtt://broker/line1", folder=tmp_path) as one,
        open_outbox("mqtt", "mqtt://broker/line2", folder=tmp_path) as two,
    ):
        one.put("part", b"1")
        assert len(two) == 0


def test_queues_lie_where_services_keep_their_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/line:/var/lib/more")
    assert state_folder() == Path("/var/lib/line")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/a/state")
    assert state_folder() == Path("/home/a/state/stlm-edge")
