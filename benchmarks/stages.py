"""Where the time of an engine goes on a processor, stage by stage, beside the least that it can take.

    python -m benchmarks.stages --engine stlm.xml --json stages.json

OpenVINO tells how long each operation took. The floor of an operation is the larger of its FLOPs over the processor's
peak and its bytes over the memory's bandwidth, and both are measured in the same turns, with the same library and the
same threads: a large product or convolution, whichever reaches more, and the sum of a large tensor and a number. So a
stage at its floor has nothing left to gain but by computing or moving less. An operation whose operands are still in
the cache can be faster. For a plan, `python -m export report` has the floors on named GPUs, and `benchmarks.gpu`
measures on one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from stlm_edge.cli import run
from stlm_edge.errors import EngineError

SUFFIXES = (".xml", ".onnx")


@click.command()
@click.option("--engine", required=True, type=click.Path(path_type=Path), help="An .xml or .onnx for OpenVINO.")
@click.option("--turns", default=7, show_default=True, type=click.IntRange(1), help="Turns, each with both peaks.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1), help="Pictures in a turn.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(engine: Path, turns: int, runs: int, json_path: Path | None) -> None:
    """Measure ENGINE's stages and print them beside their floors."""
    from benchmarks.openvino_profile import Profile
    from benchmarks.processor_peaks import Peaks
    from benchmarks.record import recording
    from export.tensorrt.kernels import STAGES
    from stlm_edge.sidecar import Sidecar

    if engine.suffix not in SUFFIXES:
        raise EngineError(
            f"{engine} ends in {engine.suffix or 'nothing'!r}, expected {' or '.join(SUFFIXES)}, which OpenVINO runs; "
            "for a plan: python -m export report"
        )
    sidecar = Sidecar.read(engine)
    with recording("stages", json_path) as recorder:
        profile = Profile(engine, spec=sidecar.spec, precision=sidecar.engine.precision)
        peaks = Peaks(threads=profile.threads)
        for turn in range(turns):
            profile.take_turn(runs)
            peaks.take_turn()
            click.echo(f"turn {turn + 1} of {turns}: {profile.totals_ms[-1]:.1f} ms a picture", err=True)
        stages = sorted(profile.stages(peaks), key=lambda stage: STAGES.index(stage.name))
        recorder.details |= {
            "engine": engine.name,
            "library": f"OpenVINO, {sidecar.engine.precision}, {profile.threads} threads",
            "input_size": list(sidecar.spec.input_size),
            "peak": {"gflop_s": peaks.gflop_s, "gb_s": peaks.gb_s},
            "unprofiled_ms": profile.unprofiled_ms,
            "stages": [
                {
                    "name": stage.name,
                    "measured_ms": stage.measured_ms,
                    "floor_ms": stage.floor_ms,
                    "gflop": stage.gflop,
                    "moved_mb": stage.moved_mb,
                }
                for stage in stages
            ],
        }
        recorder.measure("total", profile.totals_ms, unit="ms", better="lower")
        recorder.measure("peak", peaks.all_gflop_s, unit="GFLOP/s", better="higher")
        for stage in stages:
            recorder.measure(stage.name, profile.turns_ms(stage.name), unit="ms", better="lower")
    click.echo(f"{'stage':<22}{'ms':>10}{'floor, ms':>11}{'ratio':>8}{'GFLOP':>9}{'MB':>9}{'GFLOP/s':>9}")
    for stage in stages:
        click.echo(
            f"{stage.name:<22}{stage.measured_ms:>10.2f}{stage.floor_ms:>11.2f}"
            f"{stage.measured_ms / stage.floor_ms:>8.2f}{stage.gflop:>9.2f}{stage.moved_mb:>9.0f}"
            f"{stage.gflop / stage.measured_ms * 1e3:>9.0f}"
        )
    measured, floor = sum(stage.measured_ms for stage in stages), sum(stage.floor_ms for stage in stages)
    click.echo(f"{'all':<22}{measured:>10.2f}{floor:>11.2f}{measured / floor:>8.2f}")
    click.echo(
        f"without the profile {profile.unprofiled_ms:.1f} ms; this processor reaches {peaks.gflop_s:.0f} GFLOP/s in "
        f"float32 and {peaks.gb_s:.1f} GB/s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
