"""Programs that are run one after the other, each in a process of its own under a limit of time, whatever fails."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

_GRACE_S = 10.0  # that a program has to end by itself when its time is over


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        reason: why it was not done; what its program said last where that failed.
    """

    name: str
    status: Literal["done", "failed", "stopped", "left out"]
    reason: str | None = None
    seconds: float = 0.0
    command: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def do(name: str, command: Sequence[str], *, shown: Sequence[str], log: Path, limit_s: float) -> Outcome:
    """Run a program, what it prints going into `log`.

    Args:
        command: what is run.
        shown: what the outcome says of it.
        limit_s: it is stopped then, as Ctrl-C would, and what it has written stays.
    """
    start_s = time.monotonic()
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            code: int | None = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    seconds = round(time.monotonic() - start_s, 1)
    if code is None:
        return Outcome(name, "stopped", f"its {limit_s:.0f} s were over", seconds, tuple(shown))
    if code:
        return Outcome(name, "failed", _last_words(log, code), seconds, tuple(shown))
    return Outcome(name, "done", None, seconds, tuple(shown))


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would, so that it writes what it has; if that does not help, at once."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _last_words(log: Path, code: int) -> str:
    """The error in a log, or what else stands last in it."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = (errors or [line for line in lines if line.strip()] or ["it said nothing"])[-1]
    if code < 0:  # a signal, as the kernel's when memory is full
        return f"ended by {signal.Signals(-code).name}; {said}"
    return said
