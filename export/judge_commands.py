"""`python -m export verify`, `sensitivity` and `report`: what tells about an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from export.options import PATH

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("engine", type=PATH)
@click.option("--reference", required=True, type=PATH, help="The checkpoint, or the float32 .onnx file.")
@click.option("--data", required=True, type=PATH, help="Data set, or folder tree of pictures; labels are used.")
@click.option("--category", help="Folder below --data.")
@click.option("--images", type=click.IntRange(min=1), help="Take at most so many pictures.  [default: all]")
@click.option("--picture", type=PATH, help="Write a sheet of the worst cases here, .png or .jpg.")
@click.option("--json", "json_file", type=PATH, help="Write all figures here.")
def verify(
    engine: Path,
    reference: Path,
    data: Path,
    category: str | None,
    images: int | None,
    picture: Path | None,
    json_file: Path | None,
) -> None:
    """Compare ENGINE with its network, and verify it in its sidecar or not."""
    from export.gate.verify import require_verified
    from export.gate.verify import verify as run_gate

    gate = run_gate(
        engine,
        reference=reference,
        data=data,
        category=category,
        images=images,
        picture=picture,
        json_file=json_file,
    )
    require_verified(engine, gate)
    click.echo(f"{engine} is verified")


@click.command()
@click.argument("source", metavar="CHECKPOINT_OR_ONNX", type=PATH)
@click.option("--data", required=True, type=PATH, help="Folder of good pictures to calibrate on.")
@click.option("--test", type=PATH, help="Folder of pictures to measure the errors on.  [default: those of --data]")
@click.option("--count", default=64, show_default=True, type=click.IntRange(1), help="Calibrate on so many at most.")
@click.option("--seed", default=0, show_default=True, help="Seed of the choice of calibration pictures.")
@click.option("--images", default=32, show_default=True, type=click.IntRange(2), help="Measure on so many at most.")
def sensitivity(source: Path, data: Path, test: Path | None, count: int, seed: int, images: int) -> None:
    """Say what INT8 does to the answers, one layer class at a time."""
    from export.precision.sensitivity import sensitivity_table, table

    rows, calibration = sensitivity_table(source, data=data, test=test, count=count, seed=seed, images=images)
    click.echo(f"errors against FP32, scales from {calibration.images} good pictures, seed {calibration.seed}")
    click.echo(table(rows))


@click.command()
@click.argument("plan", type=PATH)
@click.option(
    "--gpu",
    multiple=True,
    help="Name, or your own as name=tflops16:tflops8:tflops32:gb_s; repeatable.  [default: all that have names]",
)
@click.option("--launch-us", default=0.0, type=click.FloatRange(min=0), help="Cost of a launch, told separately.")
@click.option("--json", "json_path", type=PATH, help="Also write the report here, for machines.")
@click.option("--output", "-o", type=PATH, help="Also draw it, as .png.")
def report(plan: Path, gpu: tuple[str, ...], launch_us: float, json_path: Path | None, output: Path | None) -> None:
    """Tell what the kernels of PLAN move and compute, and how fast it can be at best; needs no GPU."""
    from export.tensorrt.report import report_plan

    click.echo(report_plan(plan, gpus=gpu, launch_us=launch_us, json_path=json_path, picture=output))
