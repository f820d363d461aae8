"""The last step of `make demo`: what came of it, in one short table.

python -m benchmarks.demo demo
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from stlm_edge.cli import run
from stlm_edge.errors import DataError

WANTED_IMAGE_AUROC = 0.95


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Summarise the demo in FOLDER."""
    evaluation = _read(folder / "run" / "evaluation.json")
    summary = _read(folder / "summary.json")
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
