"""Which settings of a training cannot go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stlm_edge.errors import ConfigError
from stlm_edge.network.design import RANDOM_WEIGHTS, TIMM

if TYPE_CHECKING:
    from train.config import TrainConfig

NO_TEACHER = "none"

SMALLEST_FILTERED = 64
"""Pixels of a side that the teacher gabor needs: its widest filter sees the picture at an eighth of its size."""


def check_together(config: TrainConfig) -> None:
    """Raises `ConfigError` for what each setting allows and their combination does not."""
    untaught, filtered = config.teacher == NO_TEACHER, config.teacher == "gabor"
    maskless = filtered or config.teacher.startswith(TIMM)
    stand_in, masks, staged = (
        config.plain_stream == "teacher",
        config.distillation == "logits",
        config.streams_first > 0,
    )
    unaggregated, one_layer = config.aggregation == "none", config.layers != "l1+l2"
    alone = config.comparison == "plain"
    in_blocks = config.layers.startswith("block")
    undecoded = config.layers == "l1" and config.decoder == "separate"
    kept = config.layers != "l1" and not alone and config.epochs > 0
    for wrong, settings, reason in (
        (not (config.epochs or config.memory), "epochs 0, memory 0", "nothing to learn and nothing to remember"),
        (bool(config.memory) and not stand_in, "memory, plain_stream student", "a stream that learns sees others"),
        (
            config.evaluate_size > 0 and not config.evaluate_every,
            "evaluate_size, evaluate_every 0",
            "nothing is measured",
        ),
        (bool(config.memory and config.evaluate_every), "memory, evaluate_every", "a memory is built at the end only"),
        (bool(config.memory) and unaggregated, "memory, aggregation none", "no logits to add the distances to"),
        (bool(config.groups and config.group_by), "groups, group_by", "either says which pictures show one part"),
        (config.heads > 1 and not alone, "heads, comparison", "several heads see what a frozen stream sees: plain"),
        (config.heads > 1 and config.folds > 0, "heads, folds", "the heads are the folds"),
        (alone and not stand_in, "comparison plain, plain_stream student", "only a frozen one is looked at alone"),
        (alone and unaggregated, "comparison plain, aggregation none", "nothing would be compared"),
        (alone and masks, "comparison plain, distillation logits", "nothing is distilled"),
        (alone and staged, "comparison plain, streams_first", "no stream learns"),
        (untaught and stand_in, "teacher none, plain_stream teacher", "no such stream"),
        (untaught and unaggregated, "teacher none, aggregation none", "nothing to learn from"),
        (untaught and staged, "teacher none, streams_first", "nothing to learn from at first"),
        (untaught and masks, "teacher none, distillation logits", "no masks"),
        (filtered and stand_in, "teacher gabor, plain_stream teacher", "filters are not deployed"),
        (maskless and masks, f"teacher {config.teacher}, distillation logits", "no masks"),
        (
            filtered and min(config.image_size) < SMALLEST_FILTERED,
            f"teacher gabor, image_size under {SMALLEST_FILTERED}",
            "its widest filter is larger than the picture",
        ),
        (unaggregated and staged, "aggregation none, streams_first", "no second stage"),
        (one_layer and masks, "layers, distillation logits", "masks need both, l1+l2"),
        (maskless and in_blocks, f"teacher {config.teacher}, layers {config.layers}", "it has no decoder"),
        (undecoded, "layers l1, decoder separate", "no decoder"),
        (
            config.random_encoders and config.initial_weights == RANDOM_WEIGHTS,
            "random_encoders, initial_weights random",
            "the decoder would have no weights to keep, which table 8 is about",
        ),
        (config.random_encoders and not kept, "random_encoders", "there is no decoder to take weights for"),
        (
            stand_in and masks,
            "plain_stream teacher, distillation logits",
            "its features are compared with a stream that never saw them",
        ),
    ):
        if wrong:
            raise ConfigError(f"{settings}: {reason}; change one of them")
