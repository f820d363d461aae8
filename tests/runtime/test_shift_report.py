"""`stlm report events.jsonl`: what is counted of a shift, and the page that shows it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from runtime.inspection import VERDICT_STAGES
from runtime.report.charts import PLACES, Periods
from runtime.report.page import local, write_shift
from runtime.report.tally import WORST, Tally
from stlm_edge.command import main
from stlm_edge.errors import DataError, OutputError

START = datetime(2026, 11, 28, 20, 30, tzinfo=timezone.utc)


def at(minutes: float, **told: Any) -> dict[str, Any]:
    return {"time": (START + timedelta(minutes=minutes)).isoformat(timespec="milliseconds")} | told


def frame(minutes: float, score: float | None = 0.2, *, fault: str | None = None, **told: Any) -> dict[str, Any]:
    """At thresholds of 0.5 and 0.4."""
    return at(
        minutes,
        frame=7,
        source="camera 0",
        score=score,
        threshold=0.5,
        anomalous=None if score is None else score >= 0.5,
        unclear=score is not None and 0.4 <= score < 0.5,
        unclear_from=0.4,
        latency_ms=dict.fromkeys(VERDICT_STAGES, 2.0) | {"infer": 8.0},
        engine_sha256="ab" * 32,
        **({} if fault is None else {"fault": fault}),
        **({"regions": [], "frame_size": [100, 200]} | told),
    )


def part(minutes: float, result: str, score: float | None = 0.2, **told: Any) -> dict[str, Any]:
    found = frame(minutes, score, **{key: told.pop(key) for key in ("regions", "frame_size") if key in told})
    worst = {key: found[key] for key in ("frame", "source", "score", "threshold", "regions", "frame_size")}
    return at(
        minutes,
        event="part-result",
        text="a part",
        part=3,
        part_id=None,
        part_result=result,
        part_ms=120.0,
        worst=None if score is None else worst,
        engine_sha256="ab" * 32,
        **told,
    )


def box(*sides: float) -> dict[str, Any]:
    """A region: left, top, width and height on a frame of 100 x 200."""
    return {"regions": [{"box": list(sides), "area": 9, "peak": 0.9}]}


def log(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def tallied(*paths: Path, **when: datetime) -> Tally:
    tally = Tally(**when)
    tally.read(paths)
    return tally


def test_parts_are_counted_where_there_are_any_and_frames_elsewhere(tmp_path: Path) -> None:
    frames = [frame(0), frame(1, 0.45), frame(2, 0.9), frame(3, None, fault="black")]
    tally = tallied(log(tmp_path / "events.jsonl", frames))
    assert tally.units.verdicts == {"good": 1, "unclear": 1, "reject": 1, "fault": 1}
    assert tally.faults == {"black": 1}
    parts = [part(2, "reject", 0.9), part(3, "missed", None)]
    tally = tallied(log(tmp_path / "events.jsonl", [*frames, *parts]))
    assert tally.units.verdicts == {"reject": 1, "missed": 1}
    assert tally.latency["infer"].percentiles().p50_ms == pytest.approx(8, rel=0.01)
    assert tally.latency["infer"].count == 3
    assert tally.latency["part"].count == 2


def test_cameras_recipes_and_engines_are_told_apart(tmp_path: Path) -> None:
    left = log(tmp_path / "left.jsonl", [part(0, "good", recipe="bolt"), part(1, "good", recipe="nut")])
    right = log(tmp_path / "right.jsonl", [part(0, "reject", 0.8, recipe="nut")])
    groups = tallied(left, right).units.groups
    assert {key: dict(found) for key, found in groups.items()} == {
        ("left.jsonl", "bolt", "ab" * 6): {"good": 1},
        ("left.jsonl", "nut", "ab" * 6): {"good": 1},
        ("right.jsonl", "nut", "ab" * 6): {"reject": 1},
    }


def test_files_that_were_set_aside_are_one_log_and_are_read_from_the_oldest(tmp_path: Path) -> None:
    oldest = tmp_path / "events.jsonl.10.gz"
    lost, back = at(0, event="camera-lost", text="lost"), at(2, event="camera-back", text="back")
    oldest.write_bytes(gzip.compress(json.dumps(lost).encode() + b"\n"))
    middle = log(tmp_path / "events.jsonl.9", [back, at(3, event="camera-lost", text="lost")])
    newest = log(tmp_path / "events.jsonl", [frame(4)])  # the camera is still gone
    tally = tallied(newest, oldest, middle)
    assert {name: list(found) for name, found in tally.outages_s.items()} == {"events.jsonl": [120, 60]}
    assert [text for *_, text in tally.events] == ["lost", "back", "lost"]


def test_only_what_was_asked_for_is_counted(tmp_path: Path) -> None:
    path = log(tmp_path / "events.jsonl", [frame(minutes) for minutes in range(10)])
    since, until = ((START + timedelta(minutes=minutes)).astimezone().replace(tzinfo=None) for minutes in (2, 5))
    assert tallied(path, since=since, until=until).units.verdicts == {"good": 3}
    with pytest.raises(DataError, match="no event of the time that was asked for"):
        tallied(path, since=since + timedelta(days=1))


def test_regions_of_what_is_not_good_are_placed_on_the_frame(tmp_path: Path) -> None:
    lines = [
        frame(0, 0.9, **box(0, 0, 10, 10)),
        frame(1, 0.45, **box(180, 80, 40, 40)),
        frame(2, 0.2, **box(0, 0, 10, 10)),
        frame(3, 0.9, frame_size=None, **box(0, 0, 1, 1)),  # as older versions wrote
    ]
    units = tallied(log(tmp_path / "events.jsonl", lines)).units
    assert units.centres[2, 1] == units.centres[39, 39] == 1
    assert (units.centres.sum(), units.unplaced) == (2, 1)
    assert units.sizes == {2: 1, 3: 1}  # 0.5 % and 8 % of the frame


def test_worst_are_those_with_the_highest_scores(tmp_path: Path) -> None:
    scores = [0.01 * (number % 50) for number in range(100)]
    tally = tallied(log(tmp_path / "events.jsonl", [frame(0, score) for score in scores]))
    assert sorted(score for score, *_ in tally.units.worst) == sorted(scores)[-WORST:]


def test_lines_that_nobody_can_read_are_counted_and_the_last_half_is_not_one(tmp_path: Path) -> None:
    good = json.dumps(frame(0)).encode()
    bad = [
        b"no json",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"time": 5}',
        good.replace(b"2026-11-28", b"2026-11-31"),
        good.replace(b'"infer": 8.0', b'"infer": null'),
        json.dumps(part(0, "<b>")).encode(),
        json.dumps(frame(0, 0.9, regions=[{"box": [1, 2, "3", 4]}])).encode(),
    ]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([good, *bad, good, good[:50]]))
    tally = tallied(path)
    assert tally.unreadable == len(bad)
    assert tally.first_unreadable == f"{path}:2"
    assert tally.units.verdicts == {"good": 2}


def test_packed_file_that_is_cut_tells_what_it_has(tmp_path: Path) -> None:
    lines = "".join(json.dumps(frame(minutes, score=minutes / 7919 % 0.3)) + "\n" for minutes in range(300))
    path = tmp_path / "events.jsonl.1.gz"
    path.write_bytes(gzip.compress(lines.encode())[:-40])
    tally = tallied(path)
    assert tally.cut == [str(path)]
    assert 100 < tally.units.verdicts["good"] <= 300


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "found no event in"), (b"score,threshold\n0.1,0.5\n", "found no event in")],
)
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "events.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        write_shift(tmp_path / "shift.html", [path])
    assert not (tmp_path / "shift.html").exists()


def test_file_is_counted_once_and_never_written_over(tmp_path: Path) -> None:
    path = log(tmp_path / "events.jsonl", [frame(0)])
    with pytest.raises(DataError, match="given twice"):
        tallied(path, tmp_path / "." / "events.jsonl")
    with pytest.raises(OutputError, match="would be written over"):
        write_shift(path, [path])


@pytest.mark.parametrize(("hours", "kind", "count"), [(9, "hour", 10), (24 * 20, "day", 21), (24 * 200, "month", 2)])
def test_periods_are_as_long_as_can_be_told_apart(hours: int, kind: str, count: int) -> None:
    first, last = (f"{START + timedelta(hours=after):%Y-%m-%dT%H}" for after in (0, hours))
    periods = Periods([last, first])
    assert (periods.kind, len(periods.labels)) == (kind, count)
    assert (periods.place(first), periods.place(last)) == (0, count - 1)


class Read(HTMLParser):
    """What of a page is text, and what would be fetched or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_stands_for_itself_and_markup_in_names_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    markup = "<script>alert(1)</script>"
    lines = [
        frame(0, 0.45),
        part(0, "good", recipe=markup),
        part(70, "reject", 0.9, recipe=markup, **box(150, 5, 20, 10)) | {"part_id": f'"{markup}'},
        at(71, event="drift", text=markup),
        at(72, event="camera-lost", text="lost"),
    ]
    path = log(tmp_path / f"{markup.replace('/', '')}.jsonl", lines)
    page = tmp_path / "shift.html"
    assert main(["report", str(path), "-o", str(page), "--title", markup]) == 0
    assert capsys.readouterr().err == ""
    html = page.read_text()
    read = Read(html)
    assert "script" not in read.tags
    assert read.text.count(markup) >= 5  # title twice, recipe, name of a part, text of an event
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in read.links)
    assert "url(http" not in html and "@import" not in html
    assert len(set(read.ids)) == len(read.ids)
    assert html.count("<svg") == 5
    assert not re.search(r"#0102[0-9a-f]{2}", html)  # each colour is one of the page's
    shown = ("50.00 %", "camera-lost 1", local(lines[0]["time"]), "threshold", "unclear from", "drift", PLACES[2])
    assert [text for text in shown if text not in read.text] == []


def test_time_that_ends_before_it_begins_is_wrong_usage(tmp_path, capsys):
    times = ["--since", "2026-11-29 14:00", "--until", "2026-11-29 06:00"]
    assert main(["report", "shift", str(tmp_path / "events.jsonl"), "-o", str(tmp_path / "a.html"), *times]) == 2
    assert "--until is 2026-11-29 06:00, expected a time after --since" in capsys.readouterr().err
