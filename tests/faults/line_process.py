"""The camera program as a process that something happens to while it runs."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUICK = "test://?fps=60&size=64x128"


@dataclass
class Running:
    """A program that runs.

    Attributes:
        said: where its stderr goes.
        printed: where its stdout goes, if it was not sent elsewhere.
    """

    process: subprocess.Popen[bytes]
    said: Path
    printed: Path

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(timeout=60)
        assert "Traceback" not in self.said.read_text(), self.said.read_text()
        return code

    def until(self, condition: Callable[[], Any]) -> None:
        give_up_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up_s and self.process.poll() is None, self.said.read_text()
            time.sleep(0.01)

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said.read_text())


@contextmanager
def running(folder: Path, program: str, *arguments: str | Path, **options: Any) -> Iterator[Running]:
    """A program of the toolkit, killed at the end of the block if it still runs."""
    said, printed = folder / "said", folder / "printed"
    command = [sys.executable, "-m", program, *map(str, arguments)]
    with said.open("w") as stderr, printed.open("w") as stdout:
        process = subprocess.Popen(command, **{"stdout": stdout, "stderr": stderr} | options)
    try:
        yield Running(process, said, printed)
    finally:
        process.kill()
        process.wait()


@contextmanager
def camera(folder: Path, engine: Path, *outputs: str | Path, source: str = QUICK, **options: Any) -> Iterator[Running]:
    """The camera program, writing to `outputs`."""
    arguments = ["--engine", engine, "--source", source]
    for output in outputs:
        arguments += ["--output", output]
    with running(folder, "runtime.camera", *arguments, **options) as line:
        yield line


def frames(path: Path) -> list[int]:
    """The numbers of the frames in a log or a table, compressed or not; nothing where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if ".csv" in path.name:
        return [int(row["frame"]) for row in csv.DictReader(text.splitlines())]
    return [event["frame"] for event in map(json.loads, text.splitlines()) if "frame" in event]
