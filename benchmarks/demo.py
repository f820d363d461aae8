"""The last step of `make demo`: what came of it, in one short table.

python -m benchmarks.demo demo --json benchmarks/results/demo.json
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.cells import AREAS
from benchmarks.record import recording
from benchmarks.tables import to_text
from stlm_edge.cli import run
from stlm_edge.errors import DataError, counted
from stlm_edge.records import read_object
from stlm_edge.sidecar import Sidecar

AGAIN = "run 'make demo' from the start"
WANTED_IMAGE_AUROC = 0.95
KEPT = ("category", "threshold", "overall", "kinds", "tlm_only", "good", "defective", "missed", "false_alarms")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(folder: Path, json_path: Path | None) -> None:
    """Summarise the demo in FOLDER."""
    evaluation = _read(folder / "run" / "evaluation.json")
    summary = _read(folder / "summary.json")
    engine = folder / "plate.xml"
    if not engine.is_file():  # earlier versions inspected by the graph
        engine = folder / "plate.onnx"
    precision = Sidecar.read(engine).engine.precision
    with recording("demo", json_path) as recorder:
        for metric in AREAS:
            recorder.measure(f"all {metric}", [100 * evaluation["overall"][metric]], unit="%", better="higher")
        recorder.measure("infer p50", [summary["latency"]["infer"]["p50_ms"]], unit="ms", better="lower")
        recorder.details["evaluation"] = {name: evaluation[name] for name in KEPT if name in evaluation}
        recorder.details |= {"inspection": summary, "precision": precision}
    click.echo(to_text(recorder.record(is_complete=True), "demo"))
    truth, total = summary["truth"], summary["latency"]["total"]
    good = truth["false_alarms"] + truth["good_passed"]
    click.echo(
        f"At the threshold {evaluation['threshold']:.4f}: {counted(truth['false_alarms'], 'false alarm')} on "
        f"{counted(good, 'good frame')}. "
        f"From frame to verdict, two frames in hand: {total['p50_ms']:.1f} ms (p50), {total['p95_ms']:.1f} ms (p95)."
    )
    click.echo("\nLook at:")
    for name in ("run/evaluation.png", "inspection.mp4", "events.jsonl"):
        click.echo(f"  {folder / name}")
    found = evaluation["overall"]["image_auroc"]
    if found < WANTED_IMAGE_AUROC:
        click.echo(f"\nNot as good as it should be: image AUROC {found:.3f}, wanted {WANTED_IMAGE_AUROC}.")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, error=DataError, remedy=AGAIN)
    except FileNotFoundError:
        raise DataError(f"{path} is not there, expected what the demo has written; {AGAIN}") from None


main = partial(run, command)


if __name__ == "__main__":
    sys.exit(main())
