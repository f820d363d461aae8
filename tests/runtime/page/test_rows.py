"""What a page remembers, and what it takes from the end of a file of events."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

from runtime.event import Event
from runtime.page import rows
from runtime.page.rows import KEPT, Row, last_rows, row_of_event, row_of_frame, row_of_part, table
from runtime.sinks.events import line_event, part_event, verdict_event

from ..sinks.conftest import ENGINE, inspection
from ..sinks.fake_line import part


def written(path: Path, *events: object) -> Path:
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return path


def test_file_gives_the_rows_that_were_remembered_when_it_was_written(tmp_path: Path) -> None:
    result, frame = part(3, part_id="=A<b>"), inspection(7, score=0.75)
    drift = Event("drift", "scores\nmoved", time.monotonic())
    file = written(
        tmp_path / "events.jsonl",
        part_event(result, engine_sha256=ENGINE),
        verdict_event(frame, engine_sha256=ENGINE),
        line_event(drift),
    )
    told = [row_of_part(result), row_of_frame(frame), row_of_event(drift)]
    for has_parts, expected in ((True, [told[0], told[2]]), (False, told[1:])):
        found = last_rows(file, has_parts=has_parts)
        # Times are of two clocks that were read one after the other.
        assert [row._replace(time="") for row in found] == [row._replace(time="") for row in expected]


@pytest.mark.parametrize("verdict", ["good", "unclear", "reject", "missed", "fault"])
def test_verdicts_are_kept(tmp_path: Path, verdict: str) -> None:
    event = part_event(part(verdict=verdict, score=None), engine_sha256=ENGINE)  # type: ignore[arg-type]
    (row,) = last_rows(written(tmp_path / "events.jsonl", event), has_parts=True)
    assert (row.verdict, row.score) == (verdict, None)


def test_no_more_is_read_than_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{"time": "2026-01-01T00:00:00+00:00", "frame": number, "score": 0.5} for number in range(100)]
    file = written(tmp_path / "events.jsonl", *events)
    monkeypatch.setattr(rows, "_READ_BYTES", 500)
    found = [row.part for row in last_rows(file, has_parts=False)]
    assert found == list(range(100 - len(found), 100)) and 1 < len(found) < 10
    monkeypatch.setattr(rows, "_READ_BYTES", 10**6)
    monkeypatch.setattr(rows, "KEPT", 30)
    assert [row.part for row in last_rows(file, has_parts=False)] == list(range(70, 100))


def test_what_is_no_event_is_left_out(tmp_path: Path) -> None:
    good = {"time": "2026-01-01T00:00:00+00:00", "frame": 1, "score": 0.5}
    strange: list[object] = [1, [], None, "x", {}, {"time": 3, "frame": 1}, {"event": [], "time": "x"}, {"frame": 1}]
    file = written(tmp_path / "events.jsonl", *strange, good, {**good, "score": "0.5", "frame": "x"})
    with file.open("ab") as more:
        more.write(b"[" * 10**5 + b"\n\xff\xfe\n\0\0\0" + b'{"time": "2026')
    assert [(row.part, row.score) for row in last_rows(file, has_parts=False)] == [(1, 0.5), (None, None)]
    assert last_rows(tmp_path / "none.jsonl", has_parts=True) == []
    assert last_rows(tmp_path, has_parts=True) == []


def test_table_has_no_formulas_and_no_line_breaks_in_names() -> None:
    row = Row("2026-01-01T00:00:00+00:00", "part-result", 1, '=HYPERLINK("x")\n', "good", 0.5, 0.6, "a,b", None)
    text = table([("@left", row)])
    assert text.count("\r\n") == 2
    (read,) = csv.DictReader(io.StringIO(text))
    assert (read["camera"], read["part_id"], read["recipe"]) == ("'@left", '\'=HYPERLINK("x")\\x0a', "a,b")
    assert (read["score"], read["text"]) == ("0.5", "")
    assert KEPT >= 10_000
