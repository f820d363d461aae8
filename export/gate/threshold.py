"""Choose the threshold of an engine again by the scores that the engine itself gives, and write it into its sidecar."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from export.gate.pictures import find_samples, read_with_progress
from runtime.backends import open_engine
from runtime.verification import warn_unless_verified
from stlm_edge.datasets import GOOD, Look, Sample, find_parts, parts_as_said
from stlm_edge.errors import DataError
from stlm_edge.imaging import to_input
from stlm_edge.seen import SeenPictures, digest_of
from stlm_edge.sidecar import Sidecar, rewrite
from stlm_edge.spec import HIGHEST_SCORE, Threshold
from stlm_edge.thresholds import (
    Method,
    ThresholdChange,
    choose,
    f1_optimal,
    threshold_change,
    with_normal_scores,
    with_unclear,
)

logger = logging.getLogger(__name__)


def choose_on_engine(
    engine: Path,
    *,
    data: Path,
    category: str | None,
    method: Method,
    false_alarm_rate: float,
    unclear_rate: float | None = None,
    groups: Path | None = None,
    group_by: str = "",
) -> ThresholdChange:
    """Score pictures on an engine, and change the threshold and the normal scores in its sidecar.

    Args:
        engine: any file that `runtime.backends.open_engine` opens.
        data: pictures, see `export.gate.pictures.find_samples`.
        method: `quantile` takes good pictures only, `f1` labelled ones.
        false_alarm_rate: for `quantile`, wanted share of good pictures at or above the threshold.
        unclear_rate: wanted share at or above the second one; 0: none, None: as the sidecar has it.
        groups, group_by: which pictures show the same part, see `stlm_edge.datasets.find_parts`; where nobody says,
            good pictures that look nearly the same do for `quantile`, and none for `f1`.
    Raises:
        DataError: if there is no picture, there are defects among those for `quantile`, `f1` lacks either kind, or the
            engine remembers a good one.
        EngineError, SpecError: if the engine cannot be opened or run.
        OutputError: if the sidecar cannot be written; it is then as it was.
    """
    samples = find_samples(data, category)
    if method == "quantile":
        _require_good(samples, data)
    paths, folders = [sample.path for sample in samples], [data] if category is None else [data, data / category]
    parts = parts_as_said(paths, groups=groups, group_by=group_by, folders=folders)
    backend, sidecar = open_engine(engine)
    warn_unless_verified(engine, sidecar)
    scores, looks, seen = [], [], SeenPictures(sidecar.spec)
    with backend:
        # Labels are enough here, so that no mask can be in the way.
        unmarked = [dataclasses.replace(sample, mask=None, mask_fault=None) for sample in samples]
        for picture in read_with_progress(unmarked):
            if picture.label == GOOD:
                seen.add(digest_of(picture.image), name=picture.name)
            pixels = to_input(picture.image, spec=sidecar.spec)
            scores.append(float(backend.infer(pixels)[1][0]))
            looks.append(Look.of(pixels[0]))
    seen.require_new(str(engine))
    if not sidecar.spec.seen:
        _warn_of_training_folders(samples)
    if parts is None and method == "quantile":
        parts = find_parts(paths, looks, groups=None, group_by="", folders=folders)
    if parts is not None:
        logger.info("good pictures: %s" if method == "quantile" else "pictures: %s", parts)
    numbers = range(len(scores)) if parts is None else parts.numbers
    defective = [sample.label != GOOD for sample in samples]
    good = [index for index, is_defective in enumerate(defective) if not is_defective]
    good_scores, good_parts = [scores[index] for index in good], [numbers[index] for index in good]
    highest = sidecar.spec.highest_score or HIGHEST_SCORE
    if unclear_rate is None:
        unclear_rate = sidecar.spec.require_threshold().unclear_rate or 0
    if method == "quantile":
        chosen = choose(
            good_scores,
            good_parts,
            false_alarm_rate=false_alarm_rate,
            unclear_rate=unclear_rate or None,
            highest_score=highest,
        )
    else:
        chosen = f1_optimal(scores, defective, None if parts is None else parts.numbers)
        if unclear_rate:
            chosen = with_unclear(chosen, good_scores, good_parts, unclear_rate=unclear_rate, highest_score=highest)
    before, after = _replace(engine, sidecar, chosen, good=good_scores)
    return threshold_change(before, after, scores=scores, defective=defective, parts=numbers)


def _require_good(samples: Sequence[Sample], data: Path) -> None:
    kinds = sorted({sample.label for sample in samples} - {GOOD})
    if kinds:
        count = sum(sample.label != GOOD for sample in samples)
        raise DataError(
            f"{count} of {len(samples)} pictures of {data} are labelled defective ({', '.join(kinds)}), expected good "
            "ones only; give a folder of them, such as test/good, or use the labels: --method f1"
        )


def _warn_of_training_folders(samples: Sequence[Sample]) -> None:
    """Where nobody knows which pictures the network has learnt from."""
    folders = (sample.path.absolute().parent for sample in samples)
    trained = sum(("train", GOOD) in (folder.parts[-2:], folder.resolve().parts[-2:]) for folder in folders)
    if trained:
        logger.warning(
            "TRAINING PICTURES: %d of %d pictures lie in train/%s; a network scores what it was trained on lower than "
            "new good parts, so the threshold may be too low: give other good pictures",
            trained,
            len(samples),
            GOOD,
        )


def _replace(
    engine: Path, sidecar: Sidecar, chosen: Threshold, *, good: Sequence[float]
) -> tuple[Threshold, Threshold]:
    """The threshold that stood in the sidecar, and the one that stands there now."""
    thresholds: list[Threshold] = []

    def change(current: Sidecar) -> Sidecar:
        before = current.spec.require_threshold()
        after = dataclasses.replace(chosen, measured_on=current.engine.product, previous=before.value)
        thresholds.extend((before, after))
        spec = dataclasses.replace(current.spec, threshold=after)
        return dataclasses.replace(current, spec=with_normal_scores(spec, good))

    rewrite(engine, change, known=sidecar)
    before, after = thresholds
    return before, after
