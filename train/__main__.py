"""`python -m train`: fit a model on good pictures, evaluate it, choose its threshold, fetch weights and data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stlm_edge.cli import run
from stlm_edge.errors import ConfigError, DataError, WeightsError
from stlm_edge.retrain_command import retrain
from stlm_edge.spec import Size
from stlm_edge.threshold_command import threshold
from train.config import TrainConfig, described_presets
from train.options import executor_options, training_options
from train.overrides import with_overrides
from train.values import SeedCountType, SeedsType, SizeType

if TYPE_CHECKING:
    from train.paper.grid import Failure

FOLDER = click.Path(path_type=Path)

data_option = click.option(
    "--data",
    required=True,
    type=FOLDER,
    help="Data set in the layout of MVTec AD, VisA or DAGM, or a plain folder of good pictures.",
)
category_option = click.option("--category", help="Folder below --data; without it --data is the category itself.")
textures_option = click.option(
    "--textures", type=FOLDER, help="Folder tree of pictures to cut pseudo anomalies from, such as DTD."
)


def _check_metric_size(_: click.Context, __: click.Parameter, size: Size | None) -> Size | None:
    if size is not None and not all(1 <= side <= 8192 for side in size):
        raise click.UsageError(f"--metric-size is {size[0]}x{size[1]}, expected 1 to 8192 each way")
    return size


metric_size_option = click.option(
    "--metric-size",
    type=SizeType(),
    callback=_check_metric_size,
    help="Measure figures over pixels at this size, 1024 as in the authors' code.  [default: each picture's own]",
)
preset_option = click.option(
    "--preset",
    default="paper",
    show_default=True,
    help="paper, cpu, one of the paper's ablations ('stlm presets'), or a YAML file of settings.",
)

dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Check all that would be checked, list what would be done with its steps, FLOPs, memory and hours on named "
    "GPUs, and write nothing.",
)


@click.group()
def command() -> None:
    """Train STLM on good pictures only."""


@command.command()
@data_option
@category_option
@textures_option
@click.option("--output", "-o", type=FOLDER, help="Folder of the run.  [default: runs/CATEGORY]")
@click.option(
    "--seeds",
    type=SeedCountType(),
    help="Train so many times, with the seeds 0, 1, …, or with those given as 0,3,7, into OUTPUT/seed-SEED; the same "
    "command goes on where it was stopped.",
)
@dry_run_option
@preset_option
@training_options
def fit(
    data: Path,
    category: str | None,
    textures: Path | None,
    output: Path | None,
    seeds: tuple[int, ...] | None,
    dry_run: bool,
    preset: str,
    **settings: Any,
) -> None:
    """Train a model and choose its threshold.

    Settings below override the preset. Ctrl-C ends the training early and keeps what was learnt.
    """
    from train.fit import fit as run_fit

    if seeds is not None and settings["seed"] is not None:
        raise click.UsageError("--seed is one seed and --seeds are several; give one of them")
    config = _config(preset, settings)
    if dry_run:
        _rehearse(config, seeds, data=data, category=category, textures=textures, output=output)
        return
    if seeds is not None:
        from train.seeds import fit_seeds

        for checkpoint in fit_seeds(config, seeds, data=data, category=category, textures=textures, output=output):
            click.echo(checkpoint)
        return
    _tell(run_fit(config, data=data, category=category, textures=textures, output=output))


def _rehearse(config: TrainConfig, seeds: tuple[int, ...] | None, **where: Any) -> None:
    from train.distributed import this_process
    from train.rehearsal import Rehearsals, told
    from train.seeds import rehearse_seeds

    rehearsed = [Rehearsals().rehearse(config, **where)] if seeds is None else rehearse_seeds(config, seeds, **where)
    if this_process().is_main:
        click.echo(told(rehearsed) if rehearsed else "nothing is left to train")


def _tell(checkpoint: Path) -> None:
    """Print where a training's checkpoint is. Raises `KeyboardInterrupt` where Ctrl-C ended the training early."""
    from train.distributed import this_process
    from train.fit import STATE_NAME

    if not this_process().is_main:  # the others do not know whether the main one is done with the state
        return
    click.echo(checkpoint)
    if (checkpoint.parent / STATE_NAME).exists():
        raise KeyboardInterrupt


@command.command()
@click.argument("run", type=FOLDER)
@click.option("--data", type=FOLDER, help="What was given as --data, if it has moved.")
@click.option("--textures", type=FOLDER, help="The textures, if they have moved.")
@click.option("--teacher-weights", type=FOLDER, help="The teacher's weights, if they have moved.")
def resume(run: Path, data: Path | None, textures: Path | None, teacher_weights: Path | None) -> None:
    """Go on with the training in the folder RUN that was killed or interrupted.

    It needs the pictures and the teacher, and no initial weights any more.
    """
    from train.fit import resume as resume_run

    _tell(resume_run(run, data=data, textures=textures, teacher_weights=teacher_weights))


@command.command()
@data_option
@category_option
@textures_option
@click.option("--output", "-o", default="preview.png", show_default=True, type=FOLDER, help="Picture to write.")
@click.option("--count", default=4, show_default=True, type=click.IntRange(1, 100), help="Rows for each kind.")
@preset_option
@training_options
def preview(
    data: Path,
    category: str | None,
    textures: Path | None,
    output: Path,
    count: int,
    preset: str,
    **settings: Any,
) -> None:
    """Draw pseudo anomalies into your own pictures, as a training with these settings would."""
    from train.pseudo_anomalies.preview import preview as draw_preview

    config = _config(preset, settings)
    click.echo(draw_preview(config, data=data, category=category, textures=textures, output=output, count=count))


@command.command()
@click.argument("checkpoint", type=FOLDER)
@data_option
@category_option
@click.option("--seeds", type=SeedCountType(), help="Of a folder of several: which, as for fit.  [default: all there]")
@click.option(
    "--groups",
    type=FOLDER,
    help="CSV file with the columns picture and part, for 95 % intervals over parts: pictures of a part count as one.",
)
@click.option(
    "--group-by",
    metavar="REGEX",
    help="The same by a regular expression, whose first group or all of it is in names without suffix.",
)
@metric_size_option
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option("--output", "-o", type=FOLDER, help="Folder for metrics and pictures.  [default: beside CHECKPOINT]")
def evaluate(
    checkpoint: Path,
    data: Path,
    category: str | None,
    seeds: tuple[int, ...] | None,
    groups: Path | None,
    group_by: str | None,
    metric_size: Size | None,
    device: str,
    output: Path | None,
) -> None:
    """Measure CHECKPOINT on the test pictures, at their own resolution, with and without feature aggregation.

    Writes evaluation.json, scores of each picture (.csv), the best, borderline and worst pictures of each kind, those
    defects that are missed, ROC, PRO and precision-recall curves, and how the scores are distributed.

    Of a training with --evaluate-every the epoch that was best on these test pictures stands in a row of its own. It is
    chosen by them, so it flatters.

    CHECKPOINT may be a folder of fit --seeds: each run is measured, and evaluation-seeds.json has means and intervals.
    """
    from train.report import evaluate_checkpoint, evaluation_table

    if groups is not None and group_by is not None:
        raise click.UsageError("--groups and --group-by both say which pictures show the same part; give one of them")
    if checkpoint.is_dir():
        from train.spread import SPREAD_NAME, evaluate_seeds, seeds_table

        folder = output or checkpoint
        runs = evaluate_seeds(
            checkpoint,
            seeds=seeds,
            data=data,
            category=category,
            device=device,
            output=folder,
            groups=groups,
            group_by=group_by or "",
            metric_size=metric_size,
        )
        click.echo(seeds_table(runs))
        click.echo(f"written: {folder / SPREAD_NAME} and, for each seed, {folder / 'seed-*' / 'evaluation.json'}")
        return
    if seeds is not None:
        raise click.UsageError(f"--seeds goes with a folder of 'stlm train --seeds', found {checkpoint}")
    folder = output or checkpoint.parent
    evaluation = evaluate_checkpoint(
        checkpoint,
        data=data,
        category=category,
        device=device,
        folder=folder,
        groups=groups,
        group_by=group_by or "",
        metric_size=metric_size,
    )
    click.echo(evaluation_table(evaluation))
    click.echo(f"written: {folder / 'evaluation.json'} and evaluation-*.csv, -*.png beside it")


command.add_command(threshold)
command.add_command(retrain)


@command.command()
@click.option("--data", type=FOLDER, help="Data set with a folder for each category.")
@click.option("--category", "categories", multiple=True, help="Folder below --data; may be given several times.")
@click.option("--all-categories", is_flag=True, help="Every category below --data.")
@textures_option
@click.option("--preset", "presets", multiple=True, help="As for fit; may be given several times.  [default: paper]")
@click.option("--seeds", type=SeedsType(), default="0", show_default=True, help="Such as 0,1,2.")
@click.option("--output", "-o", required=True, type=FOLDER, help="Folder of the grid.")
@executor_options
@metric_size_option
@dry_run_option
@click.option("--report", "report_only", is_flag=True, help="Run nothing; print the tables of what is there.")
@partial(training_options, without=("seed",))
def grid(
    data: Path | None,
    categories: tuple[str, ...],
    all_categories: bool,
    textures: Path | None,
    presets: tuple[str, ...],
    seeds: tuple[int, ...],
    output: Path,
    metric_size: Size | None,
    dry_run: bool,
    jobs: int | None,
    ray_address: str | None,
    gpus_per_run: float | None,
    report_only: bool,
    **settings: Any,
) -> int:
    """Train and evaluate categories x presets x seeds, then print the paper's tables beside what was obtained.

    The same command goes on after a kill: finished runs are skipped. Settings below override every preset.
    """
    from stlm_edge.datasets import categories as list_categories
    from train.paper.data_sets import warn_of_name
    from train.paper.execution import Executor, InOrder, Jobs, run_all
    from train.paper.grid import plan
    from train.paper.report import text, write_report
    from train.paper.results import read_records

    if jobs is not None and ray_address is not None:
        raise click.UsageError("--jobs is for this machine alone, and with --ray the cluster says how many; give one")
    if gpus_per_run is not None and ray_address is None:
        raise click.UsageError("--gpus-per-run goes with --ray")
    failures = []
    if not report_only:
        if data is None or bool(categories) == all_categories:
            raise click.UsageError("a grid needs --data and either --category or --all-categories; or give --report")
        given = {name: value for name, value in settings.items() if value is not None}
        runs = plan(
            presets=presets or ("paper",),
            categories=list_categories(data) if all_categories else categories,
            seeds=seeds,
            settings=given,
            output=output,
            metric_size=metric_size,
        )
        warn_of_name(data.resolve().name, {run.category for run in runs})
        if dry_run:
            from train.paper.cost import rehearse_grid

            rehearsed = rehearse_grid(runs, data=data, textures=textures)
            click.echo(rehearsed)
            _tell_failures(rehearsed.failures)
            return 1 if rehearsed.failures else 0
        executor: Executor = InOrder(data, textures)
        if ray_address is not None:
            from train.paper.ray_cluster import OnRay

            executor = OnRay(data, textures, output, address=ray_address, gpus_per_run=gpus_per_run)
        elif jobs is not None and jobs > 1:
            executor = Jobs(data, textures, jobs)
        failures = run_all(runs, executor, data=data)
    records = read_records(output)
    if records:
        click.echo(text(records))
        click.echo("\nwritten: " + ", ".join(map(str, write_report(output, records))))
    elif report_only:
        raise DataError(f"{output} holds no finished run; run a grid with -o {output} first")
    _tell_failures(failures)
    return 1 if failures else 0


def _tell_failures(failures: Sequence[Failure]) -> None:
    for failure in failures:
        click.echo(f"failed: {failure.run.name}: {failure.reason}", err=True)


@command.command(name="presets")
def list_presets() -> None:
    """List the presets: the paper's settings, one for each of its ablations, and one for a CPU."""
    for name, description in described_presets():
        click.echo(f"{name:<32}{description}")


@command.command()
@click.argument("name")
def weights(name: str) -> None:
    """Fetch published weights: mobile_sam, sam_vit_b, sam_vit_l or sam_vit_h."""
    from stlm_edge.network.weights import PUBLISHED, locate

    if name not in PUBLISHED:
        raise WeightsError(f"no published weights {name!r}; expected one of {', '.join(PUBLISHED)}")
    click.echo(locate(name))


@command.command()
@click.argument("name", required=False)
@click.option("--output", "-o", type=FOLDER, help="Folder that it becomes.  [default: data/NAME]")
@click.option("--archive", type=FOLDER, multiple=True, help="Unpack this file, fetched by hand; may be repeated.")
@click.option("--sha256", help="Hash that the archive must have, instead of the recorded one.")
def fetch(name: str | None, output: Path | None, archive: tuple[Path, ...], sha256: str | None) -> None:
    """Fetch a public data set: dtd, visa, mvtec or dagm. Without NAME: list them with their licences.

    Ctrl-C keeps what has arrived; the same command goes on from there.
    """
    from train.fetch import fetch_data_set, overview

    if name is None:
        click.echo(overview())
    else:
        click.echo(fetch_data_set(name, output=output, archives=archive, expected_sha256=sha256))


def _config(preset: str, settings: dict[str, Any]) -> TrainConfig:
    """The preset, overridden by the flags that were given."""
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        return with_overrides(preset, given)
    except ConfigError as error:
        also = f" and {', '.join('--' + name.replace('_', '-') for name in given)}" if given else ""
        raise ConfigError(f"{error} (of preset {preset}{also})") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
