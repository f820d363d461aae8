"""One training with several seeds: what of its result is the recipe's, and what is luck."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from stlm_edge.datasets import load_category
from stlm_edge.errors import ConfigError, DataError
from train.config import TrainConfig
from train.distributed import this_process
from train.fit import CHECKPOINT_NAME, STATE_NAME
from train.record import CONFIG_NAME, Pictures, read_record
from train.rehearsal import Rehearsal, Rehearsals
from train.runs import bring_to_end, changes, progress

logger = logging.getLogger(__name__)


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the run of a seed is."""
    return folder / f"seed-{seed}"


def fit_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    data: Path,
    category: str | None,
    textures: Path | None,
    output: Path | None,
) -> list[Path]:
    """Train once with each seed, into `output/seed-SEED`; the same call goes on after a kill, or adds seeds.

    One that fails ends it, since what is wrong with data, weights or settings is so for all of them.

    Returns:
        The checkpoints.
    Raises:
        ConfigError: before anything is trained, if a folder holds a run with other settings.
        StlmError: as `train.fit.fit` does.
        KeyboardInterrupt: after Ctrl-C.
    """
    runs = _plan(config, seeds, data=data, category=category, output=output)
    for number, (its_config, its_folder) in enumerate(runs, start=1):
        found = progress(its_folder)
        logger.info("seed %d, run %d of %d: %s", its_config.seed, number, len(runs), found)
        if found != "trained":
            bring_to_end(its_config, its_folder, data=data, category=category, textures=textures)
    return [its_folder / CHECKPOINT_NAME for _, its_folder in runs]


def rehearse_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    data: Path,
    category: str | None,
    textures: Path | None,
    output: Path | None,
) -> list[Rehearsal]:
    """What of `fit_seeds` is left to do. Raises as it does, and writes nothing."""
    rehearsals = Rehearsals()
    return [
        rehearsals.rehearse(
            its_config,
            data=data,
            category=category,
            textures=textures,
            output=its_folder,
            begun=read_record(its_folder) if found == "to resume" else None,
            retrained=True,
        )
        for its_config, its_folder in _plan(config, seeds, data=data, category=category, output=output)
        if (found := progress(its_folder)) != "trained"
    ]


def _plan(
    config: TrainConfig, seeds: Sequence[int], *, data: Path, category: str | None, output: Path | None
) -> list[tuple[TrainConfig, Path]]:
    """Each seed's settings and folder. Raises `ConfigError` if one holds a run with other settings or pictures."""
    if this_process().count > 1:
        raise ConfigError("found several processes and --seeds; start one training after the other, each with --seed")
    loaded = load_category(data, category)
    folder = output or Path("runs") / loaded.name
    runs = [(dataclasses.replace(config, seed=seed), seed_folder(folder, seed)) for seed in seeds]
    pictures = Pictures.of(loaded.train)
    for its_config, its_folder in runs:
        _check_same(its_folder, its_config, pictures)
    return runs


def find_seeds(folder: Path, seeds: Sequence[int] | None) -> dict[int, Path]:
    """The finished checkpoints in a folder of `fit_seeds` by their seeds.

    Args:
        seeds: which; None for all that were begun.
    Raises:
        DataError: if there is none, or one is not there or not finished.
    """
    if seeds is None:
        names = [re.fullmatch(r"seed-(0|[1-9][0-9]*)", path.name) for path in folder.glob("seed-*")]
        seeds = sorted(int(name[1]) for name in names if name is not None)
        if not seeds:
            raise DataError(
                f"{folder} has no seed-0, seed-1, …, expected a folder of 'stlm train --seeds', or a checkpoint; give "
                f"one, such as {folder / CHECKPOINT_NAME}"
            )
    found = {}
    for seed in seeds:
        checkpoint = seed_folder(folder, seed) / CHECKPOINT_NAME
        if not checkpoint.exists() or (checkpoint.parent / STATE_NAME).exists():
            raise DataError(
                f"{checkpoint.parent} holds no finished training; go on with the same 'stlm train --seeds', or say "
                "which ones are meant, such as --seeds 0,1"
            )
        found[seed] = checkpoint
    return found


def _check_same(folder: Path, config: TrainConfig, pictures: Pictures) -> None:
    """Raises `ConfigError` if the folder holds a run of other settings or pictures."""
    if not (folder / CONFIG_NAME).exists():
        return
    begun = read_record(folder)
    different = changes(begun.config, config)
    if not different and begun.pictures not in (None, pictures):
        different = f"{begun.pictures.count} good pictures, now {pictures.count} others"
    if different:
        raise ConfigError(f"{folder} was run with {different}; choose another folder with --output, or delete it")
