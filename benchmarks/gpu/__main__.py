"""All that is to be measured on an NVIDIA GPU, in one call.

    python -m benchmarks.gpu --checkpoint full1024.safetensors --graph full1024.fp16.onnx --output results/

Parts are done in the order of their importance, each in a process of its own under a limit of time, until the minutes
are over. Each leaves its record and its log at once; one that fails is written down with what it said, and the next one
begins. `gpu.json` says what became of all of them and holds their figures.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.gpu.parts import Device, Part, parts
from stlm_edge.cli import run

if TYPE_CHECKING:
    from benchmarks.record import Recorder

_SHORTEST_S = 20.0
"""No part is begun with less time left."""

_GRACE_S = 10.0
"""That a part has to end by itself when its time is over."""


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="The network to measure.")
@click.option("--graph", "graphs", multiple=True, type=click.Path(path_type=Path), help="Its ONNX file; repeatable.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder for records and logs.")
@click.option("--data", type=click.Path(path_type=Path), help="Pictures.  [drawn]")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--part", "wanted", multiple=True, help="Do only this one; repeatable.  [all]")
@click.option("--minutes", default=9.0, show_default=True, type=click.FloatRange(0.1), help="For everything.")
@click.option("--quick", is_flag=True, help="Few pictures: to see whether everything works.")
def command(
    checkpoint: Path,
    graphs: tuple[Path, ...],
    output: Path,
    data: Path | None,
    device: Device,
    wanted: tuple[str, ...],
    minutes: float,
    quick: bool,
) -> None:
    """Measure a network in all ways on this GPU, one part after the other."""
    from benchmarks.record import recording
    from stlm_edge.errors import ConfigError
    from stlm_edge.files import make_folder
    from stlm_edge.tensorrt import find_gpu

    for path in (checkpoint, *graphs):
        if not path.is_file():
            raise ConfigError(f"{path} is not a file, expected a checkpoint or an ONNX file; name one that is there")
    if device == "cuda" and find_gpu() is None:
        raise ConfigError("found no NVIDIA GPU or no driver; try the rest with --device cpu --quick")
    planned = parts(checkpoint, graphs=graphs, output=output, device=device, data=data, quick=quick)
    names = [part.name for part in planned]
    if not set(wanted) <= set(names):
        raise ConfigError(f"found --part {', '.join(wanted)}, expected some of {', '.join(names)}; choose among those")
    make_folder(output)
    end_s = time.monotonic() + 60 * minutes
    entries: list[dict[str, Any]] = []
    with recording("gpu", output / "gpu.json") as recorder:
        recorder.details |= {"device": device, "quick": quick, "parts": entries}
        for part in planned:
            if wanted and part.name not in wanted:
                continue
            entries.append(do(part, entries, output=output, left_s=end_s - time.monotonic()))
            _take_over(recorder, entries[-1])
            recorder.save()
            click.echo(_line(entries[-1]), err=True)
    for line in summary(entries):
        click.echo(line)


def do(part: Part, done: Sequence[dict[str, Any]], *, output: Path, left_s: float) -> dict[str, Any]:
    """Do a part, or say why not: its entry in the record, with `status` done, failed, stopped or left out."""
    entry: dict[str, Any] = {"name": part.name, "says": part.says, "status": "left out", "reason": part.lacks}
    entry |= {"seconds": 0.0, "command": list(part.command), "record": None}
    finished = {earlier["name"] for earlier in done if earlier["status"] == "done"}
    if part.lacks is not None:
        return entry
    if part.after is not None and part.after not in finished:
        return entry | {"reason": f"{part.after} was not done"}
    if left_s < _SHORTEST_S:
        return entry | {"reason": "no time was left"}
    record = output / f"{part.name}.json"
    record.unlink(missing_ok=True)
    command = [sys.executable, "-m", *part.command, *(("--json", str(record)) if part.writes_record else ())]
    log, limit_s, start_s = output / f"{part.name}.log", min(part.limit_s, left_s), time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            code: int | None = process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    status = "stopped" if code is None else "failed" if code else "done"
    return entry | {
        "status": status,
        "reason": f"its {limit_s:.0f} s were over" if code is None else _last_words(log) if code else None,
        "seconds": round(time.monotonic() - start_s, 1),
        "record": str(record) if record.exists() else None,
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would, so that it writes what it has; if that does not help, at once."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path) -> str:
    """The error in a log, or what else stands last in it."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or [line for line in lines if line.strip()] or ["it said nothing"])[-1]


def _take_over(recorder: Recorder, entry: dict[str, Any]) -> None:
    """Put a part's measures and contenders into the record of all of them."""
    from benchmarks.record import read

    if entry["record"] is None:
        return
    found = read(Path(entry["record"]))
    recorder.measures |= {f"{entry['name']}: {name}": measure for name, measure in found.measures.items()}
    entry["contenders"] = [
        {
            "name": contender["name"],
            "p50_ms": contender["stages"]["total"]["p50_ms"],
            "infer_ms": contender["stages"]["infer"]["p50_ms"],
            "speed_up": contender["speed_up"],
            "first_ms": contender["first_ms"],
            "gpu_mb": contender["gpu_mb"],
        }
        for contender in found.details.get("contenders", [])
    ]


def _line(entry: dict[str, Any]) -> str:
    reason = "" if entry["reason"] is None else f": {entry['reason']}"
    return f"{entry['name']:<24}{entry['status']:<10}{entry['seconds']:>7.1f} s{reason}"


def summary(entries: Sequence[dict[str, Any]]) -> list[str]:
    """For people: what was measured, and what was not and why."""
    lines = [f"{'part':<22}{'contender':<46}{'infer, ms':>11}{'total, ms':>11}{'speed-up':>10}  turn by turn"]
    for entry in entries:
        for contender in entry.get("contenders", []):
            ratio = contender["speed_up"]
            lines.append(
                f"{entry['name']:<22}{contender['name']:<46}{contender['infer_ms']:>11.3f}{contender['p50_ms']:>11.3f}"
                f"{ratio['median']:>10.2f}  {ratio['low']:.2f} to {ratio['high']:.2f}"
            )
    return [*lines, "", *map(_line, entries)]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
