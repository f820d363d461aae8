"""What `benchmarks.loop` measures of the hand-over: from a trigger to its result, in another process.

That is a PLC: it raises Trigger by Modbus, reads the registers again and again until ResultsValid is 1, and hears the
part's message from an MQTT broker too.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loop_measures import FreeSource, pictures_of, run_line
from runtime.detector import Detector
from runtime.inspection import Inspection
from runtime.line_control import Control
from runtime.parts import PartRule
from runtime.signals import StopRequest
from runtime.sinks import FrameSink, SinkContext, open_sink
from runtime.sources.live import TriggeredSource
from stlm_edge.errors import VerificationError
from stlm_edge.spec import Size

SETTLING = 10
"""Parts at the beginning that do not count."""

_TOPIC = "stlm-edge/benchmark"
_STARTS_WITHIN_S = 20.0
_PLC = """
import json, sys, threading, time
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient

modbus, mqtt, topic, parts = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
TRIGGER, RESULTS_ACK, STATUS, COUNT = 0, 1, 16, 18
READY, ACK, RESULTS_VALID = range(3)
plc = ModbusTcpClient("127.0.0.1", port=modbus, timeout=20)
assert plc.connect()
heard, subscribed, heard_s = threading.Event(), threading.Event(), [0.0]

def hear(client, data, message):
    heard_s[0] = time.monotonic()
    heard.set()

listener = Client(CallbackAPIVersion.VERSION2)
listener.on_message = hear
listener.on_subscribe = lambda *_: subscribed.set()
if mqtt:
    listener.connect("127.0.0.1", mqtt)
    listener.loop_start()
    listener.subscribe(topic + "/part", qos=1)
    assert subscribed.wait(20)

def until(place, value):
    while plc.read_holding_registers(STATUS, count=COUNT).registers[place] != value:
        time.sleep(0.001)
    return time.monotonic()

for _ in range(parts):
    until(READY, 1)
    heard.clear()
    begun_s = time.monotonic()
    plc.write_register(TRIGGER, 1)
    valid_s = until(RESULTS_VALID, 1)
    if mqtt:
        assert heard.wait(20)
    plc.write_registers(TRIGGER, [0, 1])
    until(RESULTS_VALID, 0)
    plc.write_register(RESULTS_ACK, 0)
    print(json.dumps([1e3 * (valid_s - begun_s), 1e3 * (heard_s[0] - begun_s) if mqtt else None]), flush=True)
"""


@dataclass(frozen=True)
class HandOver:
    """Times of so many parts of one frame each, in their order.

    Attributes:
        infer_ms: the network's own.
        modbus_ms: from before the trigger is written to the registers with ResultsValid.
        mqtt_ms: from there to the message; empty where there is no mosquitto.
    """

    infer_ms: list[float]
    modbus_ms: list[float]
    mqtt_ms: list[float]


def hand_over(detector: Detector, *, parts: int, frame_size: Size) -> HandOver:
    """Trigger so many parts by Modbus, one after the other, once the first few have settled.

    Raises `VerificationError` if the PLC did not get a result for each.
    """
    times = _InferMs()
    count, stop = parts + SETTLING, StopRequest()
    with tempfile.TemporaryDirectory() as folder, _broker(Path(folder)) as broker:
        port = _free_port()
        uris = [f"modbus://127.0.0.1:{port}"]
        uris += [f"mqtt://127.0.0.1:{broker}/{_TOPIC}?queue={folder}/queue"] if broker else []
        pictures = FreeSource(pictures_of(frame_size), frames=count + 1)  # one that nobody asks for: not the end
        with TriggeredSource(pictures, name="benchmark", queue=1) as source, ThreadPoolExecutor(1) as thread:
            asked: list[Future[subprocess.CompletedProcess[str]]] = []

            def ask() -> subprocess.CompletedProcess[str]:
                command = [sys.executable, "-c", _PLC, str(port), str(broker), _TOPIC, str(count)]
                try:
                    return subprocess.run(command, check=False, capture_output=True, text=True)
                finally:
                    stop.request()
                    source.wake()

            def sinks(control: Control) -> dict[str, FrameSink]:
                context = SinkContext(engine_sha256="0" * 64, control=control, has_parts=True)
                opened = {uri: open_sink(uri, context=context) for uri in uris}
                asked.append(thread.submit(ask))
                return {"times": times, **opened}

            run_line(source, detector, sinks=sinks, rule=PartRule("software"), stop=stop)
            done = asked[0].result()
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != count:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise VerificationError(f"of {count} triggered parts {len(found)} came to the PLC ({last}), expected all")
    modbus_ms, mqtt_ms = zip(*found[SETTLING:], strict=True)
    return HandOver(times.infer_ms[SETTLING:], list(modbus_ms), list(mqtt_ms) if broker else [])


class _InferMs(FrameSink):
    """Keeps what the network took for each frame."""

    takes_pictures = False

    def __init__(self) -> None:
        self.infer_ms: list[float] = []

    def write(self, inspection: Inspection) -> None:
        if inspection.anomaly is not None:
            self.infer_ms.append(inspection.anomaly.latency.infer_ms)

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def _broker(folder: Path) -> Iterator[int]:
    """The port of a mosquitto; 0 where there is none on this machine."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        yield 0
        return
    port = _free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([program, "-c", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            _wait_for(port)
            yield port
        finally:
            running.terminate()


def _wait_for(port: int) -> None:
    end_s = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < end_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise VerificationError(f"mosquitto does not answer on port {port} within {_STARTS_WITHIN_S:g} s; try it by hand")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
