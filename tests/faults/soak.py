"""Let the camera program run for a while with all kinds of outputs, and see whether anything of it grows.

    python -m tests.faults.soak --engine demo/plate.onnx --minutes 30

Memory, descriptors and threads are looked at from outside, once the first tenth of the time is over. Exit code 1 if one
of them grew by more than it may, or the program did not end as it should.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from stlm_edge.cli import Number, run

_EVERY_S = 5.0
_MAY_GROW = {"memory_mb": 20.0, "descriptors": 2, "threads": 1}
"""Allocators and file systems breathe; what leaks shows in thousands of frames."""


@dataclass(frozen=True)
class Seen:
    """What a process has at a time."""

    memory_mb: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Seen:
        """Raises `OSError` or `ValueError` when the process has ended."""
        process = Path(f"/proc/{pid}")
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
        return cls(int(resident) / 1e3, len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())))


@click.command()
@click.option("--engine", required=True, type=click.Path(path_type=Path), help="What inspects.")
@click.option("--minutes", default=30.0, show_default=True, type=Number(min=0, min_open=True), help="How long.")
@click.option("--fps", default=30.0, show_default=True, type=Number(min=0, min_open=True), help="Of the source.")
def command(engine: Path, minutes: float, fps: float) -> int:
    """Run the camera program on synthetic parts and print what grew."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        arguments = ["--engine", engine, "--source", f"test://?fps={fps:g}&size=256x256&defect-rate=0.2"]
        for output in (
            "events.jsonl?rotate=1MB&keep=2",
            "scores.csv?rotate=1MB&keep=2",
            "overlays?limit=10MB",
            "line.avi?minutes=0.5&limit=20MB",
        ):
            arguments += ["--output", folder / output]
        arguments += ["--summary", folder / "summary.json"]
        program = [sys.executable, "-m", "runtime.camera", *map(str, arguments)]
        with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
            try:
                seen = _watch(process, duration_s=60 * minutes)
            finally:
                process.send_signal(signal.SIGTERM)
                code = process.wait(timeout=300)
        if not (folder / "summary.json").exists():
            click.echo(f"the program never ran; exit code {code}")
            return 1
        summary = json.loads((folder / "summary.json").read_text())
    return _report(seen, summary, code=code)


def _watch(process: subprocess.Popen[bytes], *, duration_s: float) -> list[Seen]:
    seen: list[Seen] = []
    start_s = time.monotonic()
    while (lasts_s := time.monotonic() - start_s) < duration_s and process.poll() is None:
        time.sleep(min(_EVERY_S, duration_s / 20))
        try:
            now = Seen.of(process.pid)
        except (OSError, ValueError):  # it has just ended
            break
        if lasts_s > duration_s / 10:
            seen.append(now)
    return seen


def _report(seen: Sequence[Seen], summary: dict[str, int], *, code: int) -> int:
    is_right = code == 0 and len(seen) > 1
    click.echo(f"frames       {summary['frames']}, {summary['dropped']} dropped; exit code {code}")
    for name, most in _MAY_GROW.items():
        values = [getattr(each, name) for each in seen] or [0]
        # Between thirds, so that a segment or a log that is just being finished does not count.
        third = max(1, len(values) // 3)
        grown = max(values[-third:]) - max(values[:third])
        is_right = is_right and grown <= most
        click.echo(f"{name:<12} {values[0]:g} → {values[-1]:g}, at most {max(values):g}; grew by {grown:g} of {most:g}")
    return int(not is_right)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
