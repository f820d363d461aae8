"""The whole program with a broker or a web server that goes away, comes back or refuses it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("paho.mqtt.client")

from ..runtime.sinks.broker import Broker, Listener
from ..runtime.sinks.waiting import eventually, free_port
from .conftest import run_camera
from .line_process import running

pytestmark = pytest.mark.heavy

PARTS = ("--part-frames", "1")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running_broker = Broker(tmp_path / "broker")
    yield running_broker
    running_broker.kill()


def test_line_goes_on_while_the_broker_is_away_and_hands_over_every_part(
    engine: Path, tmp_path: Path, broker: Broker
) -> None:
    """Away at the start, killed in between, and back; it keeps who listens on its disk."""
    listener = Listener(broker.start().port, "line", qos=0)
    broker.signal(signal.SIGUSR1)
    eventually((tmp_path / "broker" / "mosquitto.db").exists)
    broker.kill()
    uri = f"mqtt://127.0.0.1:{broker.port}/line?queue={tmp_path / 'queue'}"
    events = tmp_path / "events.jsonl"

    def given() -> int:
        return events.read_text().count("part-result") if events.exists() else 0

    arguments = ["--engine", engine, "--source", "test://?fps=60&size=64x128", *PARTS]
    with running(tmp_path, "runtime.camera", *arguments, "--output", uri, "--output", events) as line:
        line.until_said("is away: ")
        line.until(lambda: given() > 20)
        broker.start()
        line.until(lambda: listener.connections == 2 and len(listener.parts()) > 30)
        broker.kill()
        before = given()
        line.until(lambda: given() > before + 20)
        broker.start()
        line.until(lambda: listener.connections == 3 and len(listener.parts()) > before + 20)
        assert line.end() == 0
    eventually(lambda: listener.status() == "offline")
    assert listener.parts() == list(range(given()))
    listener.close()


@pytest.mark.parametrize("way", ["file", "environment"])
def test_login_that_is_refused_ends_the_program_in_one_line(
    engine: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "line", "right"], check=True, capture_output=True)
    broker = Broker(tmp_path / "broker", "allow_anonymous false", f"password_file {passwords}").start()
    (tmp_path / "login").write_text("line:s3cretPassword")
    uri = f"mqtt://127.0.0.1:{broker.port}/line?queue={tmp_path}"
    if way == "file":
        uri += f"&login={tmp_path / 'login'}"
    else:
        monkeypatch.setenv("STLM_MQTT_LOGIN", "line:s3cretPassword")
    begun_s = time.monotonic()
    done = run_camera(engine, "-v", "--source", "test://?size=64x128", *PARTS, "--output", uri)
    broker.kill()
    assert done.returncode == 1 and time.monotonic() - begun_s < 30
    lines = [line for line in done.stderr.splitlines() if "refuses us" in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


def test_list_of_processes_and_logs_show_no_login(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "mqtt").write_text("line:s3cretPassword")
    (tmp_path / "hook").write_text("Authorization: Bearer s3cretToken")
    outputs = [
        f"mqtt://127.0.0.1:{free_port()}/line?queue={tmp_path}&login={tmp_path / 'mqtt'}",
        f"http://127.0.0.1:{free_port()}/hook/aB3s3cretK9x?queue={tmp_path}&login={tmp_path / 'hook'}",
    ]
    arguments = ["--engine", engine, "--source", "test://?fps=20&size=64x128", *PARTS, "--summary", tmp_path / "sum"]
    for output in outputs:
        arguments += ["--output", output]
    with running(tmp_path, "runtime.camera", "-v", *arguments) as line:
        line.until_said("does not take parts")
        shown = Path(f"/proc/{line.process.pid}/cmdline").read_bytes()
        assert line.end() == 0
    said = line.said.read_text() + line.printed.read_text() + (tmp_path / "sum").read_text()
    assert b"s3cretP" not in shown and b"s3cretT" not in shown
    assert "s3cret" not in said
    assert "they wait in" in said


def test_output_for_parts_is_refused_where_there_are_none(engine: Path, tmp_path: Path) -> None:
    for uri in (f"mqtt://127.0.0.1/line?queue={tmp_path}", f"https://127.0.0.1/hook?queue={tmp_path}"):
        done = run_camera(engine, "--source", "test://?size=64x128", "--output", uri)
        assert done.returncode == 1
        assert "is for results of parts" in done.stderr.splitlines()[-1]
