"""The good pictures of a run: read, told apart by part, divided into those to learn from and those held out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stlm_edge.datasets import Parts, load_category
from stlm_edge.errors import ConfigError, DataError, StlmError, counted
from stlm_edge.imaging import Image
from stlm_edge.network.checkpoint import load
from stlm_edge.seen import SeenPictures, seen_of
from train.augment import rotation_for, variation_of
from train.config import TrainConfig
from train.data import Batches, load_pictures
from train.distributed import Processes
from train.left_out import Division
from train.pseudo_anomalies.choice import pseudo_anomalies_of
from train.pseudo_anomalies.textures import TextureSource, texture_source
from train.record import Begun, Pictures, Sources
from train.threshold import parts_of

HELD_OUT_WATCHED = 32
"""Held-out pictures that are watched, at most."""
FEWEST_WATCHED = 8
"""Where there are fewer, each is watched with several pseudo anomalies."""


@dataclass(frozen=True, eq=False)
class GoodPictures:
    """What a run learns from.

    Attributes:
        told: of all good pictures, for the record.
        good: those that could be read, of the network's size.
        digests: of these, see `stlm_edge.seen`.
        seen: what of them the finished network will have learnt from or remember, as its specification has it.
        parts: of these.
        division: of these, which are learnt from.
        rotation: what `config.rotation` comes to for the category.
    """

    category: str
    told: Pictures
    good: list[Image]
    digests: list[str]
    seen: str
    parts: Parts
    division: Division
    textures: TextureSource
    rotation: str

    @property
    def digest(self) -> str:
        """Of all that are learnt from or held out, pixel by pixel; the same on every machine that has the same."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def images(self, numbers: Sequence[int]) -> list[Image]:
        return [self.good[number] for number in numbers]

    def watched(self, config: TrainConfig) -> Batches:
        """Of those held out, each with a pseudo anomaly: what is watched while the others are learnt from."""
        images = self.images(self.division.held)
        shown = (images * -(-FEWEST_WATCHED // len(images)))[:HELD_OUT_WATCHED]
        always = dataclasses.replace(config, anomaly_probability=1.0)
        drawn = pseudo_anomalies_of(always, images=shown, textures=self.textures, category=self.category)
        return Batches(shown, pseudo_anomalies=drawn, batch_size=config.batch_size, seed=config.seed + 1)

    def batches(self, numbers: Sequence[int], config: TrainConfig, processes: Processes) -> Batches:
        """Of some of them, as the settings have it.

        Raises `ConfigError` if several processes would train a committee.
        """
        if processes.count > 1 and config.design.heads > 1:
            raise ConfigError(
                f"heads is {config.heads} in a training of {processes.count} processes, expected 1: a step of a head "
                "would be others' in each; start one process, or give --heads 1 and a --holdout"
            )
        images = self.images(numbers)
        return Batches(
            images,
            pseudo_anomalies=pseudo_anomalies_of(config, images=images, textures=self.textures, category=self.category),
            batch_size=config.batch_size,
            seed=config.seed,
            rotation=self.rotation,
            variation=variation_of(config),
            workers=config.workers,
            process=processes.index,
            processes=processes.count,
            folds=[self.division.folds[number] for number in numbers] if config.design.heads > 1 else (),
        )


def read_good_pictures(config: TrainConfig, sources: Sources, folder: Path, begun: Begun | None) -> GoodPictures:
    """Read and divide them.

    Args:
        folder: of the run.
        begun: the run that is gone on with; its parts stay as they were, since they decide what is held out.
    Raises:
        StlmError: in the words of whatever is wrong with data or textures.
        DataError: also if the pictures are not those that the run was begun with.
    """
    loaded = load_category(sources.data, sources.category)
    told = Pictures.of(loaded.train)
    if begun is not None and begun.pictures not in (None, told):
        # Otherwise some of those held out would be such that the first part of the training has learnt from.
        raise DataError(
            f"{folder} was begun on {begun.pictures.count} good pictures, found {told.count} others in {sources.data}; "
            "give --data with the same ones, or train again in another folder"
        )
    textures = texture_source(sources.textures)
    rotation = rotation_for(config.rotation, loaded.name)
    good = load_pictures(loaded.train, size=config.image_size, skip_corrupt=config.skip_corrupt)
    if begun is None:
        parts = parts_of(good, config, data=sources.data, category=sources.category)
        learnt = learnt_before(sources.located(config), [picture.digest for picture in good])
        parts = dataclasses.replace(parts, learnt=learnt)
    else:
        parts = begun.parts or Parts.one_by_one(len(good), how="as the training was begun")
    if len(parts.numbers) != len(good):
        raise DataError(
            f"{folder} was begun on {counted(len(parts.numbers), 'picture')} that could be read, found {len(good)}; "
            "bring the others back, or train again in another folder"
        )
    division = Division.of(parts.numbers, config, before=parts.learnt)
    known = range(len(good)) if config.memory else division.learnt
    return GoodPictures(
        category=loaded.name,
        told=told,
        good=[picture.image for picture in good],
        digests=[picture.digest for picture in good],
        seen=seen_of([good[number].digest for number in known]),
        parts=parts,
        division=division,
        textures=textures,
        rotation=rotation,
    )


def learnt_before(config: TrainConfig, digests: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the good pictures that initial weights of this toolkit have learnt from or remember.

    Of more than `stlm_edge.seen.MOST_DIGESTS` pictures a checkpoint tells some alone.

    Args:
        digests: of the pictures, see `stlm_edge.seen`.
    """
    path = Path(config.initial_weights)
    if not config.epochs or not path.is_file():
        return ()
    try:
        seen = SeenPictures(load(path, threshold_is_needed=False).spec)
    except StlmError:  # weights of others, which are of other pictures, or such as the training will refuse
        return ()
    for number, digest in enumerate(digests):
        seen.add(digest, name=str(number))
    return tuple(map(int, seen.found))
