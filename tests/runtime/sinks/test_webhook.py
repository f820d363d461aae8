"""The webhook with a real web server."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.part import VERDICTS
from runtime.sinks import FrameSink, SinkContext, open_sink
from stlm_edge.errors import OutputError

from .conftest import ENGINE, inspection
from .fake_line import part
from .waiting import eventually, free_port

Answer = Callable[[http.server.BaseHTTPRequestHandler, int], int | None]


class Server:
    """Remembers what is posted; `answer` says with which status, None for a server that hangs."""

    def __init__(self, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.posted: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections = 0
        self.answer: Answer = lambda _, __: 200
        self.more: dict[str, str] = {}
        self.goes_on = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.paths.append(self.path)
                server.headers.append(dict(self.headers))
                server.posted.append(json.loads(body))
                status = server.answer(self, len(server.posted))
                if status is None:
                    server.goes_on.wait(20)
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in server.more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def parts(self) -> list[int]:
        return [record["part"] for record in self.posted]

    def close(self) -> None:
        self.goes_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.sinks.webhook._RETRIED_AFTER_S", (0.02, 0.1))


def webhook(port: int, tmp_path: Path, options: str = "", *, path: str = "/hook", mark: str = "?") -> FrameSink:
    uri = f"http://127.0.0.1:{port}{path}{mark}queue={tmp_path / 'queue'}{options}"
    return open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True))


@pytest.mark.heavy
def test_parts_are_posted_as_json_in_order_over_one_connection(server: Server, tmp_path: Path) -> None:
    with webhook(server.port, tmp_path) as sink:
        sink.write(inspection())
        for number in range(20):
            sink.write_part(part(number, part_id="A 17"))
        eventually(lambda: len(server.posted) == 20)
    assert server.parts() == list(range(20))
    assert (server.connections, set(server.paths)) == (1, {"/hook"})
    assert server.headers[0]["Content-Type"] == "application/json"
    first = server.posted[0]
    assert (first["part_result"], first["part_id"], first["engine_sha256"], len(first["run"])) == (
        "good",
        "A 17",
        ENGINE,
        16,
    )
    assert (sink.state, sink.takes_pictures, sink.takes_frames) == ("connected", False, False)


@pytest.mark.heavy
def test_only_verdicts_that_are_asked_for_are_posted(server: Server, tmp_path: Path) -> None:
    with webhook(server.port, tmp_path, "&on=reject,fault") as sink:
        for number, verdict in enumerate(VERDICTS):
            sink.write_part(part(number, verdict=verdict))
        eventually(lambda: len(server.posted) == 2)
    assert server.parts() == [2, 4]


@pytest.mark.heavy
def test_snapshot_comes_with_a_part_that_is_not_good(server: Server, tmp_path: Path) -> None:
    with webhook(server.port, tmp_path, "&snapshot=1") as sink:
        assert sink.takes_pictures
        sink.write_part(part(0))
        sink.write_part(part(1, verdict="reject", worst=inspection(image=np.full((40, 60, 3), 99, np.uint8))))
        eventually(lambda: len(server.posted) == 2)
    assert "snapshot" not in server.posted[0]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(server.posted[1]["snapshot"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (40, 60, 3)


@pytest.mark.heavy
@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_server_that_fails_for_a_while_gets_all_in_order(
    server: Server, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda _, count: 200 if count > 4 else status
    with webhook(server.port, tmp_path) as sink:
        for number in range(5):
            sink.write_part(part(number))
        eventually(lambda: len(server.posted) == 9)
        eventually(lambda: sink.state == "connected")
    assert server.parts() == [0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert caplog.text.count(f"it answers {status}") == 1
    assert sink.lost == 0


@pytest.mark.heavy
def test_server_that_fails_now_and_then_is_told_of_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("runtime.sinks.webhook._RETRIED_AFTER_S", (0.005, 1.0))
    caplog.set_level("INFO")
    server.answer = lambda _, count: 500 if count % 2 else 200
    with webhook(server.port, tmp_path) as sink:
        for number in range(4):
            sink.write_part(part(number))
        eventually(lambda: len(server.posted) == 8)
    assert (caplog.text.count("does not take parts"), caplog.text.count("takes parts again")) == (1, 1)


@pytest.mark.heavy
def test_server_that_asks_for_a_pause_gets_one(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.sinks.webhook._RETRIED_AFTER_S", (0.02, 1.0))
    server.more = {"Retry-After": "1"}
    server.answer = lambda _, count: 200 if count > 1 else 429
    with webhook(server.port, tmp_path) as sink:
        sink.write_part(part())
        begun_s = time.monotonic()
        eventually(lambda: len(server.posted) == 2)
        assert time.monotonic() - begun_s > 0.9


@pytest.mark.heavy
@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_refusal_is_told_and_not_tried_again(
    server: Server, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda _, count: status if count < 4 else 200
    with webhook(server.port, tmp_path) as sink:
        for number in range(6):
            sink.write_part(part(number))
        eventually(lambda: len(server.posted) == 6)
        eventually(lambda: sink.state == "connected, 3 lost")
    assert server.parts() == list(range(6))
    assert caplog.text.count(f"answers {status}") == 1
    assert sink.lost == 3


@pytest.mark.heavy
def test_redirect_is_not_followed_and_carries_no_login_elsewhere(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = Server()
    login = tmp_path / "login"
    login.write_text("Authorization: Bearer t0kenOfMine\n")
    server.answer = lambda _, __: 307
    server.more = {"Location": f"http://127.0.0.1:{elsewhere.port}/hook"}
    with webhook(server.port, tmp_path, f"&login={login}") as sink:
        sink.write_part(part())
        eventually(lambda: sink.lost == 1)
    assert server.headers[0]["Authorization"] == "Bearer t0kenOfMine"
    assert elsewhere.posted == []
    assert (
        f"answers 307 Temporary Redirect to http://127.0.0.1:{elsewhere.port}/hook, which is not followed"
        in caplog.text
    )
    elsewhere.close()


@pytest.mark.heavy
def test_server_that_hangs_is_given_up_and_tried_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda _, count: 200 if count > 1 else None
    monkeypatch.setattr("runtime.sinks.webhook._ANSWERS_WITHIN_S", 0.2)
    with webhook(server.port, tmp_path) as sink:
        begun_s = time.monotonic()
        for number in range(100):
            sink.write_part(part(number))
        assert time.monotonic() - begun_s < 2
        eventually(lambda: server.parts() == [0, *range(100)])
        assert sink.lost == 0


@pytest.mark.heavy
def test_end_does_not_wait_for_a_server_that_hangs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.sinks.webhook._LAST_SENT_WITHIN_S", 0.2)
    server.answer = lambda _, __: None
    sink = webhook(server.port, tmp_path)
    for number in range(3):
        sink.write_part(part(number))
    eventually(lambda: server.posted)
    begun_s = time.monotonic()
    sink.close()
    assert time.monotonic() - begun_s < 3
    server.answer = lambda _, __: 200
    with webhook(server.port, tmp_path):
        eventually(lambda: server.parts() == [0, 0, 1, 2])


@pytest.mark.heavy
def test_connection_that_the_server_closed_meanwhile_costs_no_pause(server: Server, tmp_path: Path) -> None:
    def once(handler: http.server.BaseHTTPRequestHandler, _: int) -> int:
        handler.close_connection = True  # without a word of it in the answer
        return 200

    server.answer = once
    with webhook(server.port, tmp_path) as sink:
        for number in range(5):
            sink.write_part(part(number))
            eventually(lambda number=number: len(server.posted) == number + 1 and sink.state == "connected")
            time.sleep(0.02)
    assert server.parts() == list(range(5))
    assert server.connections == 5


@pytest.mark.heavy
def test_what_waits_outlives_the_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with webhook(port, tmp_path) as sink:
        for number in range(10):
            sink.write_part(part(number))
        eventually(lambda: "away" in sink.state)
        assert sink.state.endswith("10 waiting")
    assert "10 parts; they wait in" in caplog.text
    server = Server(port)
    with webhook(port, tmp_path) as sink:
        sink.write_part(part(10))
        eventually(lambda: len(server.posted) == 11)
    assert server.parts() == list(range(11))
    server.close()


@pytest.mark.heavy
def test_what_does_not_fit_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with webhook(free_port(), tmp_path, "&limit=100KB") as sink:
        for number in range(400):
            sink.write_part(part(number))
        assert 0 < sink.lost < 400
    assert caplog.text.count("there is no room for what waits") == 1


@pytest.mark.heavy
def test_address_keeps_its_own_query_where_options_stand_behind_a_hash(server: Server, tmp_path: Path) -> None:
    with webhook(server.port, tmp_path, "&on=good", path="/hook?code=s3cretCode1x&v=2", mark="#") as sink:
        sink.write_part(part())
        eventually(lambda: server.posted)
    assert server.paths == ["/hook?code=s3cretCode1x&v=2"]


@pytest.mark.heavy
@pytest.mark.parametrize("way", ["file", "environment"])
def test_login_is_a_header_from_a_file_or_the_environment(
    server: Server, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "login"
    file.write_text("X-Api-Key: k3yOfMine\n")
    if way == "environment":
        monkeypatch.setenv("STLM_WEBHOOK_LOGIN", file.read_text().strip())
    with webhook(server.port, tmp_path, f"&login={file}" if way == "file" else "") as sink:
        sink.write_part(part())
        eventually(lambda: server.posted)
    assert server.headers[0]["X-Api-Key"] == "k3yOfMine"


@pytest.mark.heavy
def test_broken_answer_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"\x16\x03\x01 no answer of HTTP\r\n\r\n")

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        with webhook(listening.getsockname()[1], tmp_path) as sink:
            sink.write_part(part())
            eventually(lambda: "does not speak as expected" in sink.state)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("https://host:port/hook", "is not an address"),
        ("https:///hook", "is not an address"),
        ("https://user:s3cret@host/hook", "list of processes"),
        ("https://host/hook?on=bad", "expected some of good, unclear, reject, missed, fault"),
        ("https://host/hook?to=me", "known options are login, ca, cert, key, queue, limit, snapshot, on"),
        ("http://host/hook?ca=/x", "use https://"),
        ("https://host/hook?login=/gone", "login= of https://host/hook: /gone cannot be read"),
        ("https://host/h\u00f6ok", "special characters"),
    ],
)
def test_address_that_cannot_be_used_is_one_line(uri: str, said: str) -> None:
    with pytest.raises(OutputError) as raised:
        open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True))
    assert said in str(raised.value) and "s3cret" not in str(raised.value)


@pytest.mark.parametrize("line", ["s3cretBearer", "Authorization:", "A b: s3cret", "Authorization: s3cr\u00e9t"])
def test_login_that_is_no_header_is_refused_without_showing_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "login").write_text(line)
    with pytest.raises(OutputError, match="is no header") as raised:
        webhook(1, tmp_path, f"&login={tmp_path / 'login'}")
    assert "s3c" not in str(raised.value)
