"""The last step of `make demo`: what came of it, in one short table.

python -m benchmarks.demo demo --json benchmarks/results/demo.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.record import Recorder, recording
from stlm_edge.cli import run
from stlm_edge.errors import DataError

WANTED_IMAGE_AUROC = 0.95
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there as JSON.")
def command(folder: Path, json_path: Path | None) -> None:
    """Summarise the demo in FOLDER."""
    evaluation = _read(folder / "run" / "evaluation.json")
    summary = _read(folder / "summary.json")
    with recording("demo", json_path) as recorder:
        _record(recorder, evaluation, summary)
    scores, truth = evaluation["overall"], summary["truth"]
    network, total = summary["latency"]["infer"], summary["latency"]["total"]
    rows = [
        ("image AUROC", f"{100 * scores['image_auroc']:.1f} %"),
        *((f"  on {kind}", f"{100 * own['image_auroc']:.1f} %") for kind, own in evaluation["kinds"].items()),
        ("pixel AUROC", f"{100 * scores['pixel_auroc']:.1f} %"),
        ("AUPRO", f"{100 * scores['aupro']:.1f} %"),
        ("threshold", f"{evaluation['threshold']:.4f}"),
        ("frames inspected", f"{summary['frames']}"),
        ("defects found", f"{truth['defects_found']}"),
        ("defects missed", f"{truth['defects_missed']}"),
        ("false alarms", f"{truth['false_alarms']} on {truth['false_alarms'] + truth['good_passed']} good frames"),
        ("network p50 / p95", f"{network['p50_ms']:.1f} / {network['p95_ms']:.1f} ms"),
        ("frame to verdict", f"{total['p50_ms']:.1f} / {total['p95_ms']:.1f} ms, two frames in hand"),
    ]
    for name, value in rows:
        click.echo(f"  {name:<20}{value}")
    click.echo("\nLook at:")
    for name in ("run/evaluation.png", "inspection.mp4", "events.jsonl"):
        click.echo(f"  {folder / name}")
    if scores["image_auroc"] < WANTED_IMAGE_AUROC:
        click.echo(
            f"\nNot as good as it should be: image AUROC {scores['image_auroc']:.3f}, wanted {WANTED_IMAGE_AUROC}."
        )


def _record(recorder: Recorder, evaluation: dict[str, Any], summary: dict[str, Any]) -> None:
    for metric in METRICS:
        recorder.measure(f"all {metric}", [100 * evaluation["overall"][metric]], unit="%", better="higher")
    recorder.measure("infer p50", [summary["latency"]["infer"]["p50_ms"]], unit="ms", better="lower")
    kept = ("category", "threshold", "overall", "kinds", "tlm_only", "good", "defective", "missed", "false_alarms")
    recorder.details["evaluation"] = {name: evaluation[name] for name in kept if name in evaluation}
    recorder.details["inspection"] = summary


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); run 'make demo' from the start") from None
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
