"""Scores of all good pictures, each by a network that has learnt from no picture of its part.

The finished network has seen all but those held out, which are few to choose a threshold from. So the training is done
again for each of some folds of the other parts, with the same settings and without that fold, and the fold is scored.
Such networks are not the finished one; they are as good as it is on average, having learnt from almost as much.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stlm_edge.errors import OutputError, counted
from stlm_edge.files import write_text
from stlm_edge.records import build, read_object

logger = logging.getLogger(__name__)

FOLDS = "folds"
"""Folder of a run with the scores of each fold that is done, 0 for those that the training itself held out."""

_REMEDY = "remove it, and stlm resume trains that fold again"


@dataclass(frozen=True)
class _Fold:
    """What is kept of a fold: its pictures, by their numbers, and their scores."""

    run: str
    pictures: tuple[int, ...]
    scores: tuple[float, ...]


def divide(parts: Sequence[int], left: Sequence[int], *, folds: int, seed: int) -> list[list[int]]:
    """The numbers of the pictures of each fold; parts stay together, and no fold is empty.

    Args:
        parts: the part of each good picture.
        left: the numbers of those to divide.
        folds: at most; there are no more than parts.
    """
    names = sorted({parts[index] for index in left})
    fold_of = dict(
        zip(np.random.default_rng((seed, folds)).permutation(names).tolist(), range(len(names)), strict=True)
    )
    count = min(folds, len(names))
    return [[index for index in left if fold_of[parts[index]] % count == fold] for fold in range(count)]


def cross_fitted(
    folds: Sequence[Sequence[int]],
    *,
    folder: Path,
    run_id: str,
    score_without: Callable[[Sequence[int]], list[float] | None],
    writes: bool,
) -> tuple[dict[int, float], bool]:
    """The score of each picture of the folds, and whether all were done; those done before a kill are read again.

    Args:
        folds: numbers of pictures; the first are those that the training itself held out.
        folder: of the run.
        score_without: scores pictures by a network that has not learnt from them; None if it was interrupted, which
            ends the work after what has been done.
        writes: only one of several processes does.
    Raises:
        OutputError: if what was kept cannot be read, or a fold's scores cannot be written.
    """
    scores: dict[int, float] = {}
    for number, pictures in enumerate(folds):
        done = scores_of_fold(number, pictures, folder=folder, run_id=run_id)
        if done is None:
            if number:
                logger.info("fold %d of %d: without %s", number, len(folds) - 1, counted(len(pictures), "picture"))
            done = score_without(pictures)
            if done is None:
                logger.warning(
                    "interrupted in fold %d of %d; the threshold is from those before it, and stlm resume %s begins "
                    "that fold again",
                    number,
                    len(folds) - 1,
                    folder,
                )
                return scores, False
            if writes:
                kept = {"run": run_id, "pictures": list(pictures), "scores": done}
                write_text(_path(number, folder), json.dumps(kept) + "\n")
        scores.update(zip(pictures, done, strict=True))
    return scores, True


def scores_of_fold(number: int, pictures: Sequence[int], *, folder: Path, run_id: str) -> list[float] | None:
    """What `cross_fitted` kept; None where it is not done, or of other pictures. Raises `OutputError`."""
    try:
        kept = read_object(_path(number, folder), error=OutputError, remedy=_REMEDY)
        fold = build(_Fold, kept, error=OutputError, remedy=_REMEDY)
    except FileNotFoundError:
        return None
    is_same = (fold.run, fold.pictures, len(fold.scores)) == (run_id, tuple(pictures), len(pictures))
    return list(fold.scores) if is_same else None


def _path(number: int, folder: Path) -> Path:
    return folder / FOLDS / f"{number}.json"
