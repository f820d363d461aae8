"""Scores of good pictures as new ones would get them: by what of a network has learnt nothing from their parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from stlm_edge.imaging import Image
from stlm_edge.network.feature_aggregation import Committee, FeatureAggregation
from stlm_edge.network.inference import InferencePath
from stlm_edge.network.stlm import Stlm
from train.config import TrainConfig
from train.data import split_indices
from train.evaluate import score_images
from train.folds import divide

ALL = -1
"""In the place of a head's number: none of them has learnt from the picture, or every one has."""


@dataclass(frozen=True)
class Division:
    """What of a network learns from which good pictures.

    Attributes:
        parts: of each picture, the number of the part that it shows.
        learnt, held: numbers of the pictures that are learnt from, and of those held out from everything but a memory.
        folds: of each picture, the number of the head of a committee that does not learn from it; else `ALL`.
    """

    parts: Sequence[int]
    learnt: Sequence[int]
    held: Sequence[int]
    folds: Sequence[int]

    @classmethod
    def of(cls, parts: Sequence[int], config: TrainConfig, *, before: Sequence[int] = ()) -> Division:
        """As the settings have it; the same parts give the same.

        Args:
            before: numbers of the pictures that the initial weights have learnt from.
        Raises:
            DataError: if there are fewer than two.
        """
        learnt, held = split_indices(parts, holdout=config.holdout, seed=config.seed, learnt=before)
        folds = [ALL] * len(parts)
        if config.design.heads > 1:
            for number, pictures in enumerate(divide(parts, learnt, folds=config.heads, seed=config.seed)):
                for picture in pictures:
                    folds[picture] = number
        return cls(parts, learnt, held, folds)

    def same_part(self, picture: int) -> list[int]:
        """Numbers of the pictures that are left out with one; alone, where all show one part."""
        if len(set(self.parts)) == 1:
            return [picture]
        return [number for number, part in enumerate(self.parts) if part == self.parts[picture]]

    def unlearnt(self, network: Stlm) -> list[int]:
        """Numbers of the good pictures that can be scored as new ones: by a committee those that a head lacks, else
        those held out from the head; all where nothing learns, since a memory can leave out what it has of them."""
        if network.feature_aggregation is None:
            return list(range(len(self.parts)))
        lacking = [number for number, fold in enumerate(self.folds) if fold != ALL]
        return sorted([*lacking, *self.held])


def good_scores(inspector: InferencePath, images: Sequence[Image], division: Division) -> dict[int, float]:
    """Scores of good pictures as the network gives them to pictures that it knows nothing of.

    Args:
        images: all good pictures of the training, in its order.
    Returns:
        Number of a picture → its score, of those that `Division.unlearnt` tells.
    Raises:
        DataError: if without a part nothing is remembered.
    """
    numbers = division.unlearnt(inspector.network)
    scores = scores_of_new(inspector, ((number, images[number]) for number in numbers), division)
    return dict(zip(numbers, scores, strict=True))


def scores_of_new(
    inspector: InferencePath, pictures: Iterable[tuple[int, Image]], division: Division
) -> Iterator[float]:
    """Of good pictures, or of what was drawn into them, each with the number of the good one. As `good_scores`."""
    for number, image in pictures:
        with unknown(inspector.network, number, division):
            yield from score_images(inspector, [image])


@contextmanager
def unknown(network: Stlm, picture: int, division: Division) -> Iterator[None]:
    """Within the block, a network is without what it has learnt from a picture's part and remembers of it.

    Other patches would have been kept in the place of those that are left out, so the highest distances are a little
    larger than those of new pictures: by 2 % for magnetic tiles with 1,000 patches, their mean is not. And one
    head stands for the committee's mean.
    """
    memory, aggregation, fold = network.memory, network.feature_aggregation, division.folds[picture]
    try:
        if memory is not None:
            network.memory = memory.without(division.same_part(picture))
        if isinstance(aggregation, Committee) and fold != ALL:
            member = aggregation.members[fold]
            assert isinstance(member, FeatureAggregation)
            network.feature_aggregation = member
        yield
    finally:
        network.memory, network.feature_aggregation = memory, aggregation
