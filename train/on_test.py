"""How a network does on the test pictures while it learns, and in which epoch it did best.

The authors' code looks at them every 5 of 200 epochs, and what the paper prints is the best of those (its table 8 has
the epoch). That choice flatters, since the pictures that choose are those that measure. So it is told beside the last
epoch's figures and decides nothing: weights and threshold are what they would be without.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.distributed import ProcessGroup

from stlm_edge.datasets import GOOD, Sample, check_masks, load_category, read_truth
from stlm_edge.errors import DataError, StlmError, TrainingError, counted
from stlm_edge.files import write_text
from stlm_edge.imaging import read_image
from stlm_edge.network.inference import InferencePath
from stlm_edge.records import build, parse
from stlm_edge.seen import digest_of
from stlm_edge.spec import Size
from train.config import TrainConfig
from train.distributed import Processes, agree
from train.evaluate import READERS, LabelledDigest, overall_scores
from train.evaluation import BestOnTest, Scores
from train.record import Sources

logger = logging.getLogger(__name__)

HISTORY_NAME = "test-history.jsonl"
"""In a run's folder, a line for each epoch that was measured."""

_REMEDY = "move it away; what was measured before is lost then"


@dataclass(frozen=True)
class MeasuredEpoch:
    """A line of the history.

    Attributes:
        every: `TrainConfig.evaluate_every` at that time.
        metric_size: (height, width) at which figures over pixels were measured; None: each picture's own.
        pictures_sha256: of the test pictures, see `train.evaluate.LabelledDigest`.
        metrics: over all of them, as `stlm evaluate` would have found them.
    """

    epoch: int
    every: int
    metric_size: Size | None
    pictures_sha256: str
    metrics: Scores

    @property
    def merit(self) -> float:
        """What the best epoch has most of."""
        return self.metrics.image_auroc + self.metrics.pixel_auroc + self.metrics.aupro


class OnTest:
    """Measures a network on a category's test pictures, and keeps a history of it.

    Args:
        folder: of the run.
        config: its `evaluate_every` is not 0.
        begun: of a run that is gone on with; otherwise there is no history yet.
        processes: of the training; the main one measures.
        room: where the others wait for it, see `waiting_room`.
    Raises:
        DataError: if there are not both good and marked defective test pictures, or they are others than those of the
            history.
        ImageError: if one of them cannot be used.
    """

    def __init__(
        self,
        sources: Sources,
        folder: Path,
        config: TrainConfig,
        *,
        begun: bool,
        processes: Processes,
        room: ProcessGroup | None = None,
    ) -> None:
        self._samples = _both_kinds(load_category(sources.data, sources.category).test, sources)
        self._sha256 = _digest_of(self._samples)
        self._path = folder / HISTORY_NAME
        self._every = config.evaluate_every
        self._size = config.looks_at_size
        self._is_main = processes.is_main
        self._history = read_history(self._path) if begun else []
        if any(row.pictures_sha256 != self._sha256 for row in self._history):
            raise DataError(
                f"{self._path} is of other test pictures than {sources.data} has now, so its epochs would not compare; "
                f"give --data with the same ones, or {_REMEDY}"
            )
        self._room = room

    @property
    def sha256(self) -> str:
        """Of the test pictures and their masks."""
        return self._sha256

    def look(self, epoch: int, inspector: InferencePath, *, is_last: bool) -> Scores | None:
        """Measure the network as it is after an epoch, and leave it so; what was measured of later epochs is forgotten.

        All processes have to call it, and wait in it for the main one.

        Args:
            epoch: the last that was finished; 0 for none.
            is_last: it is measured whatever its number.
        Returns:
            The figures; None if they are not due, or there already, and in other processes.
        Raises:
            DataError: if the test pictures have changed.
            OutputError: if the history cannot be written.
            TrainingError: in the other processes, in place of these.
        """
        scores, failure = None, None
        if self._is_main:
            try:
                scores = self._look(epoch, inspector, is_last=is_last)
            except StlmError as error:
                failure = error
        if agree(failure is not None, torch.device("cpu"), room=self._room):
            raise failure or TrainingError(f"the main process could not measure epoch {epoch}; see what it says")
        return scores

    def _look(self, epoch: int, inspector: InferencePath, *, is_last: bool) -> Scores | None:
        kept = [row for row in self._history if row.epoch <= epoch]
        if len(kept) < len(self._history):
            self._history = kept
            self._write()
        is_due = epoch > 0 and (is_last or epoch % self._every == 0)
        is_due = is_due and all(row.epoch != epoch for row in kept)
        return self._measure(epoch, inspector) if is_due else None

    def _measure(self, epoch: int, inspector: InferencePath) -> Scores:
        with _mode_kept(inspector.network):
            scores, sha256 = overall_scores(inspector, self._samples, metric_size=self._size)
        if sha256 != self._sha256:
            raise DataError(
                f"the test pictures have changed since the training began, epoch {epoch} would not compare; bring the "
                "others back, and stlm resume goes on"
            )
        self._history.append(MeasuredEpoch(epoch, self._every, self._size, sha256, scores))
        self._write()
        best = _best(self._history)
        logger.info(
            "epoch %d on the test pictures: image AUROC %.2f, pixel AUROC %.2f, PRO %.2f %%, best in epoch %d",
            epoch,
            *(100 * value for value in (scores.image_auroc, scores.pixel_auroc, scores.aupro)),
            best.epoch,
        )
        return scores

    def _write(self) -> None:
        write_text(self._path, "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in self._history))


def read_history(path: Path) -> list[MeasuredEpoch]:
    """What `OnTest` has written; empty if there is nothing. Raises `DataError` if it is damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); {_REMEDY}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        what = f"line {number} of {path}"
        read = parse(line, what=what, error=DataError, remedy=_REMEDY)
        rows.append(build(MeasuredEpoch, read, what=what, error=DataError, remedy=_REMEDY))
    if [row.epoch for row in rows] != sorted({row.epoch for row in rows}):
        raise DataError(f"{path} has epochs twice or out of order, so it was edited; {_REMEDY}")
    return rows


def best_on_test(
    path: Path, history: Sequence[MeasuredEpoch], sha256: str, metric_size: Size | None
) -> BestOnTest | None:
    """The best epoch of a history, the earliest of equally good ones, if it compares with an evaluation.

    Args:
        path: of the history, for people.
        sha256: of the pictures that were evaluated, see `train.evaluate.LabelledDigest`.
        metric_size: at which they were.
    """
    if not history:
        return None
    reason = ""
    if any(row.pictures_sha256 != sha256 for row in history):
        reason = "is of other test pictures"
    elif any(row.metric_size != metric_size for row in history):
        reason = "measured figures over pixels at another size; see --evaluate-size and --metric-size"
    if reason:
        logger.warning("best on test is left out: %s %s", path, reason)
        return None
    best = _best(history)
    return BestOnTest(best.epoch, history[-1].every, best.metrics)


def _best(history: Sequence[MeasuredEpoch]) -> MeasuredEpoch:
    return max(history, key=lambda row: row.merit)  # the first of equal ones


def _both_kinds(samples: Sequence[Sample], sources: Sources) -> Sequence[Sample]:
    """Raises `DataError` if they have not all that the best epoch is chosen by."""
    good = sum(sample.label == GOOD for sample in samples)
    unmarked = [sample for sample in samples if sample.label != GOOD and sample.mask is None and not sample.mask_fault]
    where = sources.data if sources.category is None else sources.data / sources.category
    lacking = ""
    if not good or good == len(samples):
        lacking = f"{where} has {good} good and {counted(len(samples) - good, 'defective test picture')}"
    elif unmarked:
        lacking = f"{where} has {counted(len(unmarked), 'defective test picture')} without a mask, {unmarked[0].path}"
    if lacking:
        raise DataError(
            f"{lacking}; evaluate_every chooses the best epoch by image AUROC, pixel AUROC and PRO, which need good "
            "and marked defective pictures: add what is missing, or leave --evaluate-every out"
        )
    check_masks(samples)
    return samples


def _digest_of(samples: Sequence[Sample]) -> str:
    """Raises `ImageError` for a picture or a mask that an epoch could not be measured with."""

    def add(sample: Sample) -> None:
        image = read_image(sample.path)
        digest.add(sample.label, digest_of(image), read_truth(sample, size=image.shape[:2]))

    digest = LabelledDigest()
    with ThreadPoolExecutor(READERS) as readers:
        for _ in readers.map(add, samples):
            pass
    return digest.sha256()


@contextmanager
def _mode_kept(module: nn.Module) -> Iterator[None]:
    """After the block each part learns, or stands still, as it did before."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
