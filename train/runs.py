"""Several trainings in one place, of a grid or of seeds: what is done is left, what was begun is gone on with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from stlm_edge.errors import CheckpointError
from stlm_edge.network.checkpoint import load
from train import fit as training
from train.config import TrainConfig

logger = logging.getLogger(__name__)

EXECUTION = ("device", "workers", "teacher_cache_gb", "tensorboard")
"""Settings that decide how a run is computed and not what comes of it; they may differ between calls."""

Progress = Literal["trained", "to resume", "to train"]


def progress(folder: Path) -> Progress:
    """How far the training in a folder has come."""
    if (folder / training.STATE_NAME).exists():
        return "to resume"
    return "trained" if _is_trained(folder / training.CHECKPOINT_NAME) else "to train"


def changes(before: TrainConfig, now: TrainConfig) -> str:
    """Which settings are others now, for people; empty if what comes of a training is the same."""
    old, new = before.to_dict(), now.to_dict()
    different = [name for name in new if old[name] != new[name] and name not in EXECUTION]
    return ", ".join(f"{name} {old[name]}, now {new[name]}" for name in different)


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
            logger.warning("%s is of half a training and has no state to go on from; it is trained again", checkpoint)
            checkpoint.unlink()
        training.fit(config, data=data, category=category, textures=textures, output=folder)
    if (folder / training.STATE_NAME).exists():
        raise KeyboardInterrupt


def _is_trained(checkpoint: Path) -> bool:
    """A checkpoint gets its threshold at the end of a training; one that is damaged counts for nothing."""
    try:
        return checkpoint.exists() and load(checkpoint).spec.threshold is not None
    except CheckpointError as error:
        logger.warning("%s; it is trained again", error)
        return False
