"""The live page as a client sees it: what happens, pictures, and what may be asked of the lines."""

from __future__ import annotations

import asyncio
import csv
import http.client
import io
import json
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from runtime.event import Event
from runtime.page.pictures import PART, LivePicture
from runtime.page.watch import CameraWatch
from runtime.sinks import Outputs
from stlm_edge.imaging import Image

from ..sinks.conftest import inspection
from ..sinks.fake_line import part
from ..sinks.waiting import eventually
from ..web.asking import SOON_S, Answer, ask
from .conftest import MARKUP, Shown

pytestmark = pytest.mark.heavy


def post(shown: Shown, path: str, **asked: str) -> Answer:
    return ask(shown.server, path, method="POST", body=json.dumps(asked))


def state(shown: Shown, name: str = "left") -> dict:
    told = json.loads(ask(shown.server, "/state").text)
    return next(each for each in told if each["name"] == name)


@contextmanager
def opened(shown: Shown, path: str) -> Iterator[http.client.HTTPResponse]:
    """An answer that does not end."""
    connection = http.client.HTTPConnection("127.0.0.1", shown.server.port, timeout=SOON_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200
    yield answer
    answer.close()
    connection.close()


def test_page_asks_for_nothing_that_is_not_there_and_has_no_code_within(shown: Shown) -> None:
    page = ask(shown.server, "/")
    assert page.headers["content-type"].startswith("text/html")
    places = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert "/static/page.js" in places
    for place in places:
        assert ask(shown.server, place).status == 200
    assert not re.search(r"<script>|<style|style=| on\w+=|https?:", page.text)


def test_parts_are_counted_and_told_once(shown: Shown) -> None:
    watch = shown.watches["left"]
    for number, verdict in enumerate(["good", "reject", "good"]):
        watch.write(inspection(number))
        watch.write_part(part(number, verdict=verdict, part_id=f"A{number}"))  # type: ignore[arg-type]
    told = state(shown)
    assert (told["frames"], told["counts"]["good"], told["counts"]["reject"]) == (3, 2, 1)
    assert [(row[3], row[4], row[5]) for row in told["rows"]] == [
        (0, "A0", "good"),
        (1, "A1", "reject"),
        (2, "A2", "good"),
    ]
    assert told["latency_ms"] == [28, 28] and len(told["part_ms"]) == 2
    assert (told["threshold"], told["recipes"]) == (0.5, ["plate", "<b>disc</b>"])
    with opened(shown, "/live") as stream:
        first = json.loads(stream.readline().removeprefix(b"data: "))
        assert [len(camera["rows"]) for camera in first] == [3, 0]
        watch.write_part(part(3))
        stream.readline()
        assert [[row[3] for row in camera["rows"]] for camera in json.loads(stream.readline()[6:])] == [[3], []]


def test_line_without_parts_shows_its_frames(shown: Shown) -> None:
    watch, line = shown.watches["left"], shown.lines["left"]
    watch._has_parts = line.parts = False  # type: ignore[assignment]
    watch.write(inspection(0, score=0.25))
    watch.write(inspection(1, score=0.75))
    watch.write(inspection(2, fault="black"))
    told = state(shown)
    assert told["counts"] == {"good": 1, "unclear": 0, "anomalous": 1, "fault": 1}
    assert [(row[2], row[3], row[5], row[6]) for row in told["rows"]] == [
        ("frame", 0, "good", 0.25),
        ("frame", 1, "anomalous", 0.75),
        ("frame", 2, "fault", None),
    ]


def test_states_of_outputs_are_shown_without_the_pages_own(shown: Shown) -> None:
    watch = shown.watches["left"]
    took_ms: list[float] = []
    with Outputs({watch.output: watch, "mqtt://host/\x1b[2J": watch}, drops=True, on_publish=took_ms.append) as outputs:
        watch.outputs = outputs
        outputs.write(inspection(0))
        eventually(lambda: state(shown)["frames"] == 2)
        assert state(shown)["outputs"] == [["mqtt://host/\\x1b[2J", "open", 0, 0]]
        worker = outputs._workers["mqtt://host/\x1b[2J"]
        worker._failing = "no space\x1b[2J"
        told = state(shown)
        assert told["outputs"] == [["mqtt://host/\\x1b[2J", "cannot be written", 0, 0]]
        assert told["troubles"] == {"output mqtt://host/\\x1b[2J": "no space\\x1b[2J"}
        worker._failing = None
    assert took_ms == []


def test_health_says_in_a_word_why_nothing_is_judged(shown: Shown) -> None:
    left, other = shown.watches["left"], shown.watches[MARKUP]

    def health(query: str = "") -> tuple[int, str]:
        answer = ask(shown.server, f"/healthz{query}")
        return answer.status, answer.text

    assert health() == (200, "ok")
    for watch, kind, over in ((left, "camera-lost", "camera-back"), (other, "camera-fault", "camera-fault-over")):
        watch.write_event(Event(kind, "the cable is out", time.monotonic()))  # type: ignore[arg-type]
        assert health() == (503, kind)
        watch.write_event(Event(over, "it is back", time.monotonic()))  # type: ignore[arg-type]
        assert health() == (200, "ok")
    left.write_event(Event("drift", "scores have moved", time.monotonic()))
    assert health() == (200, "ok") and state(shown)["troubles"] == {"drift": "scores have moved"}
    shown.lines[MARKUP].progress_s = time.monotonic() - 3600
    assert health() == (503, "hangs")
    assert health("?camera=left") == (200, "ok")
    assert health(f"?camera={quote(MARKUP)}") == (503, "hangs")
    shown.lines["left"].has_begun = False
    assert health() == (503, "starting")
    shown.lines["left"].has_ended = True
    assert health() == (503, "ended")
    assert health("?camera=none")[0] == 404


def test_parts_are_triggered_and_recipes_changed(shown: Shown) -> None:
    left = shown.lines["left"]
    assert json.loads(post(shown, "/trigger", camera="left", part_id="A7").text) == {"part": 0}
    assert json.loads(post(shown, "/trigger", camera="left").text) == {"part": 1}
    assert json.loads(ask(shown.server, "/trigger", method="POST", body='{"camera": "left", "part_id": 7}').text)
    assert left.triggered == ["A7", None, "7"]
    assert post(shown, "/recipe", camera=MARKUP, recipe="2").status == 202
    assert ask(shown.server, "/recipe", method="POST", body='{"camera": "left", "recipe": 2}').status == 202
    assert (left.recipes, shown.lines[MARKUP].recipes) == (["2"], ["2"])
    refused = post(shown, "/recipe", camera="left", recipe="99")
    assert (refused.status, json.loads(refused.text)) == (409, {"error": "there is no recipe 99"})
    left.ready = False
    assert post(shown, "/trigger", camera="left").status == 409
    assert state(shown)["ready"] is False


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/trigger", "", 404, f"found no camera, expected one of left, {MARKUP}"),
        ("/trigger", '{"camera": "none"}', 404, "found camera 'none', expected one of left"),
        ("/trigger", '{"camera": "left", "part": "1"}', 400, "found 'part', expected camera and part_id alone"),
        ("/trigger", '{"camera": "left", "part_id": 1.5}', 400, "found part_id 1.5, expected a text or a whole number"),
        ("/trigger", '{"camera": "left", "part_id": true}', 400, "found part_id True, expected"),
        ("/trigger", f'{{"camera": "left", "part_id": {"9" * 5000}}}', 400, "found no JSON"),
        ("/trigger", '{"camera": "left", "part_id": "a\\nb"}', 400, "expected characters that can be printed"),
        ("/trigger", '{"camera": "left", "part_id": "\\ud800"}', 400, "expected characters that can be printed"),
        ("/trigger", "[" * 10_000, 400, "found no JSON, expected an object with camera and part_id"),
        ("/trigger", "camera=left", 400, "found no JSON"),
        ("/trigger/x", "", 404, "Not Found"),
        ("/state", "", 405, "Method Not Allowed"),
        ("/recipe", '{"camera": "left"}', 400, "found no recipe, expected its name or number"),
        ("/recipe", '["left"]', 400, "found ['left'], expected an object"),
        ("/recipe", "\xff", 400, "found no JSON"),
    ],
)
def test_what_is_wrong_does_nothing(shown: Shown, path: str, body: str, status: int, words: str) -> None:
    answer = ask(shown.server, path, method="POST", body=body)
    assert (answer.status, shown.lines["left"].triggered, shown.lines["left"].recipes) == (status, [], [])
    assert words in json.loads(answer.text)["error"]


def test_no_other_page_triggers(shown: Shown) -> None:
    body = '{"camera": "left"}'
    assert ask(shown.server, "/trigger", method="POST", body=body, Origin="http://evil.example").status == 403
    assert ask(shown.server, "/trigger?camera=left").status == 405
    assert shown.lines["left"].triggered == []


def test_last_events_are_a_table_of_text(shown: Shown) -> None:
    for number in range(5):
        shown.watches["left"].write_part(part(number, part_id="=1+1"))
        shown.watches[MARKUP].write_part(part(number))
    one = ask(shown.server, "/events.csv?camera=left&last=2")
    assert "attachment" in one.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(one.text)))
    assert [(row["camera"], row["part"], row["part_id"]) for row in rows] == [
        ("left", "3", "'=1+1"),
        ("left", "4", "'=1+1"),
    ]
    rows = list(csv.DictReader(io.StringIO(ask(shown.server, "/events.csv").text)))
    assert len(rows) == 10 and {row["camera"] for row in rows} == {"left", MARKUP}
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    for last in ("0", "-1", "x", "1" * 5000, "١", ""):
        assert ask(shown.server, f"/events.csv?last={quote(last)}").status == 400


def test_page_begins_with_the_end_of_the_file_of_events(shown: Shown, tmp_path: Path) -> None:
    event = {"time": "2026-01-01T00:00:00+00:00", "event": "part-result", "part": 4, "part_result": "good"}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    again = CameraWatch(
        "again", control=shown.watches["left"].control, recipes=[], can_trigger=False, events=tmp_path / "events.jsonl"
    )
    told = again.told(after=0)
    again.close()
    assert ([row[3] for row in told["rows"]], sum(told["counts"].values())) == ([4], 0)


class Drawn:
    """A picture that knows how often it was drawn."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Image:
        self.count += 1
        return np.full((1000, 2000, 3), self.count % 255, np.uint8)


def jpeg_of(stream: http.client.HTTPResponse) -> bytes:
    """The next picture, once the head of the one after it is there: Chromium shows it no sooner."""
    content = b""
    while not content.endswith(PART):
        content += stream.readline()
    return content.removesuffix(PART) or jpeg_of(stream)


def test_pictures_are_drawn_once_for_all_and_only_while_somebody_looks(shown: Shown) -> None:
    watch, drawn = shown.watches["left"], Drawn()
    for number in range(3):
        watch.write(inspection(number, picture=drawn))
    assert drawn.count == 0
    with opened(shown, "/stream?camera=left") as one, opened(shown, "/stream?camera=left") as two:
        first = jpeg_of(one)
        assert first.startswith(b"\xff\xd8") and jpeg_of(two) == first
        assert drawn.count == 1
        watch.write(inspection(3, picture=drawn))
        assert jpeg_of(one) == jpeg_of(two) != first
        assert drawn.count == 2
    eventually(lambda: watch.picture.viewers == 0)
    watch.write(inspection(4, picture=drawn))
    assert drawn.count == 2
    still = http.client.HTTPConnection("127.0.0.1", shown.server.port, timeout=SOON_S)
    still.request("GET", "/picture?camera=left")
    with still.getresponse() as answer:
        assert answer.headers["content-type"] == "image/jpeg" and answer.read().startswith(b"\xff\xd8")
    still.close()
    assert drawn.count == 3
    assert ask(shown.server, f"/picture?camera={quote(MARKUP)}").status == 404


def test_last_picture_of_a_camera_that_has_ended_is_there_for_who_looks_later() -> None:
    picture, drawn = LivePicture("left"), Drawn()
    picture.put(drawn)
    picture.close()
    assert (asyncio.run(picture.still()) or b"").startswith(b"\xff\xd8")
    assert drawn.count == 1


def test_viewer_that_does_not_read_holds_up_nobody(shown: Shown) -> None:
    watch = shown.watches["left"]
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    with opened(shown, "/stream?camera=left"), opened(shown, "/stream?camera=left") as reads:
        for number in range(8):  # more than the connection of who does not read has room for
            watch.write(inspection(number, picture=lambda: noise))
            assert jpeg_of(reads).startswith(b"\xff\xd8")
        assert len(watch.picture._waiting) <= 2


def test_fuzzed_requests_are_refused_in_one_line(shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    shown.watches["left"].write_part(part(0))
    draw = random.Random(7)
    paths = ["/", "/state", "/events.csv", "/trigger", "/recipe", "/healthz", "/picture", "/static/page.js", "/login"]
    words = ["camera", "last", "left", MARKUP, "part_id", "recipe", "..", "%00", "%ff", "\u202e", "'", "9" * 400, ""]
    for _ in range(300):
        query = "&".join(
            f"{quote(draw.choice(words))}={quote(draw.choice(words), safe='%')}" for _ in range(draw.randrange(3))
        )
        path = draw.choice([*paths, f"/static/{quote(draw.choice(words))}"]) + (f"?{query}" if query else "")
        values = [None, 1.5, [], {}, True, *words]
        body = draw.choice(
            [json.dumps({draw.choice(words): draw.choice(values) for _ in range(3)}), draw.choice(words)]
        )
        method = draw.choice(["GET", "POST", "PUT", "DELETE", "OPTIONS", "BREW"])
        answer = ask(shown.server, path, method=method, body=body, Accept=draw.choice(["text/html", "*/*", "\xff"]))
        assert answer.status < 500, (method, path, body)
        assert "Traceback" not in answer.text
        if "html" in answer.headers.get("content-type", ""):
            assert "onerror" not in answer.text
    assert caplog.records == []
