"""How long an engine takes for one frame, on this machine.

    python -m benchmarks.latency --engine stlm.onnx --backend openvino --backend onnxruntime

Backends take turns, some frames each, so that whatever else the machine does hits all of them alike; read the ratios
first and the milliseconds second. Not frame by frame: the threads of one library go on spinning for a while after its
work is done, and the other would pay for them. The first frames of each turn do not count.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.environment import machine
from runtime.backends import BACKEND_CHOICES, BackendChoice
from stlm_edge.cli import run

TURN = 20
"""Frames of one backend in a row."""
SETTLING = 5
"""Frames at the beginning of a turn that do not count."""

PAPER_MS = 20.0
"""The paper's inference time on an RTX 3090 at 1024 x 1024 (table 1)."""


@click.command()
@click.option("--engine", required=True, type=click.Path(path_type=Path), help="The .onnx file, its .json beside it.")
@click.option(
    "--backend", "backends", multiple=True, default=("auto",), show_default=True, type=click.Choice(BACKEND_CHOICES)
)
@click.option("--frames", default=100, show_default=True, type=click.IntRange(1), help="Frames after the warm-up.")
@click.option("--frame-size", nargs=2, default=(1080, 1920), show_default=True, type=click.IntRange(64))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(
    engine: Path, backends: tuple[BackendChoice, ...], frames: int, frame_size: tuple[int, int], json_path: Path | None
) -> None:
    """Measure ENGINE: prepare a frame on the host, infer, decide. p50 and p95 in milliseconds."""
    import numpy as np

    from runtime.detector import Detector
    from stlm_edge.files import write_text
    from stlm_edge.synthetic import render_part

    pool = [render_part(np.random.default_rng(index), size=frame_size, defect=None).image for index in range(4)]
    with ExitStack() as stack:
        detectors = {name: stack.enter_context(Detector.open(engine, backend=name)) for name in backends}
        times_ms: dict[str, list[tuple[float, float]]] = {name: [] for name in detectors}
        for first in range(0, frames, TURN):
            for name, detector in detectors.items():
                for index in range(-SETTLING, min(TURN, frames - first)):
                    latency = detector.inspect(pool[index % len(pool)]).latency
                    if index >= 0:
                        times_ms[name].append((latency.infer_ms, latency.total_ms))
        size = next(iter(detectors.values())).spec.input_size
    results = {
        str(name): {
            f"{stage}_{quantile}_ms": float(np.percentile([entry[column] for entry in entries], float(quantile[1:])))
            for column, stage in enumerate(("infer", "total"))
            for quantile in ("p50", "p95")
        }
        for name, entries in times_ms.items()
    }
    base = next(iter(results.values()))["total_p50_ms"]
    click.echo(f"network {size[0]} x {size[1]}, frames {frame_size[0]} x {frame_size[1]}, {frames} each, taking turns")
    click.echo(f"{'backend':<14}{'infer p50':>11}{'p95':>9}{'total p50':>11}{'p95':>9}{'ratio':>8}")
    for label, values in results.items():
        click.echo(
            f"{label:<14}{values['infer_p50_ms']:>11.2f}{values['infer_p95_ms']:>9.2f}"
            f"{values['total_p50_ms']:>11.2f}{values['total_p95_ms']:>9.2f}{values['total_p50_ms'] / base:>8.2f}"
        )
    click.echo(
        f"for orientation: the paper has {PAPER_MS:.0f} ms on an RTX 3090 at 1024 x 1024, another device and size"
    )
    if json_path is not None:
        record = {
            "command": "python -m benchmarks.latency",
            "machine": machine(),
            "input_size": size,
            "frame_size": frame_size,
            "frames": frames,
            "backends": results,
        }
        write_text(json_path, json.dumps(record, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
