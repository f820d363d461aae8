"""The bar for a trained model: Gabor filters and nearest neighbours, and models beside it, with 95 % intervals.

    python -m benchmarks.gabor_knn --data mvtec --category bottle
    python -m benchmarks.gabor_knn --data tiles --tiles tiles/tiles.csv \
        --checkpoint runs/seed0/model.safetensors --checkpoint runs/seed1/model.safetensors

Several checkpoints are taken for seeds of one recipe: their mean is given with its interval and their standard
deviation. The last rows are what the recipe gains over the bar, with the interval of that difference: both methods see
the same pictures, so the difference is known better than either figure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.record import recording
from stlm_edge.cli import run

if TYPE_CHECKING:
    from benchmarks.comparison import Comparison
    from benchmarks.intervals import Judged
    from benchmarks.record import Recorder
    from stlm_edge.datasets import Category

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--data", required=True, type=FOLDER, help="Data set in MVTec AD's layout.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option(
    "--tiles", type=FOLDER, help="CSV with columns file, tile: pictures of one tile belong together.  [default: alone]"
)
@click.option("--checkpoint", "checkpoints", multiple=True, type=FOLDER, help="A trained model to compare; repeatable.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(100), help="Draws of the bootstrap.")
@click.option("--seed", default=0, show_default=True, help="Of the draws and of the patches that are remembered.")
@click.option("--json", "json_path", type=FOLDER, help="Write the figures there as JSON.")
def command(
    data: Path,
    category: str | None,
    tiles: Path | None,
    checkpoints: tuple[Path, ...],
    resamples: int,
    seed: int,
    json_path: Path | None,
) -> None:
    """Measure the bar, and trained models beside it, at the pictures' own resolution."""
    from benchmarks.comparison import compare, table
    from benchmarks.groups import groups_of
    from benchmarks.intervals import resample
    from stlm_edge.datasets import load_category

    loaded = load_category(data, category)
    root = data if category is None else data / category
    groups = groups_of([sample.path for sample in loaded.test], root=root, tiles=tiles)
    started = time.process_time()
    with recording("gabor_knn", json_path) as recorder:
        bar = resample(judge_by_gabor(loaded, groups, seed=seed), resamples=resamples, seed=seed)
        cpu_s = time.process_time() - started
        models = [
            resample(judge_by_model(path, loaded, groups), resamples=resamples, seed=seed) for path in checkpoints
        ]
        comparison = compare(bar, models)
        _record_all(recorder, comparison)
        recorder.details |= {
            "category": loaded.name,
            "models": [_settings(path) for path in checkpoints],
            "resamples": resamples,
            "seed": seed,
            "bar_cpu_s": round(cpu_s, 1),
            **comparison.to_dict(),
        }
    click.echo(table(comparison))
    click.echo(f"the bar took {cpu_s:.0f} CPU seconds, {comparison.largest_bin_error:.2g} is the most that bins cost")


def judge_by_gabor(category: Category, groups: Sequence[str], *, seed: int) -> list[Judged]:
    """The bar's verdicts on the test pictures. Raises `ImageError`."""
    from benchmarks.gabor import GaborMemory
    from benchmarks.intervals import Judged
    from stlm_edge.datasets import read_truth
    from stlm_edge.imaging import read_image

    memory = GaborMemory.of([sample.path for sample in category.train], seed=seed)
    judged = []
    for sample, group in zip(category.test, groups, strict=True):
        image = read_image(sample.path)
        mask = read_truth(sample, size=(image.shape[0], image.shape[1]))
        anomaly_map, score = memory.inspect(image)
        judged.append(Judged(sample.label, group, anomaly_map, mask, score))
    return judged


def judge_by_model(checkpoint: Path, category: Category, groups: Sequence[str]) -> list[Judged]:
    """A trained model's verdicts on the test pictures. Raises `StlmError` in the words of whatever is wrong."""
    from benchmarks.intervals import Judged
    from stlm_edge.network.checkpoint import load
    from stlm_edge.network.inference import InferencePath
    from train.evaluate import inspect

    loaded = load(checkpoint)
    results = inspect(InferencePath(loaded.network, loaded.spec), category.test)
    return [
        Judged(result.sample.label, group, result.anomaly_map, result.mask, result.answer.score)
        for result, group in zip(results, groups, strict=True)
    ]


def _record_all(recorder: Recorder, comparison: Comparison) -> None:
    """The figures over all kinds of defect, but for what the models gain: that is their difference."""
    from benchmarks.comparison import GAIN
    from benchmarks.intervals import ALL

    for row in comparison.rows:
        if row.kind == ALL and row.method != GAIN:
            for metric, estimate in row.estimates.items():
                recorder.measure(f"{row.method} {metric}", [100 * estimate.value], unit="%", better="higher")


def _settings(checkpoint: Path) -> dict[str, Any]:
    """What a model was trained with."""
    from stlm_edge.network.checkpoint import load

    return load(checkpoint).config


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
