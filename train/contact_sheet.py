"""Pictures of an evaluation: of each kind the clearest, the closest call and the worst mistake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stlm_edge.datasets import GOOD
from stlm_edge.drawing import contact_sheet, draw_regions, false_colour, heat_map
from stlm_edge.imaging import Image, read_image, write_image
from stlm_edge.network.inference import InferencePath
from train.evaluate import Results, Scored
from train.inspection import inspect

TITLES = ("picture", "truth", "anomaly map", "overlay", "TLM only")
CELL = (200, 200)


def choose(pictures: Sequence[Scored], *, threshold: float) -> list[tuple[str, Scored]]:
    """Of pictures of one kind the best, the borderline and the worst, each picture once; fewer if there are fewer.

    The best is furthest on its right side of the threshold, the worst furthest to or beyond the wrong one, the
    borderline one nearest to it.
    """
    ordered = sorted(pictures, key=lambda picture: picture.score, reverse=pictures[0].sample.label != GOOD)
    chosen = [("best", ordered[0])]
    if len(ordered) > 2:
        nearest = min(ordered[1:-1], key=lambda picture: abs(picture.score - threshold))
        chosen.append(("borderline", nearest))
    if len(ordered) > 1:
        chosen.append(("worst", ordered[-1]))
    return chosen


def verdict(picture: Scored, *, threshold: float) -> str:
    """What the threshold makes of a picture, in one word."""
    anomalous = picture.score >= threshold
    if picture.sample.label == GOOD:
        return "false alarm" if anomalous else "passed"
    return "found" if anomalous else "missed"


def write_sheet(path: Path, inspector: InferencePath, results: Results) -> None:
    """Draw the chosen pictures of each kind, the good ones first. Raises `OutputError`."""
    threshold = results.evaluation.threshold
    chosen: list[tuple[str, Scored]] = []
    labels = {picture.sample.label for picture in results.pictures}
    for label in sorted(labels, key=lambda name: (name != GOOD, name)):
        chosen += choose([p for p in results.pictures if p.sample.label == label], threshold=threshold)
    # The training-free map has no threshold of its own; the highest score of a good picture sets its scale.
    calm = [picture.tlm_score for picture in results.pictures if picture.sample.label == GOOD]
    tlm_threshold = max(calm or [picture.tlm_score for picture in results.pictures])
    rows: list[list[Image]] = []
    captions: list[str] = []
    inspected = inspect(inspector, [picture.sample for _, picture in chosen])
    for (role, picture), result in zip(chosen, inspected, strict=True):
        image = read_image(picture.sample.path)
        rows.append(
            [
                image,
                draw_regions(image, result.mask.astype(np.float32), threshold=0.5),
                false_colour(result.anomaly_map, threshold=threshold),
                heat_map(image, result.anomaly_map, threshold=threshold),
                false_colour(result.tlm_map, threshold=tlm_threshold),
            ]
        )
        said = verdict(picture, threshold=threshold)
        captions.append(
            "\n".join((f"{picture.sample.label}: {role}", picture.sample.path.stem, f"{picture.score:.3f}, {said}"))
        )
    write_image(path, contact_sheet(rows, titles=TITLES, captions=captions, cell=CELL))
