"""MQTT with a real broker."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.event import Event
from runtime.regions import Region
from runtime.sinks import FrameSink, SinkContext, open_sink
from runtime.sinks.events import part_event
from runtime.sinks.outbox import Outbox
from stlm_edge.errors import OutputError
from stlm_edge.imaging import Image

pytest.importorskip("paho.mqtt.client")

from .broker import Broker, Listener
from .conftest import ENGINE, inspection
from .fake_line import FakeLine, part
from .waiting import eventually, free_port

pytestmark = [
    pytest.mark.heavy,
    # Of a connection that could not be encrypted, which paho leaves to Python to close.
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

SECRET = "s3cret:pass"
REGION = Region(left=4, top=5, width=6, height=7, area=30, peak=0.91234)


@contextmanager
def started(broker: Broker) -> Iterator[Broker]:
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with started(Broker(tmp_path / "broker")) as running:
        yield running


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listening = Listener(broker.port, "factory/line1")
    yield listening
    listening.close()


def mqtt(
    port: int, tmp_path: Path, options: str = "", *, line: FakeLine | None = None, scheme: str = "mqtt"
) -> FrameSink:
    uri = f"{scheme}://127.0.0.1:{port}/factory/line1?queue={tmp_path / 'queue'}{options}"
    return open_sink(uri, context=SinkContext(engine_sha256=ENGINE, control=line, has_parts=True))


def test_part_event_and_status_arrive_as_json_at_qos_1(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    with mqtt(broker.port, tmp_path) as sink:
        sink.write(inspection())
        sent = part(7, part_id="A-17", verdict="reject", worst=inspection(17, regions=(REGION,)))
        sink.write_part(sent)
        sink.write_part(part(8, verdict="missed", score=None))
        sink.write_event(Event("camera-lost", "camera 0 is gone", time.monotonic()))
        eventually(lambda: listener.of("event"))
        eventually(lambda: (sink.state, listener.status()) == ("connected", "online"))
    eventually(lambda: listener.status() == "offline")
    first, second = listener.of("part")
    run = first["run"]
    assert len(run) == 16
    expected = part_event(sent, engine_sha256=ENGINE)
    assert {**first, "time": ""} == {**expected, "time": "", "run": run}
    assert (first["part"], first["part_id"], first["part_result"]) == (7, "A-17", "reject")
    assert first["worst"]["regions"] == [{"box": [4, 5, 6, 7], "area": 30, "peak": 0.9123}]
    assert (second["part_id"], second["part_result"], second["worst"], second["run"]) == (None, "missed", None, run)
    (event,) = listener.of("event")
    assert (event["event"], event["text"], event["run"]) == ("camera-lost", "camera 0 is gone", run)


def test_status_is_retained(broker: Broker, tmp_path: Path) -> None:
    with mqtt(broker.port, tmp_path):
        late = Listener(broker.port, "factory/line1", name="late")
        eventually(lambda: late.seen)
        assert late.seen == [("status", b"online", True)]
        late.close()
    later = Listener(broker.port, "factory/line1", name="later")
    eventually(lambda: later.seen)
    assert later.seen == [("status", b"offline", True)]
    later.close()


PROGRAM = """
import os, signal, sys, time
from runtime.sinks import SinkContext, open_sink
from tests.runtime.sinks.fake_line import part
sink = open_sink(sys.argv[1], context=SinkContext(engine_sha256="ab", has_parts=True))
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    sink.write_part(part(number))
print("written", flush=True)
if sys.argv[4] == "waits":
    time.sleep(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_broker_tells_the_last_will_of_a_killed_line(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    uri = f"mqtt://127.0.0.1:{broker.port}/factory/line1?queue={tmp_path}"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, uri, "0", "1", "waits"]) as line:
        eventually(lambda: listener.parts() == [0])
        assert listener.status() == "online"
        line.kill()
    eventually(lambda: listener.status() == "offline")


def test_broker_that_is_away_at_the_start_gets_all_in_order_once_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(tmp_path / "broker")
    with mqtt(broker.port, tmp_path) as sink:
        for number in range(100):
            sink.write_part(part(number))
        assert "Connection refused" in sink.state and sink.state.endswith("100 waiting")
        assert caplog.text.count("is away") == 1
        with started(broker):
            listener = Listener(broker.port, "factory/line1")
            eventually(lambda: len(listener.parts()) == 100)
            assert listener.parts() == list(range(100))
            eventually(lambda: sink.state == "connected")
            listener.close()


def test_what_waits_outlives_the_program_also_a_killed_one(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    queue = tmp_path / "queue"
    uri = f"mqtt://127.0.0.1:{broker.port}/factory/line1?queue={queue}"
    for first in (0, 30):
        done = subprocess.run([sys.executable, "-c", PROGRAM, uri, str(first), str(first + 30), "dies"], check=False)
        assert done.returncode == -signal.SIGKILL
    with mqtt(broker.port, tmp_path) as sink:
        sink.write_part(part(60))
    with started(broker):
        listener = Listener(broker.port, "factory/line1")
        with mqtt(broker.port, tmp_path) as sink:
            sink.write_part(part(61))
            eventually(lambda: len(listener.parts()) == 62)
        assert listener.parts() == list(range(62))
        assert len({record["run"] for record in listener.of("part")}) == 4
        listener.close()


def test_what_does_not_fit_is_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(tmp_path / "broker")
    with mqtt(broker.port, tmp_path, "&limit=100KB") as sink:
        for number in range(400):
            sink.write_part(part(number))
        assert 0 < sink.lost < 400
        assert sink.state.endswith(f"{sink.lost} lost")
        assert caplog.text.count("there is no room for what waits") == 1
        with started(broker):
            listener = Listener(broker.port, "factory/line1")
            eventually(lambda: len(listener.parts()) == 400 - sink.lost)
            assert listener.parts() == list(range(400 - sink.lost))
            sink.write_part(part(400))
            eventually(lambda: listener.parts()[-1] == 400)
            (event,) = listener.of("event")
            assert event["event"] == "part-lost" and event["text"].startswith(f"lost {sink.lost} messages")
            listener.close()


def test_broker_that_hangs_holds_nobody_up(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    """It takes what the kernel holds for it and no more; then it goes on."""
    with mqtt(broker.port, tmp_path) as sink:
        broker.signal(signal.SIGSTOP)
        begun_s = time.monotonic()
        for number in range(500):
            sink.write_part(part(number))
        assert time.monotonic() - begun_s < 5
        broker.signal(signal.SIGCONT)
        eventually(lambda: len(listener.parts()) == 500)
        assert listener.parts() == list(range(500))
        assert [record["part"] for record in listener.of("part")] == list(range(500))


@pytest.mark.parametrize("kills", [100])
def test_brokers_that_are_killed_lose_nothing(tmp_path: Path, kills: int) -> None:
    """The broker keeps who listens, and is killed each time while parts come; a second client checks."""
    broker = Broker(tmp_path / "broker")
    stop = threading.Event()
    sent = 0
    with started(broker):
        listener = Listener(broker.port, "factory/line1", qos=0)
        broker.signal(signal.SIGUSR1)  # it writes down who listens
        eventually((tmp_path / "broker" / "mosquitto.db").exists)
        with mqtt(broker.port, tmp_path) as sink:

            def send() -> None:
                nonlocal sent
                while not stop.is_set():
                    sink.write_part(part(sent))
                    sent += 1
                    time.sleep(0.002)

            sender = threading.Thread(target=send)
            sender.start()
            for kill in range(kills):
                # What a broker has for somebody who is not there dies with it, which is no fault of ours.
                eventually(lambda kill=kill: listener.connections > kill)
                before = len(listener.seen)
                eventually(lambda before=before: len(listener.seen) > before + 5)
                broker.kill()
                broker.start()
            stop.set()
            sender.join()
            eventually(lambda: len(listener.parts()) == sent)
            assert sink.lost == 0
        listener.close()
    assert sent > 10 * kills
    assert listener.connections > kills
    assert listener.parts() == list(range(sent))


def test_triggers_and_recipes_reach_the_line_and_are_answered(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    line = FakeLine(judges=False)
    with mqtt(broker.port, tmp_path, line=line) as sink:
        eventually(lambda: listener.status() == "online")
        for payload in (b"", b"A-17", b'{"part_id": "B 18"}', b'{"part_id": 19}'):
            listener.client.publish("factory/line1/trigger", payload, qos=2)
        for payload in (b"bolt", b'{"recipe": 12}', b"99", b""):
            listener.client.publish("factory/line1/recipe", payload, qos=2)
        eventually(lambda: len(listener.of("event")) == 6)
        line.ready = False
        listener.client.publish("factory/line1/trigger", b"too soon", qos=1)
        eventually(lambda: len(listener.of("event")) == 7)
        eventually(lambda: sink.state == "connected")
    assert line.triggered == [None, "A-17", "B 18", "19"]
    assert line.recipes == ["bolt", "12"]
    answers = listener.of("event")
    assert [(answer["event"], answer.get("part"), answer.get("part_id")) for answer in answers] == [
        ("trigger-taken", 0, None),
        ("trigger-taken", 1, "A-17"),
        ("trigger-taken", 2, "B 18"),
        ("trigger-taken", 3, "19"),
        ("recipe-refused", None, None),
        ("recipe-refused", None, None),
        ("trigger-refused", None, "too soon"),
    ]
    assert answers[4]["text"] == "there is no recipe 99"
    assert answers[6]["text"] == "the line is not ready"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 5000, "5000 bytes"),
        (b"x" * 101, "101 characters"),
        (b'{"part": 1}', "another object"),
        (b'{"part_id": [1]}', "another object"),
        (b'{"part_id": 1', "part_id"),
    ],
)
def test_trigger_that_says_nothing_sensible_is_refused(
    broker: Broker, listener: Listener, tmp_path: Path, payload: bytes, said: str
) -> None:
    line = FakeLine(judges=False)
    with mqtt(broker.port, tmp_path, line=line):
        eventually(lambda: listener.status() == "online")
        listener.client.publish("factory/line1/trigger", payload, qos=1)
        eventually(lambda: listener.of("event"))
    (answer,) = listener.of("event")
    assert answer["event"] == "trigger-refused" and said in answer["text"]
    assert line.triggered == []


def test_retained_trigger_of_once_begins_no_part(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    listener.client.publish("factory/line1/trigger", b"old", qos=1, retain=True).wait_for_publish(5)
    line = FakeLine(judges=False)
    with mqtt(broker.port, tmp_path, line=line):
        eventually(lambda: listener.status() == "online")
        listener.client.publish("factory/line1/trigger", b"new", qos=1)
        eventually(lambda: line.triggered)
    assert line.triggered == ["new"]


def test_snapshot_shows_the_worst_frame_of_a_part_that_is_not_good(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    drawn = np.full((40, 60, 3), 200, np.uint8)
    with mqtt(broker.port, tmp_path, "&snapshot=1") as sink:
        assert sink.takes_pictures and not sink.takes_frames
        sink.write_part(part(0, worst=inspection(image=drawn)))
        sink.write_part(part(1, verdict="reject", worst=inspection(image=drawn)))
        sink.write_part(part(2, verdict="fault", score=None))
        eventually(lambda: len(listener.parts()) == 3)
    (data,) = [payload for topic, payload, _ in listener.seen if topic == "snapshot"]
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None and np.abs(shown.astype(int) - 200).max() < 3
    run = listener.of("part")[0]["run"]
    assert f'{{"run": "{run}", "part": 1, "part_id": null}}'.encode() in data[:200]
    with mqtt(broker.port, tmp_path) as plain:
        assert not plain.takes_pictures


def test_pictures_take_no_part_s_place(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    with mqtt(free_port(), tmp_path, "&snapshot=1&limit=100KB") as sink:
        for number in range(50):
            sink.write_part(part(number, verdict="reject", worst=inspection(image=noise)))
            time.sleep(0.005)
        assert sink.lost == 0
    (queue,) = (tmp_path / "queue").glob("mqtt-*.queue")
    with Outbox(queue) as outbox:
        kinds, last = [], 0
        while (message := outbox.after(last)) is not None:
            last = message.number
            kinds.append(message.kind)
    assert kinds.count("part") == 50 and 0 < kinds.count("snapshot") < 5


def test_part_does_not_wait_for_the_picture_of_the_one_before(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    drawn = threading.Event()

    def draw() -> Image:
        assert drawn.wait(10)
        return np.zeros((40, 60, 3), np.uint8)

    with mqtt(broker.port, tmp_path, "&snapshot=1") as sink:
        for number in range(10):
            sink.write_part(part(number, verdict="reject", worst=inspection(picture=draw)))
        eventually(lambda: listener.parts() == list(range(10)))
        drawn.set()
    eventually(lambda: [topic for topic, _, _ in listener.seen].count("snapshot") == 3)


def with_login(tmp_path: Path) -> Broker:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "line", SECRET], check=True, capture_output=True)
    return Broker(tmp_path / "broker", "allow_anonymous false", f"password_file {passwords}")


@pytest.mark.parametrize("login", ["", "line:wrong-s3cret", "nobody:s3cret:pass"])
def test_broker_that_refuses_the_login_is_one_line(tmp_path: Path, login: str) -> None:
    file = tmp_path / "login"
    file.write_text(login)
    with started(with_login(tmp_path)) as broker, pytest.raises(OutputError) as raised:
        mqtt(broker.port, tmp_path, f"&login={file}" if login else "")
    line = str(raised.value)
    assert "refuses us" in line and "login=FILE or STLM_MQTT_LOGIN" in line and "s3cret" not in line


@pytest.mark.parametrize("way", ["file", "environment", "user in the address"])
def test_login_comes_by_file_or_environment(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from stlm_edge.cli import TextLine

    with started(with_login(tmp_path)) as broker:
        uri = f"mqtt://{'line@' if way == 'user in the address' else ''}127.0.0.1:{broker.port}/a?queue={tmp_path}"
        if way == "environment":
            monkeypatch.setenv("STLM_MQTT_LOGIN", f"line:{SECRET}")
        else:
            file = tmp_path / "login"
            file.write_text(f"{SECRET if way == 'user in the address' else f'line:{SECRET}'}\nsecond line")
            uri += f"&login={file}"
        with open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True)) as sink:
            assert sink.state == "connected"
    record = logging.LogRecord("runtime", logging.INFO, "", 0, f"said {SECRET}", None, None)
    assert TextLine("%(message)s").format(record) == "said ***"


def certificates(folder: Path) -> None:
    """An authority, the broker's certificate for 127.0.0.1 and one of a line, and another authority."""
    folder.mkdir()
    extension = folder / "ext"
    extension.write_text("subjectAltName=IP:127.0.0.1")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    for name in ("broker", "line"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-extfile", "ext"),
        )
    openssl("ec", "-in", "line.key", "-aes128", "-passout", "pass:x", "-out", "locked.key")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    certificates(tmp_path / "keys")
    return tmp_path / "keys"


def encrypted(tmp_path: Path, keys: Path, *, more: str = "") -> Broker:
    listener = f"cafile {keys}/ca.pem\ncertfile {keys}/broker.pem\nkeyfile {keys}/broker.key\n{more}"
    return Broker(tmp_path / "broker", listener=listener)


def test_encrypted_connection_with_a_certificate_of_our_own(tmp_path: Path, keys: Path) -> None:
    with started(encrypted(tmp_path, keys, more="require_certificate true")) as broker:
        options = f"&ca={keys}/ca.pem&cert={keys}/line.pem&key={keys}/line.key"
        with mqtt(broker.port, tmp_path, options, scheme="mqtts") as sink:
            for number in range(100):
                sink.write_part(part(number))
            eventually(lambda: sink.state == "connected")
        with mqtt(broker.port, tmp_path, f"&ca={keys}/ca.pem", scheme="mqtts") as sink:
            assert "cert=, key=" in sink.state


def test_certificate_that_is_not_trusted_is_one_line(tmp_path: Path, keys: Path) -> None:
    with started(encrypted(tmp_path, keys)) as broker:
        for options in ("", f"&ca={keys}/other.pem"):
            with pytest.raises(OutputError, match=r"certificate is not trusted .* ca=FILE"):
                mqtt(broker.port, tmp_path, options, scheme="mqtts")
        with mqtt(broker.port, tmp_path) as sink:
            assert "mqtts://" in sink.state


def test_encryption_with_a_broker_that_knows_none_is_no_hang(broker: Broker, tmp_path: Path) -> None:
    try:
        with mqtt(broker.port, tmp_path, scheme="mqtts") as sink:
            assert sink.state.startswith("away")
    except OutputError as error:
        assert "8883" in str(error)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("&ca={keys}/gone.pem", r"ca= of .* \(No such file"),
        ("&ca={keys}/ext", "ca= of .* expected certificates"),
        ("&cert={keys}/line.pem&key={keys}/locked.key", "without a password"),
        ("&cert={keys}/line.pem&key={keys}/ca.key", "cert= of .* expected a certificate"),
        ("&key={keys}/line.key", "without cert="),
    ],
)
def test_certificate_that_cannot_be_used_is_one_line(tmp_path: Path, keys: Path, options: str, said: str) -> None:
    with pytest.raises(OutputError, match=said):
        mqtt(1, tmp_path, options.format(keys=keys), scheme="mqtts")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("mqtt://broker", "has no topic"),
        ("mqtt://broker/", "has no topic"),
        ("mqtt://broker/a/%23", "wildcards"),
        ("mqtt://broker/a/#", "wildcards"),
        ("mqtt://broker:port/a", "is not an address"),
        ("mqtt:///a", "is not an address"),
        ("mqtt://user:s3cret@broker/a", "list of processes"),
        ("mqtt://broker/a?qos=2", "known options are login, ca, cert, key, queue, limit, snapshot, client-id"),
        ("mqtt://broker/a?ca=/x", "use mqtts://"),
        ("mqtt://broker/a?login=/gone", "login= of mqtt://broker:1883/a: /gone cannot be read"),
        ("mqtt://broker/a?limit=5", "limit is '5', expected a size"),
    ],
)
def test_address_that_cannot_be_used_is_one_line(uri: str, said: str) -> None:
    with pytest.raises(OutputError) as raised:
        open_sink(uri, context=SinkContext(engine_sha256=ENGINE, has_parts=True))
    assert said in str(raised.value) and "s3cret" not in str(raised.value)


def test_ends_at_once_while_the_broker_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = mqtt(free_port(), tmp_path)
    sink.write_part(part())
    begun_s = time.monotonic()
    sink.close()
    assert time.monotonic() - begun_s < 1
    assert "has not taken 1 messages; they wait in" in caplog.text


def test_host_that_takes_connections_and_says_nothing_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.sinks.mqtt_connection._ANSWERS_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, mqtt(silent.getsockname()[1], tmp_path) as sink:
        assert "does not answer" in sink.state


@pytest.mark.alone
def test_part_leaves_at_once(broker: Broker, listener: Listener, tmp_path: Path) -> None:
    """The fastest of many, since machines are shared; with Nagle's algorithm or a sleep, none would be so fast."""
    took_ms = []
    with mqtt(broker.port, tmp_path) as sink:
        eventually(lambda: listener.status() == "online")
        for number in range(50):
            begun_s = time.monotonic()
            sink.write_part(part(number))
            eventually(lambda number=number: listener.parts()[-1:] == [number])
            took_ms.append(1e3 * (listener.at_s[-1] - begun_s))
    assert sorted(took_ms)[10] < 5


def test_login_that_leaves_the_machine_unencrypted_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STLM_MQTT_LOGIN", "line:s3cretPassword")
    monkeypatch.setattr("runtime.sinks.mqtt_connection._ANSWERS_WITHIN_S", 0.2)
    context = SinkContext(engine_sha256=ENGINE, has_parts=True)
    with open_sink(f"mqtt://192.0.2.1/line?queue={tmp_path}", context=context) as sink:  # of no network (RFC 5737)
        assert sink.state.startswith("away")
    assert "mqtt://192.0.2.1:1883/line is sent its login unencrypted" in caplog.text
    assert "s3cret" not in caplog.text
