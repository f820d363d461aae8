"""Where a server listens, who is let in, and that nothing of a request or of the application ends it."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from runtime.web.assets import shared_assets
from runtime.web.options import Serving
from runtime.web.server import WebServer, parse_address
from stlm_edge.errors import ConfigError, OutputError

from ..sinks.waiting import eventually
from .asking import SOON_S, ask

pytestmark = pytest.mark.heavy

TOKEN = "a-token-of-many-characters"


async def echo(request: Request) -> Response:
    return PlainTextResponse(request.method + (await request.body()).decode())


async def fail(_: Request) -> Response:
    raise ZeroDivisionError("a mistake")


async def endless(_: Request) -> Response:
    async def go_on() -> AsyncIterator[bytes]:
        import asyncio

        while True:
            yield b"more"
            await asyncio.sleep(0.01)

    return StreamingResponse(go_on())


def app() -> Starlette:
    routes = [
        Route("/", echo, methods=["GET", "POST"]),
        Route("/healthz", echo),
        Route("/fail", fail),
        Route("/endless", endless),
    ]
    return Starlette(routes=[*routes, *shared_assets()])


@pytest.fixture(scope="module")
def local() -> Iterator[WebServer]:
    with WebServer(app(), Serving("127.0.0.1:0"), what="trial", most_bytes=100) as server:
        yield server


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.touch(0o600)
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture(scope="module")
def closed(token_file: Path) -> Iterator[WebServer]:
    serving = Serving("127.0.0.1:0", token=token_file)
    with WebServer(app(), serving, what="trial", open_paths=["/healthz"]) as server:
        yield server


@pytest.mark.parametrize(
    "text", ["8080", "127.0.0.1", "127.0.0.1:99999", "http://a:1", "a@b:1", "[::1:80", "::1:80x", ""]
)
def test_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected ADDRESS:PORT"):
        parse_address(text)


def test_addresses() -> None:
    assert parse_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert parse_address("[::1]:0") == ("::1", 0)
    assert parse_address("line.factory:80") == ("line.factory", 80)


def test_ipv6_is_served() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with WebServer(app(), Serving("[::1]:0"), what="trial") as server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=SOON_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"GET"
        connection.close()
        assert server.url == f"http://[::1]:{server.port}/"


def test_port_that_is_taken_is_one_line(local: WebServer) -> None:
    with pytest.raises(OutputError, match=rf"cannot serve on 127.0.0.1 port {local.port} \(Address already in use\)"):
        WebServer(app(), Serving(f"127.0.0.1:{local.port}"), what="trial")


def test_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(
        OutputError, match=r"cannot serve on 192\.0\.2\.1 port 8080 .*; give an address of this machine"
    ):
        WebServer(app(), Serving("192.0.2.1:8080"), what="trial")


def test_everybody_at_the_machine_is_let_in_and_every_answer_is_guarded(local: WebServer) -> None:
    answer = ask(local, "/")
    assert (answer.status, answer.text) == (200, "GET")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert ask(local, "/nowhere").headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:1", 200), ("[::1]:8080", 200), ("evil.example", 421), ("127.0.0.1.nip.io", 421)],
)
def test_foreign_name_that_points_here_is_refused(local: WebServer, host: str, status: int) -> None:
    answer = ask(local, "/", Host=host)
    assert (answer.status, "behind a proxy --serve-token" in answer.text) == (status, status == 421)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
        ({"Origin": "http://localhost:2", "Host": "localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost:1", "Host": "localhost:1"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_no_other_origin_may_post(local: WebServer, headers: dict[str, str], status: int) -> None:
    answer = ask(local, "/", method="POST", body="x", **headers)
    assert (answer.status, "is to pass on Host" in answer.text) == (status, status == 403)


def test_long_body_is_refused_also_where_nobody_says_how_long(local: WebServer) -> None:
    assert ask(local, "/", method="POST", body="x" * 100).text == "POST" + "x" * 100
    assert ask(local, "/", method="POST", body="x" * 101).status == 413
    connection = http.client.HTTPConnection("127.0.0.1", local.port, timeout=SOON_S)
    connection.request(
        "POST", "/", body=iter([b"x" * 60] * 2), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    with connection.getresponse() as answer:
        assert answer.status == 413
    connection.close()


def test_token_is_asked_for(closed: WebServer) -> None:
    assert json.loads(ask(closed, "/").text)["error"].startswith(
        "found no token, expected 'Authorization: Bearer TOKEN'"
    )
    page = ask(closed, "/?a=<b>", Accept="text/html")
    assert (page.status, "<form" in page.text, "<b>" in page.text) == (401, True, False)
    assert ask(closed, "/static/style.css").status == 200
    assert ask(closed, "/healthz").status == 200
    assert ask(closed, "/", Authorization=f"Bearer {TOKEN}").text == "GET"
    assert "found another token" in ask(closed, "/", Authorization=f"Bearer {TOKEN}x").text
    assert ask(closed, "/", Authorization="Bearer ümlaut".encode().decode("latin-1")).status == 401
    assert ask(closed, "/", Cookie="\x01=;;;").status == 401


def test_login_gives_a_cookie_that_is_not_the_token(closed: WebServer) -> None:
    wrong = ask(closed, "/login", method="POST", body="token=wrong&to=/")
    assert (wrong.status, "set-cookie" in wrong.headers) == (403, False)
    right = ask(closed, "/login", method="POST", body=f"token={TOKEN}&to=//evil.example/")
    assert (right.status, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    name_and_value = cookie.partition(";")[0]
    assert ask(closed, "/", Cookie=f"a=b; {name_and_value}").text == "GET"
    assert ask(closed, "/", method="POST", Cookie=name_and_value, Origin="https://evil.example").status == 403
    assert ask(closed, "/", Cookie=f"{name_and_value[:-1]}x").status == 401


def test_token_is_made_once_printed_once_and_for_its_owner_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    for _ in range(2):
        WebServer(app(), Serving("0.0.0.0:0"), what="trial").close()
    file = tmp_path / "state" / "page-token"
    assert file.stat().st_mode & 0o777 == 0o600
    said = capfd.readouterr()
    assert said.out.count(file.read_text().strip()) == 1
    assert file.read_text().strip() not in said.err


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [
        (0o644, TOKEN, "may be read by others"),
        (0o600, "short", "found no token in"),
        (0o600, "\xff" * 20, "no token in"),
    ],
)
def test_token_that_is_none_is_refused(tmp_path: Path, mode: int, text: str, message: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=message):
        WebServer(app(), Serving("127.0.0.1:0", token=file), what="trial")


def test_mistake_of_ours_is_one_line_and_an_answer(local: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = ask(local, "/fail")
    assert (answer.status, answer.text) == (500, "Internal Server Error")
    eventually(lambda: caplog.records)  # it is told after it was answered
    assert [record.getMessage() for record in caplog.records] == [
        "the trial failed at /fail: ZeroDivisionError: a mistake"
    ]
    assert ask(local, "/").status == 200


@pytest.mark.parametrize(
    "said",
    [b"\0\1\2\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"],
)
def test_what_is_no_request_is_refused_in_silence(
    local: WebServer, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", local.port), SOON_S) as connection:
        connection.sendall(said)
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert caplog.records == []


def test_open_streams_do_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    server = WebServer(app(), Serving("127.0.0.1:0"), what="trial")
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON_S) for _ in range(3)]
    answers = []
    for connection in connections:
        connection.request("GET", "/endless")
        answers.append(connection.getresponse())
        assert answers[-1].read(4) == b"more"
    server.close()
    server.close()
    assert not server._thread.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), 1)
    for connection, answer in zip(connections, answers, strict=True):
        answer.close()
        connection.close()
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("openssl is not there")
    return folder


def test_pages_are_served_by_https(certificate: Path, token_file: Path) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    serving = Serving("localhost:0", token_file, certificate / "cert.pem", certificate / "key.pem")
    with WebServer(app(), serving, what="trial") as server:
        assert server.url.startswith("https://localhost:")
        context.check_hostname = False  # it has no alternative names
        connection = http.client.HTTPSConnection("localhost", server.port, timeout=SOON_S, context=context)
        connection.request("POST", "/login", body=f"token={TOKEN}&to=/")
        with connection.getresponse() as answer:
            assert "Secure" in str(answer.headers["set-cookie"])
        connection.close()


def test_certificate_that_cannot_be_used_is_one_line(certificate: Path, tmp_path: Path) -> None:
    for serving, message in (
        (Serving("127.0.0.1:0", cert=tmp_path / "none.pem"), "none.pem cannot be read .No such file"),
        (
            Serving("127.0.0.1:0", cert=certificate / "cert.pem", key=tmp_path / "none.key"),
            "^[^ ]*none.key cannot be read",
        ),
        (
            Serving("127.0.0.1:0", cert=certificate / "cert.pem"),
            "cert.pem cannot be used .*; give its key by --serve-key",
        ),
        (Serving("127.0.0.1:0", key=certificate / "key.pem"), "and no certificate"),
    ):
        with pytest.raises(ConfigError, match=message):
            WebServer(app(), serving, what="trial")
