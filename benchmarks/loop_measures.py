"""What `benchmarks.loop` measures, one function each; the figures are made of what they return."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.loop_parts import FreeSource, pictures_of, run_line, timeless_detector
from benchmarks.memory import resident_mb
from runtime.backends import BackendChoice, open_engine
from runtime.detector import Detector
from stlm_edge.errors import EngineError
from stlm_edge.imaging import to_input, write_image
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import Size

SETTLING = 30
"""Frames at the beginning of a run that do not count."""

_POINTS = 20
"""How often the resident set is looked at."""


def host_times_ms(*, frame_size: Size, input_size: Size, frames: int) -> list[float]:
    """From one frame to the next, with a network that takes no time: what the host needs for a frame, all in all."""
    with timeless_detector(input_size) as detector:
        source = FreeSource(pictures_of(frame_size), frames=frames + SETTLING + 1)
        run_line(source, detector)
    return [1e3 * float(step) for step in np.diff(source.taken_s[SETTLING:])]


def throughputs(
    engine: Path, *, backend: BackendChoice, frame_size: Size, frames: int, turns: int
) -> tuple[str, list[tuple[float, float]]]:
    """Name of the backend, and frames per second of it alone and of the loop, turn by turn.

    The backend alone is given prepared pictures, one after the other; the loop takes frames and prepares them.
    """
    opened, sidecar = open_engine(engine, backend=backend)
    pictures = pictures_of(sidecar.spec.frame_size or frame_size)
    inputs = [to_input(picture, spec=sidecar.spec) for picture in pictures]
    rates = []
    with Detector(opened, sidecar=sidecar, threshold=sidecar.spec.require_threshold()) as detector:
        opened.infer(inputs[0])
        for _ in range(turns):
            start_s = time.perf_counter()
            for index in range(frames):
                opened.infer(inputs[index % len(inputs)])
            middle_s = time.perf_counter()
            run_line(FreeSource(pictures, frames=frames), detector)
            rates.append((frames / (middle_s - start_s), frames / (time.perf_counter() - middle_s)))
    return opened.name, rates


def memory_of_line_mb(*, size: Size, frames: int) -> list[float]:
    """The resident set at even distances over a run that writes an event log, the first one after it has settled.

    To be called in a process of its own. The log is rotated many times.
    """
    from runtime.sinks import SinkContext, open_sink

    # The queue before the log must be full, and the heap must have found its size.
    settled, seen = max(2000, frames // 20), []
    marks = {settled + round(point * frames / _POINTS) for point in range(_POINTS + 1)}

    def look(index: int) -> None:
        if index in marks:
            seen.append(resident_mb())

    with tempfile.TemporaryDirectory() as folder, timeless_detector(size) as detector:
        uri = f"{folder}/events.jsonl?rotate=1MB&keep=3"
        sink = open_sink(uri, context=SinkContext(engine_sha256="0" * 64))
        source = FreeSource(pictures_of(size), frames=settled + frames + 1, on_frame=look)
        run_line(source, detector, sinks={uri: sink})
    return seen


def memory_of_engine_mb(engine: Path, *, backend: str, frame_size: Size) -> dict[str, float]:
    """The resident set before an engine is opened, its library imported; after; and after some frames in the loop.

    To be called in a process of its own.

    Args:
        backend: its name, which is also its module's.
    """
    importlib.import_module(f"runtime.backends.{backend}")
    before = resident_mb()
    with Detector.open(engine, backend=cast(BackendChoice, backend)) as detector:
        opened = resident_mb()
        run_line(FreeSource(pictures_of(detector.spec.frame_size or frame_size), frames=SETTLING), detector)
        return {"before_mb": before, "opened_mb": opened, "running_mb": resident_mb()}


def opening_s(engine: Path, *, backend: str) -> float:
    """How long it takes to open an engine, its library imported and started. To be called in a process of its own."""
    with Detector.open(engine, backend=cast(BackendChoice, backend)):
        pass  # the first time starts the library too, which is not the engine's loading
    start_s = time.perf_counter()
    with Detector.open(engine, backend=cast(BackendChoice, backend)):
        return time.perf_counter() - start_s


def first_verdict_s(engine: Path, *, backend: str, frame_size: Size) -> tuple[float, float]:
    """From the command `python -m runtime.camera` on one picture until its verdict, and the network's part of that.

    Raises `EngineError` if that program fails.
    """
    size = Sidecar.read(engine).spec.frame_size or frame_size
    with tempfile.TemporaryDirectory() as folder:
        picture, events = Path(folder) / "part.png", Path(folder) / "events.jsonl"
        write_image(picture, pictures_of(size)[0])
        command = [sys.executable, "-m", "runtime.camera", "--engine", str(engine), "--backend", backend]
        start_s = time.time()
        done = subprocess.run(
            [*command, "--source", str(picture), "--output", str(events)],
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise EngineError(f"the camera program ended with exit code {done.returncode} ({said}); run it by hand")
        event = json.loads(events.read_text())
    captured_s = datetime.fromisoformat(event["time"]).timestamp()
    latency_ms = event["latency_ms"]
    return captured_s + latency_ms["total"] / 1e3 - start_s, latency_ms["infer"] / 1e3
