"""Choosing the threshold of a finished checkpoint again, and writing it there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from stlm_edge.datasets import GOOD, load_category
from stlm_edge.imaging import read_image, resize
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.spec import ModelSpec, Threshold
from stlm_edge.thresholds import CONFIDENCE, f1_optimal, good_quantile, with_normal_scores
from train.config import from_dict
from train.data import load_images, split
from train.inspection import score_images


def from_good_pictures(
    path: Path, *, data: Path, category: str | None, device: str, false_alarm_rate: float | None
) -> tuple[Threshold | None, Threshold]:
    """From the good pictures that the training held out, if `data` is what the checkpoint was trained on.

    Args:
        false_alarm_rate: by default the one of the checkpoint's training.
    Returns:
        The threshold before (None if there was none) and the new one.
    """
    checkpoint = load(path)
    config = from_dict(checkpoint.config)
    samples = load_category(data, category).train
    good = load_images(samples, size=checkpoint.spec.input_size, skip_corrupt=config.skip_corrupt)
    _, held_out = split(good, holdout=config.holdout, seed=config.seed)
    scores = score_images(InferencePath(checkpoint.network, checkpoint.spec).to(choose_device(device)), held_out)
    rate = config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
    threshold = good_quantile(scores, false_alarm_rate=rate)
    spec = dataclasses.replace(checkpoint.spec, threshold=threshold)
    return _write(path, checkpoint, with_normal_scores(spec, scores))


def from_labelled_pictures(
    path: Path, *, data: Path, category: str | None, device: str
) -> tuple[Threshold | None, Threshold]:
    """From the test pictures, F1-optimal; whatever is measured on them afterwards flatters the model.

    Returns:
        The threshold before (None if there was none) and the new one.
    Raises:
        DataError: if there is no defective or no good test picture.
    """
    checkpoint = load(path)
    samples = load_category(data, category).test
    inspector = InferencePath(checkpoint.network, checkpoint.spec).to(choose_device(device))
    scores = score_images(inspector, (resize(read_image(s.path), checkpoint.spec.input_size) for s in samples))
    threshold = f1_optimal(scores, [sample.label != GOOD for sample in samples])
    return _write(path, checkpoint, dataclasses.replace(checkpoint.spec, threshold=threshold))


def describe(before: Threshold | None, after: Threshold) -> str:
    """One line on what was chosen and how sure it is."""
    was = "" if before is None else f" (was {before.value:.4f})"
    chosen = f"threshold {after.value:.4f}{was}"
    if after.false_alarm_rate is None or after.false_alarm_interval is None:
        return f"{chosen}, F1-optimal on {after.images} labelled pictures"
    low, high = after.false_alarm_interval
    return (
        f"{chosen}, from {after.images} held-out good pictures; expected false-alarm rate "
        f"{100 * after.false_alarm_rate:.3g} %, with {100 * CONFIDENCE:.0f} % confidence {100 * low:.2g} to "
        f"{100 * high:.3g} %"
    )


def _write(path: Path, checkpoint: Checkpoint, spec: ModelSpec) -> tuple[Threshold | None, Threshold]:
    save(path, dataclasses.replace(checkpoint, spec=spec))
    return checkpoint.spec.threshold, spec.require_threshold()
