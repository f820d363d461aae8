"""`ModelSpec`, the only carrier of the facts that training, export and runtime must agree on.

Its way: checkpoint → ONNX `metadata_props` → `<engine>.json` beside the engine → runtime.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from stlm_edge.errors import SpecError, shown
from stlm_edge.records import MAY_LACK, Count, Share, Within, build, formerly, parse

SCHEMA_VERSION = 1

Size = tuple[int, int]
"""(height, width) in pixels."""

PIXEL_LIMIT_VARIABLE = "STLM_MAX_MEGAPIXELS"
"""Of the environment: how large a picture may be that is read, in millions of pixels."""

MOST_PIXELS = 1 << 27
"""Of a network's input or a camera's frame: more is a damaged record, and would take all memory."""

HIGHEST_SCORE = 4.0
"""Of any network of this toolkit: a product of two cosine distances. With a feature aggregation it is 1."""

ThresholdMethod = Literal["quantile", "f1", "manual"]

SIZE_MULTIPLE = 32

DIGEST_DIGITS = 12
"""Of a picture in `ModelSpec.seen`: by one chance in a hundred millions, two of some thousands have the same."""

FALSE_ALARM_RATE = 0.01
"""Wanted share of good pictures at or above a threshold, unless another one is asked for."""


_ROUNDING = 1e-3
"""By which low precision may carry a score beyond the highest."""

_LEAST_SCORE = 1.4e-45
"""Above 0, of numbers in float32."""

_Pixel = Annotated[float, Within(0, 255)]
_Deviation = Annotated[float, Within(1e-3, 1e3)]


@dataclass(frozen=True)
class Threshold:
    """The image score from which on a picture is called anomalous (`score >= value`), and how it was chosen.

    Attributes:
        value: on the scale of the image score.
        method: `quantile`, from the scores of held-out good pictures; `f1`, needs labels; `manual`, given by whoever
            runs the engine.
        images: how many pictures it was chosen from; 0 for `manual`.
        false_alarm_rate: for `quantile`, the expected share of good pictures at or above `value`.
        false_alarm_interval: for `quantile`, lowest and highest such share that so many parts leave open, with 95 %
            confidence, or about 90 % where it is `modelled`; None in records from before it was computed.
        measured_on: what computed the scores: `pytorch`, or what runs the engine that it was chosen again on.
        previous: the value that it replaced in an engine's sidecar, None if it is the first.
        parts: how many parts those pictures show; None for `manual` and where it was not asked.
        value_interval: between which values 95 % of thresholds chosen from as many other parts would lie.
        modelled: the rate is less than so many parts can show by their count, and comes from a model of the tail.
        unclear: the score, below `value`, from which on a picture that is not anomalous is unclear: neither surely good
            nor surely bad. None where nothing is called so.
        unclear_rate: the expected share of good pictures at or above `unclear`.
    """

    value: float
    method: ThresholdMethod = field(metadata=formerly(values={"good-quantile": "quantile", "f1-optimal": "f1"}))
    images: Count
    false_alarm_rate: Share | None = None
    false_alarm_interval: tuple[Share, Share] | None = field(default=None, metadata=MAY_LACK)
    measured_on: str = field(default="pytorch", metadata=MAY_LACK)
    previous: float | None = field(default=None, metadata=MAY_LACK)
    parts: Count | None = field(default=None, metadata=MAY_LACK)
    value_interval: tuple[float, float] | None = field(default=None, metadata=MAY_LACK)
    modelled: bool = field(default=False, metadata=MAY_LACK)
    unclear: float | None = field(default=None, metadata=MAY_LACK)
    unclear_rate: Share | None = field(default=None, metadata=MAY_LACK)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise SpecError(f"threshold is {self.value}, expected a finite number; choose it again")
        for name in ("false_alarm_interval", "value_interval"):
            low, high = getattr(self, name) or (0.0, 1.0)
            if not low <= high:
                raise SpecError(f"{name} is {low} to {high}, expected it to rise; choose the threshold again")
        if self.unclear is not None and not self.unclear < self.value:
            raise SpecError(
                f"unclear is {self.unclear:.9g}, expected a score below the threshold {self.value:.9g}; choose both "
                "again (stlm threshold)"
            )


@dataclass(frozen=True)
class ModelSpec:
    """What a model expects, what it answers and from where on the answer means a defect.

    Attributes:
        category: the part the model was trained on.
        architecture: name of the network's widths and depths (`stlm`, `stlm-tiny`).
        input_size: (height, width) of the network's input; both multiples of 32.
        map_size: (height, width) of the anomaly map that comes out.
        weights_sha256: over the names, shapes and values of all trained tensors.
        threshold: None until it has been chosen.
        normal_score_range: lowest and highest image score on the held-out good pictures.
        normal_score_deciles: eleven of those scores, from the lowest to the highest: a tenth of the pictures scores at
            most as high as the second, and so on.
        normal_score_images: how many pictures they are of.
        resize: the rule of `stlm_edge.imaging.resize`.
        channel_order: of the pixels that the exported graph takes.
        pixel_mean, pixel_std: per channel in RGB order, for pixels in 0 … 255 (SAM's values).
        top_k: the image score is the mean of this many highest pixels of the up-sampled map (paper, 4.1.3).
        frame_size: (height, width) of raw camera frames that an exported graph takes and resizes itself; None where
            it takes pictures of `input_size`.
        max_batch: pictures that an exported graph takes at once, at most.
        full_map: an exported graph also puts out the map at `input_size`.
        highest_score: that a picture can have: 1 with a feature aggregation. None in records from before it was said.
        memory: patches of good pictures that the network remembers; 0 without such a memory.
        memory_neighbours: of how many nearest ones its distance is the mean.
        seen: digests of the good pictures that it has learnt from or remembers, one after the other, see
            `stlm_edge.seen`; empty where nobody knows.
        schema_version: of this record.
    """

    category: str
    architecture: str
    input_size: Size
    map_size: Size
    weights_sha256: str
    threshold: Threshold | None = None
    normal_score_range: tuple[float, float] | None = None
    resize: str = "halve-linear"
    channel_order: str = "BGR"
    pixel_mean: tuple[_Pixel, _Pixel, _Pixel] = (123.675, 116.28, 103.53)
    pixel_std: tuple[_Deviation, _Deviation, _Deviation] = (58.395, 57.12, 57.375)
    top_k: Annotated[int, Within(1, MOST_PIXELS)] = 100
    frame_size: Size | None = field(default=None, metadata=MAY_LACK)
    normal_score_deciles: tuple[float, ...] | None = field(default=None, metadata=MAY_LACK)
    normal_score_images: Annotated[int, Within(1)] | None = field(default=None, metadata=MAY_LACK)
    max_batch: Annotated[int, Within(1, 4096)] = field(default=1, metadata=MAY_LACK)
    full_map: bool = field(default=False, metadata=MAY_LACK)
    highest_score: Annotated[float, Within(1, HIGHEST_SCORE)] | None = field(default=None, metadata=MAY_LACK)
    memory: Count = field(default=0, metadata=MAY_LACK)
    memory_neighbours: Annotated[int, Within(1)] = field(default=1, metadata=MAY_LACK)
    seen: str = field(default="", metadata=MAY_LACK)
    schema_version: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise SpecError(
                f"the model specification has schema version {self.schema_version}, this toolkit reads "
                f"{SCHEMA_VERSION}; export the model again with this version"
            )
        for name, expected in (("resize", "halve-linear"), ("channel_order", "BGR")):
            if getattr(self, name) != expected:
                raise SpecError(
                    f"the model specification asks for {name} {getattr(self, name)!r}, this toolkit knows "
                    f"{expected!r}; export the model again with this version"
                )
        check_input_size(self.input_size)
        if len(self.seen) % DIGEST_DIGITS or re.fullmatch("[0-9a-f]*", self.seen) is None:
            raise SpecError(
                f"seen is {shown(self.seen)}, expected {DIGEST_DIGITS} hexadecimal digits for each picture; export the "
                "model again"
            )
        for name in ("top_k", "max_batch"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}, expected at least 1; export the model again")
        for name in ("map_size", "frame_size"):
            size = getattr(self, name)
            if size is not None and (len(size) != 2 or min(size) < 1 or math.prod(size) > MOST_PIXELS):
                raise SpecError(f"{name} is {size}, expected a height and a width in pixels; export the model again")
        if self.threshold is not None:
            remedy = "choose it again in the checkpoint (stlm threshold CHECKPOINT --data DIR), and export again"
            self.require_reachable(self.threshold.value, remedy=remedy)
            if self.threshold.unclear is not None:
                self.require_reachable(self.threshold.unclear, remedy=remedy)
        self._require_scores("normal_score_range", self.normal_score_range, count=2)
        self._require_scores("normal_score_deciles", self.normal_score_deciles, count=11)

    def _require_scores(self, name: str, scores: tuple[float, ...] | None, *, count: int) -> None:
        """Raises `SpecError` unless there are so many, which rise and which a picture can have."""
        if scores is None:
            return
        highest = self.highest_score or HIGHEST_SCORE
        rising = list(scores) == sorted(scores)
        if len(scores) != count or not rising or not (scores[0] >= -_ROUNDING and scores[-1] <= highest + _ROUNDING):
            raise SpecError(
                f"{name} is {shown(scores)}, expected {count} scores that rise from 0 or more to {highest:g} or less; "
                "choose the threshold again (stlm threshold)"
            )

    @property
    def picture_size(self) -> Size:
        """(height, width) of the pictures that a graph is given."""
        return self.frame_size or self.input_size

    def require_threshold(self) -> Threshold:
        """The threshold; raises `SpecError` if none has been chosen yet."""
        if self.threshold is None:
            raise SpecError(
                f"the model of {self.category!r} has no threshold yet; choose it from held-out good pictures: "
                "stlm threshold CHECKPOINT --data DIR"
            )
        return self.threshold

    def require_reachable(self, threshold: float, *, remedy: str = "give another --threshold") -> None:
        """Raises `SpecError` for a threshold that no score can reach, or that is no more than another word for 0."""
        highest = self.highest_score or HIGHEST_SCORE
        if not (threshold == 0 or _LEAST_SCORE <= threshold <= highest):
            never = "nothing would ever be anomalous" if threshold > highest else "everything would be anomalous"
            raise SpecError(
                f"the threshold is {threshold:.9g} where scores lie between 0 and {highest:g}, so {never}; {remedy}"
            )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Raises `SpecError` on anything that `to_json` does not write."""
        return build(ModelSpec, parse(text, what="the model specification"))


def check_input_size(size: Size) -> None:
    """Raises `SpecError` unless both sides are positive multiples of 32."""
    if len(size) != 2 or any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size):
        found = " x ".join(map(str, size))
        raise SpecError(f"input size is {found}, expected multiples of {SIZE_MULTIPLE}, for example 256 x 256")
    if math.prod(size) > MOST_PIXELS:
        raise SpecError(
            f"input size is {size[0]} x {size[1]}, expected at most {MOST_PIXELS} pixels, such as 256 x 256"
        )
