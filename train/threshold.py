"""Choosing a threshold at the end of a training, and the one of a finished checkpoint again."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stlm_edge.datasets import GOOD, Category, Look, Parts, find_parts, load_category, parts_as_said
from stlm_edge.errors import DataError, counted
from stlm_edge.imaging import Image, read_image, resize
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.seen import SeenPictures, digest_of, seen_of
from stlm_edge.spec import HIGHEST_SCORE, ModelSpec, Threshold
from stlm_edge.thresholds import (
    Method,
    ThresholdChange,
    choose,
    f1_optimal,
    threshold_change,
    with_normal_scores,
    with_unclear,
)
from train.card import renew_card
from train.config import TrainConfig, from_record
from train.data import Loaded, load_pictures
from train.evaluate import score_images
from train.left_out import Division, good_scores, scores_of_new
from train.pseudo_anomalies.choice import pseudo_anomalies_of
from train.pseudo_anomalies.textures import TextureSource, texture_source

logger = logging.getLogger(__name__)

FEWEST_PSEUDO = 40
"""Pseudo anomalies that a share of them is told of, at least; good pictures get several where they are fewer."""
MOST_DRAWN_INTO = 100
"""Good pictures that they are drawn into, at most."""


def parts_of(pictures: Sequence[Loaded], config: TrainConfig, *, data: Path, category: str | None) -> Parts:
    """Which of the good pictures show the same part, as the settings say or as they look. Raises as `find_parts`."""
    found = find_parts(
        [picture.sample.path for picture in pictures],
        [] if config.groups or config.group_by else [Look.of(picture.image) for picture in pictures],
        groups=Path(config.groups) if config.groups else None,
        group_by=config.group_by,
        folders=_folders(data, category),
    )
    logger.info("good pictures: %s", found)
    return found


def chosen_threshold(config: TrainConfig, spec: ModelSpec, scores: Sequence[float], parts: Sequence[int]) -> Threshold:
    """From scores of good pictures, each by what has learnt from no picture of its part, with the run's settings."""
    return choose(
        scores,
        parts,
        false_alarm_rate=config.false_alarm_rate,
        unclear_rate=config.unclear_rate or None,
        highest_score=spec.highest_score or HIGHEST_SCORE,
    )


def pseudo_found(
    inspector: InferencePath,
    config: TrainConfig,
    images: Sequence[Image],
    division: Division,
    *,
    textures: TextureSource,
    threshold: Threshold,
) -> tuple[int, int] | None:
    """How many pseudo anomalies reach a threshold, drawn into good pictures as for the training, and of how many; None
    where these pictures take none.

    Args:
        images, division: of all good pictures; each is scored by what has learnt from no picture of its part.
    """
    numbers = division.unlearnt(inspector.network)
    numbers = numbers[:: math.ceil(len(numbers) / MOST_DRAWN_INTO)]
    some = [images[number] for number in numbers]
    anomalies = pseudo_anomalies_of(
        config,
        images=some,
        textures=textures,
        category=inspector.spec.category,
        kinds=config.pseudo_anomalies.split("+"),
    )

    def drawn() -> Iterator[tuple[int, Image]]:
        for turn in range(math.ceil(FEWEST_PSEUDO / len(numbers))):
            for index, number in enumerate(numbers):
                changed, mask = anomalies.draw(np.random.default_rng((config.seed, turn, index)), images[number])
                if mask.any():
                    yield number, changed

    scores = np.array(list(scores_of_new(inspector, drawn(), division)))
    return (int(np.count_nonzero(scores >= threshold.value)), scores.size) if scores.size else None


def choose_on_checkpoint(
    path: Path,
    *,
    data: Path,
    category: str | None,
    method: Method,
    false_alarm_rate: float | None = None,
    unclear_rate: float | None = None,
    groups: Path | None = None,
    group_by: str = "",
    textures: Path | None = None,
    device: str = "auto",
) -> ThresholdChange:
    """Score pictures with a checkpoint, and change the threshold in it.

    Args:
        data: what the checkpoint was trained on. `quantile` takes the good pictures that the training held out, `f1`
            the labelled test pictures; whatever is measured on those afterwards flatters the model.
        false_alarm_rate: for `quantile`, wanted share of good pictures at or above it; None: that of the training.
        unclear_rate: wanted share at or above the second threshold; 0: none, None: that of the training.
        groups, group_by: which pictures show the same part, see `stlm_edge.datasets.find_parts`; without either as the
            training has it. What was held out stays so.
        textures: that pseudo anomalies are cut from, for the share of them that is found.
    Raises:
        DataError: if there is no picture, or `f1` lacks good or defective ones.
        StlmError: in the words of whatever else is wrong with checkpoint, pictures or device.
    """
    checkpoint = load(path, threshold_is_needed=False)
    inference = InferencePath(checkpoint.network, checkpoint.spec).to(choose_device(device))
    loaded = load_category(data, category)
    if loaded.name != checkpoint.spec.category:
        logger.warning(
            "OTHER PICTURES: %s was trained on %s, found %s; %s",
            path,
            checkpoint.spec.category,
            loaded.name,
            "the threshold will be one for these"
            if method == "f1"
            else "quantile takes the share of them that a training would have held out, so give the data that it was "
            "trained on",
        )
    config = from_record(checkpoint.config)
    if groups is not None or group_by:
        config = dataclasses.replace(config, groups=str(groups or ""), group_by=group_by)
    if false_alarm_rate is not None or unclear_rate is not None:
        config = dataclasses.replace(
            config,
            false_alarm_rate=config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate,
            unclear_rate=config.unclear_rate if unclear_rate is None else unclear_rate,
        )
    if method == "f1":
        spec, change = _by_f1(checkpoint, inference, loaded, config, folders=_folders(data, category))
    else:
        spec, change = _by_quantile(
            checkpoint,
            inference,
            loaded,
            config,
            data=data,
            category=category,
            textures=textures,
            is_regrouped=groups is not None or bool(group_by),
        )
    changed = dataclasses.replace(checkpoint, spec=spec)
    save(path, changed)
    renew_card(path, changed)
    return change


def _by_f1(
    checkpoint: Checkpoint, inference: InferencePath, loaded: Category, config: TrainConfig, *, folders: Sequence[Path]
) -> tuple[ModelSpec, ThresholdChange]:
    defective = [sample.label != GOOD for sample in loaded.test]
    paths = [sample.path for sample in loaded.test]
    groups = Path(config.groups) if config.groups else None
    said = parts_as_said(paths, groups=groups, group_by=config.group_by, folders=folders)
    parts = list(range(len(paths))) if said is None else list(said.numbers)
    size = checkpoint.spec.input_size
    seen = SeenPictures(checkpoint.spec)

    def read() -> Iterator[Image]:
        for path, is_defective in zip(paths, defective, strict=True):
            image = read_image(path)
            if not is_defective:
                seen.add(digest_of(image), name=str(path))
            yield resize(image, size)

    scores = score_images(inference, read())
    seen.require_new("the checkpoint")
    chosen = f1_optimal(scores, defective, None if said is None else parts)
    if config.unclear_rate:
        good = [index for index, is_defective in enumerate(defective) if not is_defective]
        chosen = with_unclear(
            chosen,
            [scores[index] for index in good],
            [parts[index] for index in good],
            unclear_rate=config.unclear_rate,
            highest_score=checkpoint.spec.highest_score or HIGHEST_SCORE,
        )
    spec = dataclasses.replace(checkpoint.spec, threshold=chosen)
    return spec, threshold_change(checkpoint.spec.threshold, chosen, scores=scores, defective=defective, parts=parts)


def _by_quantile(
    checkpoint: Checkpoint,
    inference: InferencePath,
    loaded: Category,
    config: TrainConfig,
    *,
    data: Path,
    category: str | None,
    textures: Path | None,
    is_regrouped: bool,
) -> tuple[ModelSpec, ThresholdChange]:
    pictures = load_pictures(loaded.train, size=checkpoint.spec.input_size, skip_corrupt=config.skip_corrupt)
    divided = checkpoint.parts or Parts.one_by_one(len(pictures), how="as it was trained")
    is_same = len(divided.numbers) == len(pictures)
    if is_same and not is_regrouped and checkpoint.parts is not None:
        parts = divided
        logger.info("good pictures: %s", parts)
    else:
        parts = parts_of(pictures, config, data=data, category=category)
    design, known = inference.network.design, checkpoint.spec.seen
    of = divided if is_same else parts
    as_trained = Division.of(of.numbers, config, before=of.learnt)
    if is_same and known:
        own = range(len(pictures)) if design.memory else as_trained.learnt
        is_same = seen_of([pictures[number].digest for number in own]) == known
    if (design.memory or design.heads > 1) and not is_same:
        raise DataError(
            f"the network is of {counted(len(divided.numbers), 'good picture')}, found {len(pictures)} others, so "
            "nobody knows what of it to leave out for each; give the data that it was trained on"
        )
    good = [picture.image for picture in pictures]
    division = dataclasses.replace(as_trained, parts=parts.numbers)
    scored = good_scores(inference, good, division)
    if not (design.memory or design.heads > 1):  # others are left out of what is known
        seen = SeenPictures(checkpoint.spec)
        for number in scored:
            seen.add(pictures[number].digest, name=str(pictures[number].sample.path))
        seen.require_new("the checkpoint")
    scores, numbers = list(scored.values()), parts.of_pictures(list(scored))
    chosen = chosen_threshold(config, checkpoint.spec, scores, numbers)
    found = pseudo_found(inference, config, good, division, textures=texture_source(textures), threshold=chosen)
    spec = with_normal_scores(dataclasses.replace(checkpoint.spec, threshold=chosen), scores)
    change = threshold_change(
        checkpoint.spec.threshold,
        chosen,
        scores=scores,
        defective=[False] * len(scores),
        parts=numbers,
        pseudo_found=found,
    )
    return spec, change


def _folders(data: Path, category: str | None) -> list[Path]:
    """That paths in a file of groups may start from."""
    return [data] if category is None else [data, data / category]
