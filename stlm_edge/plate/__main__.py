"""`python -m stlm_edge.plate`: pictures of the drawn part, to try the whole chain without a data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from stlm_edge.cli import run
from stlm_edge.plate import SMALLEST_SIDE


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--category", default="plate", show_default=True, help="Name of the folder below OUT.")
@click.option("--train", default=40, show_default=True, type=click.IntRange(1), help="Good parts to train on.")
@click.option("--test-good", default=12, show_default=True, type=click.IntRange(0), help="Good parts to test on.")
@click.option("--defects", default=6, show_default=True, type=click.IntRange(0), help="Defective parts of each kind.")
@click.option("--size", default=256, show_default=True, type=click.IntRange(SMALLEST_SIDE), help="Side in pixels.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same pictures.")
def command(out: Path, category: str, train: int, test_good: int, defects: int, size: int, seed: int) -> None:
    """Write pictures of a synthetic machined part with known defects to OUT, in the layout of MVTec AD."""
    from stlm_edge.plate.part import write_dataset

    write_dataset(
        out,
        train=train,
        test_good=test_good,
        test_defective_per_kind=defects,
        size=(size, size),
        seed=seed,
        category=category,
    )
    click.echo(out / category)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
