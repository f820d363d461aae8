"""How many training pictures a second the loader makes, alone, without a network that would wait for them.

    python -m benchmarks.loader --data mvtec --category bottle --textures dtd/images --workers 0 --workers 4

Beside it, with Perlin pseudo anomalies and a folder of textures, the obvious way in one process (see
`benchmarks.authors_loader`). All take turns, some pictures each, so that whatever else the machine does hits all of
them alike; read the ratios first. What workers have made ahead while others had their turn does not count.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path
from typing import Any

import click

from benchmarks.environment import cores
from benchmarks.record import recording
from stlm_edge.cli import run

STRAIGHTFORWARD = "straightforward"
FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--data", required=True, type=FOLDER, help="As for training.")
@click.option("--category", help="Folder below --data.")
@click.option("--textures", type=FOLDER, help="Folder tree of textures; without it procedural ones.")
@click.option("--size", default=1024, show_default=True, type=click.IntRange(32), help="Side of the pictures.")
@click.option("--pseudo-anomalies", default="perlin", show_default=True, help="Kinds, joined with +.")
@click.option("--workers", multiple=True, default=(0, 1, 2, 4), show_default=True, type=click.IntRange(0))
@click.option("--batch-size", default=2, show_default=True, type=click.IntRange(1))
@click.option("--turns", default=4, show_default=True, type=click.IntRange(1), help="Of each.")
@click.option("--turn", default=30, show_default=True, type=click.IntRange(1), help="Batches of a turn.")
@click.option("--json", "json_path", type=FOLDER, help="Write the figures there as JSON.")
def command(
    data: Path,
    category: str | None,
    textures: Path | None,
    size: int,
    pseudo_anomalies: str,
    workers: tuple[int, ...],
    batch_size: int,
    turns: int,
    turn: int,
    json_path: Path | None,
) -> None:
    """Measure the loader for each number of workers, in pictures per second."""
    from benchmarks.authors_loader import batches as straightforward
    from stlm_edge.datasets import load_category, texture_paths
    from train.config import TrainConfig
    from train.data import Batches, load_images
    from train.pseudo_anomalies.choice import PseudoAnomalies
    from train.pseudo_anomalies.textures import texture_source
    from train.workers import PREFETCHED

    config = TrainConfig(image_size=(size, size), pseudo_anomalies=pseudo_anomalies, batch_size=batch_size)
    samples = load_category(data, category).train
    images = load_images(samples, size=config.image_size, skip_corrupt=False)
    drawer = PseudoAnomalies(
        pseudo_anomalies.split("+"),
        images=images,
        textures=texture_source(textures),
        probability=config.anomaly_probability,
        largest_beta=config.largest_beta,
    )
    with recording("loader", json_path) as recorder, ExitStack() as stack:
        sources: dict[str, tuple[Iterator[Any], int]] = {}
        if textures is not None and pseudo_anomalies == "perlin":
            source = straightforward(
                [sample.path for sample in samples],
                texture_paths(textures),
                size=config.image_size,
                batch_size=batch_size,
                probability=config.anomaly_probability,
                seed=config.seed,
            )
            sources[STRAIGHTFORWARD] = (source, 1)
        for number in sorted(set(workers)):
            loader = Batches(images, pseudo_anomalies=drawer, batch_size=batch_size, seed=config.seed, workers=number)
            stack.enter_context(loader)
            name = f"{number} worker{'' if number == 1 else 's'}"
            sources[name] = (chain.from_iterable(map(loader.epoch, count(1))), 1 + 2 * PREFETCHED * number)
        seconds = _measure(sources, turns=turns, turn=turn)
        rates = {name: turns * turn * batch_size / sum(spent) for name, spent in seconds.items()}
        for name, spent in seconds.items():
            recorder.measure(name, [turn * batch_size / s for s in spent], unit="pictures/s", better="higher")
        recorder.details |= {
            "size": size,
            "batch_size": batch_size,
            "pseudo_anomalies": pseudo_anomalies,
            "pictures": len(images),
            "pictures_per_s": rates,
        }
    base = next(iter(rates))
    click.echo(
        f"{pseudo_anomalies} into {len(images)} pictures at {size} x {size}, batches of {batch_size}, "
        f"{turns} turns of {turn} batches, {cores()} cores"
    )
    click.echo(f"{'loader':<18}{'pictures/s':>12}{'ratio':>8}")
    for name, rate in rates.items():
        click.echo(f"{name:<18}{rate:>12.1f}{rate / rates[base]:>8.2f}")


def _measure(sources: dict[str, tuple[Iterator[Any], int]], *, turns: int, turn: int) -> dict[str, list[float]]:
    """Seconds of each source's turns; with each source comes how many batches at a turn's beginning don't count."""
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(turns):
        for name, (source, settling) in sources.items():
            for _ in range(settling):
                next(source)
            start = time.perf_counter()
            for _ in range(turn):
                next(source)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
