"""A preset's settings, and those that a user gives instead."""

from __future__ import annotations

import logging
from typing import Any

from train.combinations import NO_TEACHER
from train.config import TrainConfig, from_dict, load_preset

logger = logging.getLogger(__name__)

UNDEPLOYABLE = (NO_TEACHER, "gabor")
"""Teachers that cannot be a network's plain stream."""

OF_A_FROZEN_STREAM = ("plain_stream", "comparison", "memory", "memory_neighbours", "heads", "holdout")
"""Settings of a preset that only make sense where the teacher is the plain stream."""


def with_overrides(preset: str, given: dict[str, Any]) -> TrainConfig:
    """The settings of a preset with some of them overridden.

    A teacher that cannot be the plain stream takes away what the preset has for one that is: the network then has two
    streams that learn, as the paper's. The log says so.

    Args:
        preset: a name or a YAML file, see `load_preset`.
        given: what overrides it, of the settings' own types.
    Raises:
        ConfigError: as `load_preset` and `from_dict`.
    """
    base = load_preset(preset)
    if given.get("teacher") in UNDEPLOYABLE and base.get("plain_stream") == "teacher":
        gone = [name for name in OF_A_FROZEN_STREAM if name in base and name not in given]
        logger.warning(
            "teacher %s cannot be the plain stream, so two streams learn: of preset %s are left out %s",
            given["teacher"],
            preset,
            ", ".join(f"{name} {base[name]}" for name in gone),
        )
        base = {name: value for name, value in base.items() if name not in gone}
    return from_dict(base | given)
