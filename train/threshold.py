"""Choosing the threshold of a finished checkpoint again, and writing it there."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from stlm_edge.datasets import GOOD, load_category
from stlm_edge.imaging import read_image, resize
from stlm_edge.network.checkpoint import load, save
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.thresholds import (
    Method,
    ThresholdChange,
    f1_optimal,
    good_quantile,
    threshold_change,
    with_normal_scores,
)
from train.config import from_dict
from train.data import load_images, split_indices
from train.evaluate import score_images
from train.patch_memory import good_scores

logger = logging.getLogger(__name__)


def choose_on_checkpoint(
    path: Path, *, data: Path, category: str | None, method: Method, false_alarm_rate: float | None, device: str
) -> ThresholdChange:
    """Score pictures with a checkpoint, and change the threshold in it.

    Args:
        data: what the checkpoint was trained on. `quantile` takes the good pictures that the training held out, `f1`
            the labelled test pictures; whatever is measured on those afterwards flatters the model.
        false_alarm_rate: for `quantile`, wanted share of good pictures at or above it; None: that of the training.
    Raises:
        DataError: if there is no picture, or `f1` lacks good or defective ones.
        StlmError: in the words of whatever else is wrong with checkpoint, pictures or device.
    """
    checkpoint = load(path, threshold_is_needed=False)
    inference = InferencePath(checkpoint.network, checkpoint.spec).to(choose_device(device))
    loaded = load_category(data, category)
    if loaded.name != checkpoint.spec.category:
        logger.warning(
            "OTHER PICTURES: %s was trained on %s, found %s; quantile takes the share of them that a training would "
            "have held out, so give the data that it was trained on",
            path,
            checkpoint.spec.category,
            loaded.name,
        )
    if method == "f1":
        pictures = (resize(read_image(sample.path), checkpoint.spec.input_size) for sample in loaded.test)
        defective = [sample.label != GOOD for sample in loaded.test]
        scores = score_images(inference, pictures)
        spec = dataclasses.replace(checkpoint.spec, threshold=f1_optimal(scores, defective))
    else:
        config = from_dict(checkpoint.config)
        good = load_images(loaded.train, size=checkpoint.spec.input_size, skip_corrupt=config.skip_corrupt)
        _, held_out = split_indices(len(good), holdout=config.holdout, seed=config.seed)
        scores = list(good_scores(inference, good, parts=range(len(good)), held_out=held_out).values())
        defective = [False] * len(scores)
        rate = config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        spec = dataclasses.replace(checkpoint.spec, threshold=good_quantile(scores, false_alarm_rate=rate))
        spec = with_normal_scores(spec, scores)
    save(path, dataclasses.replace(checkpoint, spec=spec))
    return threshold_change(checkpoint.spec.threshold, spec.require_threshold(), scores=scores, defective=defective)
