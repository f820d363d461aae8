"""The settings of a training run: one frozen dataclass, its presets in YAML, its overrides from the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from stlm_edge.errors import ConfigError, SpecError
from stlm_edge.spec import Size, check_input_size

PRESETS = Path(__file__).parent / "presets"

PseudoAnomalyName = Literal["perlin", "scar", "nsa", "finish", "pit", "crack"]
TeacherName = Literal["sam_vit_h", "sam_vit_l", "sam_vit_b", "mobile_sam", "stlm-tiny", "gabor"]


def setting(default: Any, help: str) -> Any:
    """A field with the text that `--help` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. The defaults are the paper's (section 4.1.3)."""

    architecture: Literal["stlm", "stlm-tiny"] = setting("stlm", "Widths and depths of the encoders.")
    image_size: Size = setting((1024, 1024), "Network input: one number, or HEIGHTxWIDTH; multiples of 32.")
    epochs: int = setting(200, "Passes over the training pictures.")
    batch_size: int = setting(2, "Pictures in a step.")
    learning_rate: float = setting(5e-4, "Of Adam, for streams and decoder.")
    schedule: Literal["constant", "cosine"] = setting(
        "constant", "Of all learning rates: as they are (the paper), or falling to 0 along a cosine."
    )
    head_optimiser: Literal["sgd", "adam"] = setting(
        "sgd", "For the feature aggregation: DeSTSeg's SGD, or Adam, which learns faster in a short training."
    )
    segmentation_loss: Literal["focal-l1", "bce-dice"] = setting(
        "focal-l1", "Equations 5 to 7, or binary cross entropy and Dice, which learn faster in a short training."
    )
    mask_target: Literal["centre", "any"] = setting(
        "centre",
        "Which cells of the map count as anomalous: those whose centre is (the paper), or those with any such pixel.",
    )
    anomaly_probability: float = setting(0.5, "Share of pictures that get a pseudo anomaly (figure 10).")
    pseudo_anomalies: str = setting(
        "perlin",
        "Kinds, each as likely as the others: perlin (the paper), scar, nsa, finish, pit, crack; joined with +, "
        "more often where one is named twice.",
    )
    largest_beta: float = setting(0.8, "How faint a pseudo anomaly may get: 0 opaque, 1 invisible (equation 1).")
    exposure_jitter: float = setting(
        0.0, "How much the light of training pictures varies: 0 as they are (the paper), 1 up to a stop either way."
    )
    flip_horizontal: bool = setting(False, "Mirror half of the training pictures left to right.")
    flip_vertical: bool = setting(False, "Mirror half of the training pictures top to bottom.")
    teacher: TeacherName = setting("sam_vit_h", "Network to distil from.")
    teacher_weights: str | None = setting(None, "File or published name (see 'train weights'); without: random.")
    initial_weights: str | None = setting(
        None, "MobileSAM's weights for streams and decoder, or a checkpoint of this toolkit for all; without: random."
    )
    holdout: float = setting(0.1, "Share of the good pictures kept from training, for the threshold.")
    false_alarm_rate: float = setting(0.01, "Expected share of good pictures above the threshold.")
    skip_corrupt: bool = setting(False, "Leave out pictures that cannot be read instead of stopping.")
    seed: int = setting(0, "Of weights, order, hold-out and pseudo anomalies.")
    device: str = setting("auto", "cpu, cuda, or auto: cuda where there is one.")

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check_type(entry.name, getattr(self, entry.name))
        try:
            check_input_size(self.image_size)
        except SpecError as error:
            raise ConfigError(f"image_size: {error}") from None
        for name in ("epochs", "batch_size"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("learning_rate", self.learning_rate, self.learning_rate > 0, "more than 0")
        _check_kinds(self.pseudo_anomalies)
        for name in ("anomaly_probability", "largest_beta", "exposure_jitter"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        for name in ("holdout", "false_alarm_rate"):
            _check(name, getattr(self, name), 0 < getattr(self, name) < 1, "more than 0 and less than 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        values = dataclasses.asdict(self)
        values["image_size"] = list(self.image_size)
        return values


HINTS = get_type_hints(TrainConfig)


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Raises `ConfigError` for an unknown name or a value that cannot work."""
    unknown = sorted(set(values) - set(HINTS))
    if unknown:
        raise ConfigError(f"unknown settings {', '.join(map(str, unknown))}; known are {', '.join(HINTS)}")
    if isinstance(values.get("image_size"), list):
        values = values | {"image_size": tuple(values["image_size"])}
    if isinstance(values.get("image_size"), int):
        values = values | {"image_size": (values["image_size"],) * 2}
    return TrainConfig(**values)


def presets() -> list[str]:
    """Names of the presets that come with the toolkit."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, or of a YAML file of the same form. Raises `ConfigError`."""
    path = PRESETS / f"{name}.yaml" if name in presets() else Path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no preset {name!r}; expected one of {', '.join(presets())} or a YAML file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML ({reason}); correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, expected settings by name; see {PRESETS.name}/")
    return values


def _check_type(name: str, value: object) -> None:
    hint = HINTS[name]
    if hint == Size:
        fits = isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value)
        expected = "one or two whole numbers"
    elif choices := get_args(hint):
        if type(None) in choices:
            fits, expected = value is None or isinstance(value, str), "a text"
        else:
            fits, expected = value in choices, f"one of {', '.join(choices)}"
    elif hint is float:
        fits, expected = type(value) in (int, float), "a number"
    else:
        fits, expected = type(value) is hint, {int: "a whole number", bool: "true or false"}.get(hint, "a text")
    _check(name, value, fits, expected)


def _check_kinds(value: str) -> None:
    known = get_args(PseudoAnomalyName)
    expected = f"{', '.join(known)}, or several of them joined with +"
    _check("pseudo_anomalies", value, all(kind in known for kind in value.split("+")), expected)


def _check(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise ConfigError(f"{name} is {value!r}, expected {expected}")
