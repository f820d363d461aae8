"""A real MQTT broker that can be killed, and a second client that listens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from .waiting import eventually, free_port

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Broker:
    """Mosquitto on this machine, in a folder of its own; kept sessions outlive it."""

    def __init__(self, folder: Path, *settings: str, listener: str = "") -> None:
        if MOSQUITTO is None:
            pytest.skip("there is no mosquitto on this machine")
        self.port = free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "per_listener_settings false",
            f"persistence true\npersistence_location {folder}/",
            "user root\nmax_queued_messages 0\nqueue_qos0_messages true\nautosave_interval 0",
            f"listener {self.port} 127.0.0.1\n{listener}",
            *(settings or ("allow_anonymous true",)),
        ]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        assert MOSQUITTO is not None
        log = (self.folder / "log").open("ab")
        with log:
            command = [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._answers)
        return self

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


class Listener:
    """Remembers all that is published below a topic; its session is kept by the broker.

    Args:
        qos: with 0 it acknowledges nothing. Of a broker that is killed with acknowledgements unread, the kernel throws
            away what it had sent.
    """

    def __init__(self, port: int, base: str, *, name: str = "listener", qos: int = 1) -> None:
        self.seen: list[tuple[str, bytes, bool]] = []
        self.at_s: list[float] = []
        self.connections = 0
        self._base = base
        self._qos = qos
        self._subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self.client.reconnect_delay_set(0.02, 0.02)
        self.client.on_message = self._on_message
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._subscribed.wait(10)

    def _on_connect(self, *_: Any) -> None:
        self.connections += 1
        self.client.subscribe(f"{self._base}/#", self._qos)

    def _on_message(self, _: Any, __: Any, message: Any) -> None:
        self.seen.append((message.topic.removeprefix(f"{self._base}/"), message.payload, message.retain))
        self.at_s.append(time.monotonic())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload, _ in list(self.seen) if topic == kind]

    def parts(self) -> list[int]:
        """Numbers as they came, those that came again left out."""
        return list(dict.fromkeys(record["part"] for record in self.of("part")))

    def status(self) -> str | None:
        return next((payload.decode() for topic, payload, _ in reversed(self.seen) if topic == "status"), None)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
