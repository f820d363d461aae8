"""What an ablation changes, whether anything takes that back, and in what else runs differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stlm_edge.errors import ConfigError
from stlm_edge.records import read_settings
from train.config import PRESETS, RANDOM, TrainConfig, from_dict, load_preset, presets
from train.paper.figures import PAPER
from train.runs import EXECUTION

NOT_COMPARED = {*EXECUTION, "seed", "evaluate_every", "evaluate_size"}
"""Settings that make no other model."""

_OF_ANOMALIES = ("pseudo_anomalies", "empty_anomalies", "largest_beta", "texture_tone")
_OF_AGGREGATION = ("comparison", "aggregation_start", "mask_target", "segmentation_loss", "head_optimiser")


def check_ablations(named: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Refuse settings that take back what a preset is about: its runs would be those of the preset it builds on.

    Args:
        named: a preset's name → itself, a name or a YAML file.
        settings: that override all presets.
    Raises:
        ConfigError: before anything is run; also for settings that cannot work.
    """
    for name, preset in named.items():
        try:
            from_dict({**load_preset(preset), **settings})
        except ConfigError as error:
            raise ConfigError(f"{error} (of preset {name})") from None
        base = base_of(preset)
        if base is None or _is_same(base, preset, {}) or not _is_same(base, preset, settings):
            continue
        alone = [key for key in settings if not _is_same(base, preset, _without(settings, key))]
        flags = " and ".join(f"--{key.replace('_', '-')}" for key in alone or settings)
        about = _different(load_preset(base), load_preset(preset))
        told = ", ".join(f"{key} {value}" for key, (_, value) in about.items())
        raise ConfigError(
            f"preset {name} is preset {base} with {told}, which {flags} takes back, so both would be one and the same; "
            f"leave out {flags}, or --preset {preset}"
        )


@cache
def ablated(preset: str) -> dict[str, tuple[Any, Any]]:
    """The settings that a shipped preset is about: name → (the paper's value, its own); none of those of others."""
    if preset not in presets() or base_of(preset) is None:
        return {}
    return _different(values_of(preset_config(PAPER)), values_of(preset_config(preset)))


def base_of(name: str) -> str | None:
    """The preset that another one, or a YAML file, `extends`; None if it stands alone. Raises as `load_preset`."""
    path = PRESETS / f"{name}.yaml" if name in presets() else Path(name)
    try:
        return read_settings(path, error=ConfigError, remedy=f"see the presets in {PRESETS}").get("extends")
    except FileNotFoundError:
        return None


@cache
def preset_config(preset: str) -> TrainConfig:
    """What a shipped preset says today; of one that is not shipped the paper's settings."""
    return from_dict(load_preset(preset if preset in presets() else PAPER))


@cache
def values_of(config: TrainConfig) -> Mapping[str, Any]:
    """The settings by name, of which a report asks thousands of times."""
    return config.to_dict()


@cache
def departures(config: TrainConfig, preset: str) -> dict[str, tuple[Any, Any]]:
    """Where a run is not as its preset has it: setting → (the preset's value, its own)."""
    return _different(values_of(preset_config(preset)), values_of(config))


def _is_same(base: str, preset: str, settings: Mapping[str, Any]) -> bool:
    """Whether two presets come to the same with the same settings on top of both."""
    first, second = (_in_effect(from_dict({**load_preset(name), **settings})) for name in (base, preset))
    return not _different(first, second)


def _in_effect(config: TrainConfig) -> dict[str, Any]:
    """Without the settings that others leave nothing to do."""
    idle: list[str] = []
    for has_no_effect, names in (
        (config.anomaly_probability == 0 or config.epochs == 0, _OF_ANOMALIES),
        (config.aggregation == "none" or config.epochs == 0, _OF_AGGREGATION),
        (config.epochs == 0, ("aggregation", "anomaly_probability", "streams_first", "distillation")),
        (config.plain_stream == "teacher", ("decoder",)),
        (config.initial_weights == RANDOM, ("random_encoders",)),
    ):
        idle += names if has_no_effect else ()
    return {name: value for name, value in config.to_dict().items() if name not in idle}


def _different(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [name for name in {**first, **second} if name not in NOT_COMPARED]
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != name}
