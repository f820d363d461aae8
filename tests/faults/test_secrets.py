"""Passwords and tokens of cameras, in everything that a run prints and writes."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from runtime.camera import main

from .conftest import run_camera
from .peer import MJPEG, UNAUTHORIZED, part, peer, picture

pytestmark = pytest.mark.heavy

PASSWORDS = ["p@ss-s3cret", "s3c/ret?x=1", "s3cret #1", "s 3 c r e t 9", "\"s3cret'", "100%s3cret", "s3cr%C3%A9t%40%2F"]


@pytest.mark.parametrize(
    ("password", "log"), list(zip(PASSWORDS, itertools.cycle([["-v"], ["--log-format", "json"]]), strict=False))
)
def test_no_output_of_a_camera_that_is_lost_has_its_password(
    engine: Path, tmp_path: Path, password: str, log: list[str]
) -> None:
    encoded = password if "%C3" in password else quote(password, safe="")
    token = "tok3nQ9x8Zw7"

    def script(connection: socket.socket, request: bytes) -> None:
        if b"Authorization: Basic" not in request:
            connection.sendall(UNAUTHORIZED % b'WWW-Authenticate: Basic realm="r"')
            return
        connection.sendall(MJPEG + part(picture()) + part(picture(1)))

    outputs = [tmp_path / name for name in ("events.jsonl", "scores.csv", "overlays", "line.avi")]
    options = [part for output in outputs for part in ("--output", output)]
    with peer(script) as camera:
        uri = f"{camera.uri}/{token}?key=k3yQ9x8Zw7".replace("//", f"//adm:{encoded}@")
        done = run_camera(
            engine, *log, "--source-file", "-", "--frames", "3", "--summary", tmp_path / "s.json", *options, stdin=uri
        )
        assert any(token.encode() in request for request in camera.requests)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    texts = [done.stdout, done.stderr, *(str(path) for path in written)]
    texts += [path.read_bytes().decode("latin-1") for path in written]
    assert "has stopped delivering frames" in done.stderr
    assert not any(
        secret in text for text in texts for secret in (encoded, unquote(encoded), "adm:", token, "k3yQ9x8Zw7", "cret")
    )


@pytest.mark.parametrize("password", PASSWORDS)
def test_address_that_cannot_be_used_is_refused_without_its_password(
    engine: Path, password: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """As people type it, with characters that should have been escaped; in wrong places too."""
    uri = f"rtsp://adm:{password}@127.0.0.1:1/line"
    for options in (
        ["--source", uri],
        ["--source", uri.removeprefix("rtsp://")],
        ["--source", f"rtps{uri.removeprefix('rtsp')}"],
        ["--source", "0", uri],
        ["--source", "0", f"--sorce={uri}"],
        ["--source", "0", "--votes", uri],
        ["--source", f"gst:rtspsrc location=\"{uri}\" user-pw='{password}' ! decodebin"],
    ):
        assert main(["--engine", str(engine), *options]) in (1, 2), options
        said = "".join(capfd.readouterr())
        assert not any(secret in said for secret in (password, unquote(password), "s3c", "3 c r", "cret")), said


def test_traceback_has_no_password() -> None:
    uri = "rtsp://adm:p@ss s3cret@camera/1"
    program = (
        "import click, sys; from stlm_edge.cli import run\n"
        "@click.command()\n@click.argument('source')\n"
        "def fault(source): raise RuntimeError(f'a fault of the program, about {source!r}')\n"
        "run(fault, None)"
    )
    done = subprocess.run([sys.executable, "-c", program, uri], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: a fault of the program, about 'rtsp://***@camera/1'" in done.stderr
    assert "s3cret" not in done.stderr


def test_list_of_processes_shows_no_password_of_a_source_file(engine: Path, tmp_path: Path) -> None:
    """Nor do the processes that the program starts."""
    address = tmp_path / "camera"
    with peer(lambda connection, _: time.sleep(60)) as camera:
        address.write_text(camera.uri.replace("//", "//adm:s3cret@") + "\n")
        command = [sys.executable, "-m", "runtime.camera", "--engine", str(engine), "--source-file", str(address)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while not camera.requests:
                assert process.poll() is None
                time.sleep(0.02)
            shown = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
            process.kill()
    assert any(str(address).encode() in line for line in shown)
    assert not any(b"s3cret" in line for line in shown)
