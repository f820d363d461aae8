"""Several trainings in one place, of a grid or of seeds: what is done is left, what was begun is gone on with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from stlm_edge.errors import CheckpointError
from stlm_edge.network.checkpoint import load
from train import fit as training
from train.config import TrainConfig
from train.old_settings import BEFORE

logger = logging.getLogger(__name__)

EXECUTION = ("device", "workers", "teacher_cache_gb", "tensorboard")
"""Settings that decide how a run is computed and not what comes of it; they may differ between calls."""

Progress = Literal["trained", "to resume", "to train"]


def progress(folder: Path) -> Progress:
    """How far the training in a folder has come."""
    if (folder / training.STATE_NAME).exists():
        return "to resume"
    checkpoint = folder / training.CHECKPOINT_NAME
    return "trained" if checkpoint.exists() and _fault_of(checkpoint) is None else "to train"


def changes(before: TrainConfig, now: TrainConfig) -> str:
    """Which settings are others now, for people; empty if what comes of a training is the same."""
    old, new = before.to_dict(), now.to_dict()
    different = [name for name in new if old[name] != new[name] and name not in EXECUTION]
    return ", ".join(f"{name} {old[name]}, now {new[name]}" for name in different)


def as_before(before: TrainConfig, now: TrainConfig) -> str:
    """The flags by which a run of an older version is gone on with; empty where that is not what differs."""
    old, new = before.to_dict(), now.to_dict()
    flags = {name: f"--{name.replace('_', '-')} {value}" for name, value in BEFORE.items() if old[name] == value}
    return " ".join(flag for name, flag in flags.items() if new[name] != old[name])


def bring_to_end(config: TrainConfig, folder: Path, *, data: Path, category: str | None, textures: Path | None) -> None:
    """Train, or go on with a training that was cut short; half a run is begun again.

    Raises:
        StlmError: as `train.fit.fit` and `train.fit.resume` do.
        KeyboardInterrupt: after Ctrl-C, which the training took as its own and kept what there was.
    """
    if progress(folder) == "to resume":
        training.resume(folder, data=data, textures=textures)
    else:
        checkpoint = folder / training.CHECKPOINT_NAME
        if checkpoint.exists():
            logger.warning("%s; it is trained again", _fault_of(checkpoint))
            checkpoint.unlink()
        training.fit(config, data=data, category=category, textures=textures, output=folder)
    if (folder / training.STATE_NAME).exists():
        raise KeyboardInterrupt


def _fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint is not of a finished training, which gives it a threshold at its end; None if it is."""
    try:
        is_half = load(checkpoint).spec.threshold is None
    except CheckpointError as error:
        return str(error)
    return f"{checkpoint} is of half a training and has no state to go on from" if is_half else None
