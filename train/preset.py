"""Presets, and the settings that a user gives instead of some of theirs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from stlm_edge.errors import ConfigError, shown
from stlm_edge.records import read_settings
from train.config import NO_TEACHER, TrainConfig, from_dict, from_yaml
from train.old_settings import BEFORE

logger = logging.getLogger(__name__)

PRESETS = Path(__file__).parent / "presets"

OF_A_RUN = {"seed", "device", "workers", "skip_corrupt"}
"""Settings that a run tells of, as of all others, and that no preset decides."""

UNDEPLOYABLE = (NO_TEACHER, "gabor")
"""Teachers that cannot be a network's plain stream."""

OF_A_FROZEN_STREAM = ("plain_stream", "comparison", "memory", "memory_neighbours", "heads", "holdout")
"""Settings of a preset that only make sense where the teacher is the plain stream."""


def presets() -> list[str]:
    """Names of the presets that come with the toolkit."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def described_presets() -> list[tuple[str, str]]:
    """Name and first sentence of the comment of each preset."""
    described = []
    for name in presets():
        lines = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
        described.append((name, comment.split(". ")[0].removesuffix(".") + "."))
    return described


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, or of a YAML file of the same form; `extends: NAME` builds on another preset.

    The `config.yaml` of a run means what it meant to that run, also where an older version wrote it.

    Raises:
        ConfigError: if there is no such preset, or the file does not hold settings by name.
    """
    path = PRESETS / f"{name}.yaml" if name in presets() else Path(name)
    try:
        values = from_yaml(read_settings(path, error=ConfigError, remedy=f"see the presets in {PRESETS}"))
    except FileNotFoundError:
        raise ConfigError(f"no preset {shown(name)}; expected one of {', '.join(presets())} or a YAML file") from None
    base = values.pop("extends", None)
    if base is None and values.keys() >= OF_A_RUN and (lacking := BEFORE.keys() - values.keys()):
        told = ", ".join(f"{name} {BEFORE[name]}" for name in sorted(lacking))
        logger.info("%s is of a run of an older version, which did not say: %s", path, told)
        return BEFORE | values
    if base is None:
        return values
    if base not in presets():
        raise ConfigError(f"{path} extends {shown(base)}, expected one of {', '.join(presets())}")
    return load_preset(base) | values


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
