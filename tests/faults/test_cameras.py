"""Network cameras that send damaged pictures, dribble, flood, or want a login: nothing of it ends a line."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.sources import SourceOptions
from runtime.sources.camera import Camera
from runtime.sources.live_camera import MOST_LEFT_BEHIND, LiveCamera, Patience
from runtime.sources.mjpeg import MjpegCapture, open_mjpeg
from runtime.sources.rtsp import open_rtsp
from stlm_edge.errors import SourceError, SourceTimeout

from .conftest import run_camera
from .peer import DIGEST, MJPEG, UNAUTHORIZED, Script, part, peer, picture

pytestmark = pytest.mark.heavy

ANSWER_S = 0.4
IN_TIME_S = 15.0
"""What a test waits for at most, on a machine that is busy with others."""

QUICK = Patience(read_s=0.2, first_delay_s=0.01, most_delay_s=0.02)

Flood = Callable[[socket.socket], None]


def live(uri: str) -> LiveCamera:
    return LiveCamera(lambda: open_mjpeg(uri, SourceOptions(), answer_s=ANSWER_S), name="the camera", patience=QUICK)


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + IN_TIME_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def capturing() -> int:
    return sum(thread.name == "capture" for thread in threading.enumerate())


def pictures_and_then(flood: Flood, *, pictures: int = 3) -> Script:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(MJPEG + b"".join(part(picture(seed)) for seed in range(pictures)))
        flood(connection)

    return script


def repeated(data: bytes, *, every_s: float = 0.0, after: bytes = b"") -> Flood:
    def flood(connection: socket.socket) -> None:
        connection.sendall(after)
        while True:
            connection.sendall(data)
            time.sleep(every_s)

    return flood


DRIBBLES: dict[str, tuple[Flood, str]] = {
    "nothing": (lambda connection: time.sleep(60), "nothing came for 0.4 s"),
    "preamble": (repeated(b"zzzz\r\n" * 100, every_s=0.01), "no whole picture came for 0.4 s"),
    "header": (repeated(b"X-A: y\r\n", every_s=0.01, after=b"--frame\r\n"), "no whole picture came for 0.4 s"),
    "line": (repeated(b"z" * 1000, every_s=0.01), "no whole picture came for 0.4 s"),
    "a byte at a time": (repeated(b"-", every_s=0.05), "no whole picture came for 0.4 s"),
    "a picture a byte at a time": (
        repeated(b"z", every_s=0.05, after=b"--frame\r\nContent-Length: 5000\r\n\r\n"),
        "no whole picture came for 0.4 s",
    ),
    "a picture without end": (
        repeated(b"z" * 1000, every_s=0.01, after=b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"),
        "no whole picture came for 0.4 s",
    ),
    "parts that are none": (
        repeated(b"--frame\r\nContent-Type: text/plain\r\n\r\nalive\r\n", every_s=0.01),
        "no whole picture came for 0.4 s",
    ),
    "headers as fast as it can": (repeated(b"X-A: " + b"y" * 60000 + b"\r\n", after=b"--frame\r\n"), "of headers"),
    "a gigabyte": (
        repeated(b"z" * 65536, after=b"--frame\r\nContent-Length: 1073741824\r\n\r\n"),
        "of 1073741824 bytes",
    ),
    "its end": (lambda connection: None, "its stream ended"),
}


@pytest.mark.parametrize("way", DRIBBLES)
def test_camera_whose_next_picture_does_not_come_is_lost_and_opened_again(way: str) -> None:
    flood, expected = DRIBBLES[way]
    before = capturing()
    with peer(pictures_and_then(flood)) as camera, live(camera.uri) as source:
        wait_until(lambda: source.reconnects >= 1)
        lost = source.take_events()[0]
        assert lost.kind == "camera-lost"
        assert expected in lost.text
        # Neither threads nor sockets of the connections before remain.
        wait_until(lambda: capturing() <= before + 1 and camera.open <= 2)


def test_camera_that_dribbles_for_ever_is_tried_for_ever() -> None:
    """More often than threads may hang: none of these does."""
    attempts = 2 * MOST_LEFT_BEHIND + 1
    with peer(pictures_and_then(repeated(b"-", every_s=0.05))) as camera, live(camera.uri) as source:
        wait_until(lambda: source.reconnects >= attempts)
        assert len(camera.requests) > attempts
        assert capturing() <= 2
    wait_until(lambda: capturing() == 0)


def test_answer_that_dribbles_before_its_first_picture_is_no_camera() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nX-A: ", itertools.repeat(ord("y"))):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    started_s = time.monotonic()
    with peer(script) as camera, pytest.raises(SourceError, match=r"does not answer within 0\.4 s"):
        live(camera.uri)
    assert time.monotonic() - started_s < 5


def endless_pictures(
    connection: socket.socket, *, every_s: float = 0.02, damaged: Callable[[int], bytes | None]
) -> None:
    for index in itertools.count():
        connection.sendall(part(damaged(index) or picture(index)))
        time.sleep(every_s)


CUT = picture(9)[: len(picture(9)) // 2]


def bomb(height: int, width: int) -> bytes:
    """A JPEG whose header announces another size."""
    jpeg = bytearray(picture(9))
    struct.pack_into(">HH", jpeg, jpeg.find(b"\xff\xc0") + 5, height, width)
    return bytes(jpeg)


@pytest.mark.parametrize(
    "broken",
    [CUT, b"\xff\xd8\xff\xd9", b"\xff\xd8" + bytes(500) + b"\xff\xd9", b"no picture at all", bomb(65500, 65500)],
    ids=["cut", "empty", "zeros", "text", "larger than any picture may be"],
)
def test_damaged_picture_is_skipped_and_the_connection_stays(broken: bytes) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(MJPEG)
        endless_pictures(connection, damaged=lambda index: broken if index % 5 == 4 else None)

    seen: list[int] = []
    with peer(script) as camera, live(camera.uri) as source:
        while source.skipped < 4:
            with contextlib.suppress(SourceTimeout):
                frame = source.read()
                assert frame is not None
                seen.append(frame.index)
        events = source.take_events()
        assert len(camera.requests) == 1
        assert source.reconnects == 0
    assert not any(index % 5 == 4 for index in seen)
    assert len(seen) + source.dropped >= 16
    # Once a minute at most, however many they are.
    assert [event.kind for event in events] == ["picture-skipped"]
    assert "a picture of http://127.0.0.1" in events[0].text


def test_camera_that_gives_damaged_pictures_alone_is_lost_and_comes_back() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(MJPEG + part(picture()))
        endless_pictures(connection, damaged=lambda _: CUT)

    with peer(script) as place:

        def open_camera() -> Camera:
            return Camera(MjpegCapture(place.uri, answer_s=ANSWER_S), name="the camera", damaged_s=0.3)

        with LiveCamera(open_camera, name="the camera", patience=QUICK) as source:
            wait_until(lambda: source.reconnects >= 2)
            kinds = [event.kind for event in source.take_events()]
            assert kinds[:3] == ["picture-skipped", "camera-lost", "camera-back"]
            assert source.skipped > 2


def answering(*answers: bytes) -> Script:
    """One answer after the other, the last one for good; each is followed by pictures if it is of MJPEG."""
    left = iter(answers)
    last = answers[-1]

    def script(connection: socket.socket, _: bytes) -> None:
        answer = next(left, last)
        connection.sendall(answer)
        if b"boundary" in answer.lower() or b"replace" in answer:
            endless_pictures(connection, damaged=lambda _: None)

    return script


@pytest.mark.parametrize(
    "answer",
    [
        MJPEG,
        MJPEG.replace(b"HTTP/1.1", b"HTTP/1.0"),
        MJPEG.replace(b"\r\n", b"\n"),
        MJPEG.replace(b"=frame", b'="frame"'),
        MJPEG.replace(b"=frame", b"=--frame"),
        MJPEG.replace(b"; boundary=frame", b""),
        MJPEG.replace(b"multipart/x-mixed-replace", b"Multipart/Mixed"),
        MJPEG.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\nContent-Length: 99999999\r\n\r\n"),
    ],
)
def test_ways_to_begin_mjpeg(answer: bytes) -> None:
    with peer(answering(answer)) as camera, live(camera.uri) as source:
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (48, 64, 3)


def test_answer_in_chunks_is_put_together() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(MJPEG.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"))
        data = b"".join(part(picture(seed)) for seed in range(20))
        for at in range(0, len(data), 700):
            chunk = data[at : at + 700]
            connection.sendall(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
            time.sleep(0.001)

    with peer(script) as camera, live(camera.uri) as source:
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (48, 64, 3)


def test_redirect_is_followed_and_the_login_stays_with_its_host() -> None:
    elsewhere = answering(MJPEG)
    with peer(elsewhere) as other:
        to_other = b"HTTP/1.1 302 Found\r\nLocation: http://localhost:%d/there\r\n\r\n" % other.port
        with peer(answering(to_other)) as camera, live(camera.uri.replace("//", "//adm:s3cret@")) as source:
            assert source.read() is not None
        assert other.requests[0].startswith(b"GET /there HTTP/1.1\r\n")
        assert not any(b"Authorization" in request for request in [*other.requests, *camera.requests])


@pytest.mark.parametrize(
    ("answer", "login", "expected"),
    [
        (UNAUTHORIZED % DIGEST, "", r"needs a login: it answers 401 \(Unauthorized\); check user and password"),
        (
            UNAUTHORIZED % DIGEST,
            "adm:wr0ng@",
            r"needs a login: it answers 401 \(Unauthorized\); check user and password",
        ),
        (UNAUTHORIZED % b"X-A: y", "", r"needs a login: it answers 401 \(Unauthorized\)"),
        (UNAUTHORIZED % b'WWW-Authenticate: Bearer realm="r"', "", r"needs a login: it answers 401 \(Unauthorized\)"),
        (UNAUTHORIZED % b"WWW-Authenticate: Negotiate", "adm:wr0ng@", "needs a login by Negotiate, expected Basic or"),
        (
            UNAUTHORIZED % DIGEST.replace(b"nonce", b"algorithm=TIGER, nonce"),
            "adm:wr0ng@",
            "by Digest with TIGER, expected",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "", r"needs a login: it answers 403 \(Forbidden\)"),
        (b"HTTP/1.1 407 Proxy\r\n\r\n", "", r"needs a login: it answers 407 \(Proxy Authentication Required\)"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "", r"answers 404 \(Not Found\); check the path"),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "", r"answers 503 \(Service Unavailable\); check the camera itself"),
        (b"HTTP/1.1 302 Found\r\nLocation: /line\r\n\r\n", "", "leads on without end"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "", "or to what is no http address"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::bad/\r\n\r\n", "", "or to what is no http address"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://camera:99999/\r\n\r\n", "", "or to what is no http address"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "", "sends text/html, expected multipart"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "", "sends text/plain, expected multipart"),
        (
            MJPEG.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + gzip.compress(part(picture())),
            "",
            "sends multipart/x-mixed-replace packed by gzip, expected",
        ),
        (b"\x00\xff" * 500, "", "does not speak as expected"),
        (b"", "", "does not speak as expected|Remote end closed|check the camera's address"),
    ],
)
def test_answer_that_is_no_camera_says_what_to_check(answer: bytes, login: str, expected: str) -> None:
    with peer(answering(answer)) as camera:
        with pytest.raises(SourceError, match=expected) as caught:
            live(camera.uri.replace("//", f"//{login}"))
        assert "wr0ng" not in str(caught.value)
        wait_until(lambda: camera.open == 0)


def test_boundary_that_never_comes_is_named() -> None:
    with peer(answering(MJPEG.replace(b"=frame", b"=another"))) as camera, live(camera.uri) as source:
        wait_until(lambda: len(camera.requests) >= 3)
        (lost,) = source.take_events()
    assert "no whole picture came for 0.4 s, and no line of it is the boundary 'another' that it announced" in lost.text


def test_run_counts_damaged_pictures_in_its_summary_and_says_so_in_its_events(engine: Path, tmp_path: Path) -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        connection.sendall(MJPEG)
        endless_pictures(connection, every_s=0.01, damaged=lambda index: CUT if index % 3 == 2 else None)

    events, summary = tmp_path / "events.jsonl", tmp_path / "summary.json"
    with peer(script) as camera:
        done = run_camera(
            engine,
            "--source",
            camera.uri,
            "--frames",
            "40",
            "--output",
            events,
            "--summary",
            summary,
            "--no-camera-faults",
        )
        assert len(camera.requests) == 1
    assert done.returncode == 0, done.stderr
    counted = json.loads(summary.read_text())
    assert counted["frames"] == 40
    assert counted["skipped"] >= 20 * 40 // (2 * 40 + counted["dropped"])
    assert counted["reconnects"] == 0
    assert counted["events"] == {"picture-skipped": 1}
    assert f"pictures skipped   {counted['skipped']}" in done.stdout
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert sum("frame" in line for line in lines) == 40
    assert [line["event"] for line in lines if "event" in line] == ["picture-skipped"]


def test_rtsp_camera_that_dribbles_is_no_camera_in_its_time() -> None:
    def script(connection: socket.socket, _: bytes) -> None:
        for byte in itertools.chain(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: ", itertools.repeat(ord("y"))):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    started_s = time.monotonic()
    with peer(script) as camera:
        uri = camera.uri.replace("http", "rtsp")
        with pytest.raises(SourceError, match="its host answers but sends no stream"):
            open_rtsp(uri, SourceOptions(), answer_s=1.0)
        assert time.monotonic() - started_s < 5
        wait_until(lambda: camera.open == 0)
