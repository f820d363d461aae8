"""Our network beside what people would use instead: accuracy, latency, size, on the same pictures.

    python -m benchmarks.alternatives --data mvtec --category bottle --textures dtd \
        --checkpoint runs/bottle/model.safetensors --engine bottle.xml

The methods are anomalib's, which wants an environment of its own; without it the program says how to make one. Each is
trained on the good pictures, for `--minutes` at most, with anomalib's steps, losses and optimisers; its row tells how
far it came. All are judged alike, by `stlm_edge.metrics` at the pictures' own resolution, and then timed in turns, one
picture at a time, from its pixels to map and score. With `--models` trained models are kept, and taken if they are
there.

A method that fails says so in its row and does not stop the others; the record is then marked as incomplete, and the
exit code is 1.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.alternatives.methods import BACKBONES, METHODS, Backbone
from benchmarks.record import recording
from benchmarks.turns import Schedule
from stlm_edge.cli import run
from stlm_edge.errors import ConfigError, TrainingError

FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--data", required=True, type=FOLDER, help="Data set, in any layout that 'train fit' knows.")
@click.option("--category", help="Folder below --data; without it --data is the category itself.")
@click.option(
    "--method",
    "names",
    multiple=True,
    default=tuple(METHODS),
    type=click.Choice(tuple(METHODS)),
    help="What to train; repeatable.  [default: all]",
)
@click.option(
    "--backbone",
    default="published",
    show_default=True,
    type=click.Choice(BACKBONES),
    help="What methods start from: anomalib's defaults with the weights that timm and the authors publish; "
    "EfficientNet-Lite0 with ImageNet weights from a package, where a method can take it; or random weights.",
)
@click.option("--textures", type=FOLDER, help="Pictures of other things, such as DTD, for efficientad and draem.")
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Per method.")
@click.option(
    "--coreset",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of all patches that patchcore remembers; choosing them takes hours on a slow machine.",
)
@click.option("--image-size", default=256, show_default=True, type=click.IntRange(64), help="Side of their input.")
@click.option("--seed", default=0, show_default=True, help="Of the trainings.")
@click.option("--models", type=FOLDER, help="Keep trained models there, and take those that are there.")
@click.option("--checkpoint", type=FOLDER, help="Our network, as trained, to stand beside them.")
@click.option("--engine", type=FOLDER, help="Our network, as deployed, to stand beside them.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(1), help="Turns of each.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Pictures that count in a turn.")
@click.option("--json", "json_path", type=FOLDER, help="Write the figures there as JSON.")
def command(
    data: Path,
    category: str | None,
    names: tuple[str, ...],
    backbone: Backbone,
    textures: Path | None,
    minutes: float,
    coreset: float,
    image_size: int,
    seed: int,
    models: Path | None,
    checkpoint: Path | None,
    engine: Path | None,
    turns: int,
    runs: int,
    json_path: Path | None,
) -> None:
    """Train, judge and time the methods on one category, and our network beside them."""
    from benchmarks.alternatives.building import require_anomalib
    from benchmarks.alternatives.comparing import Comparison, Recipe, require_both_kinds, require_kept_fit
    from benchmarks.alternatives.lite0 import weights_file
    from benchmarks.alternatives.table import table
    from stlm_edge.datasets import load_category, texture_paths
    from stlm_edge.files import make_folder

    methods = [METHODS[name] for name in dict.fromkeys(names)]
    loaded = load_category(data, category)
    require_both_kinds(loaded)
    if backbone == "efficientnet-lite0":
        weights_file()
    needing = [method.name for method in methods if method.needs_textures]
    if needing and textures is None:
        raise ConfigError(
            f"{' and '.join(needing)} train with pictures of other things; give --textures, such as DTD's folder, or "
            "name other methods with --method"
        )
    if textures is not None:
        texture_paths(textures)
    require_anomalib()
    with tempfile.TemporaryDirectory() as scratch, recording("alternatives", json_path) as recorder:
        recipe = Recipe(backbone, (image_size, image_size), textures, minutes, coreset, seed, models or Path(scratch))
        make_folder(recipe.models)
        require_kept_fit(methods, loaded, recipe)
        recorder.details["data"] = (
            f"{loaded.name}: {len(loaded.train)} good pictures to train, {len(loaded.test)} to test"
        )
        comparison = Comparison(loaded, recorder)
        comparison.add_ours(checkpoint, engine)
        for method in methods:
            comparison.add_method(method, recipe)
        comparison.time(Schedule(turns=turns, runs=runs))
        click.echo(table(comparison.rows))
        if comparison.failed:
            raise TrainingError(
                f"{' and '.join(comparison.failed)} failed, for the reasons that stand in their rows; name the others "
                "with --method, or remove the causes"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
