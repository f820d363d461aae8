"""Contact sheets of an evaluation: the clearest and the closest pictures of each kind, and defects that were missed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stlm_edge.datasets import GOOD
from stlm_edge.drawing import contact_sheet, draw_regions, false_colour, heat_map, mark_peak, own_scale
from stlm_edge.files import cannot_write
from stlm_edge.imaging import Image, read_image, write_image
from stlm_edge.names import escaped
from stlm_edge.network.inference import InferencePath
from train.evaluate import inspect
from train.evaluation import Results, Scored

CELL = (200, 200)

MOST_MISSED = 20
"""Rows of the sheet of missed defects."""


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


def choose_missed(pictures: Sequence[Scored], *, threshold: float) -> list[tuple[str, Scored]]:
    """Defective pictures below the threshold, the lowest score of each kind first, then the second of each."""
    missed: dict[str, list[Scored]] = {}
    for picture in sorted(pictures, key=lambda picture: picture.score):
        if picture.sample.label != GOOD and picture.score < threshold:
            missed.setdefault(picture.sample.label, []).append(picture)
    ranked = [
        (rank, picture.score, f"missed {rank} of {len(own)}", picture)
        for own in missed.values()
        for rank, picture in enumerate(own, start=1)
    ]
    return [(role, picture) for *_, role, picture in sorted(ranked, key=lambda entry: entry[:2])]


def verdict(picture: Scored, *, threshold: float) -> str:
    """What the threshold makes of a picture, in a few words."""
    anomalous = picture.score >= threshold
    if picture.sample.label == GOOD:
        return "false alarm" if anomalous else "passed"
    if anomalous and picture.peak_in_mask is False:
        return "found beside it"
    return "found" if anomalous else "missed"


def write_contact_sheet(path: Path, inspector: InferencePath, results: Results) -> None:
    """Draw the chosen pictures of each kind, the good ones first. Raises `OutputError`."""
    threshold = results.evaluation.threshold
    chosen: list[tuple[str, Scored]] = []
    labels = {picture.sample.label for picture in results.pictures}
    for label in sorted(labels, key=lambda name: (name != GOOD, name)):
        chosen += choose([p for p in results.pictures if p.sample.label == label], threshold=threshold)
    _write(path, inspector, results, chosen)


def write_missed(path: Path, inspector: InferencePath, results: Results) -> None:
    """Draw what the threshold misses, `MOST_MISSED` at most; where it misses nothing, no such sheet is left.

    Raises `OutputError`.
    """
    chosen = choose_missed(results.pictures, threshold=results.evaluation.threshold)[:MOST_MISSED]
    if chosen:
        _write(path, inspector, results, chosen)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _write(path: Path, inspector: InferencePath, results: Results, chosen: Sequence[tuple[str, Scored]]) -> None:
    """One row for each of `chosen`, whose first part is a word about it."""
    threshold = results.evaluation.threshold
    # The training-free map has no threshold of its own; the highest score of a good picture sets its scale.
    calm = [p.tlm_score for p in results.pictures if p.tlm_score is not None and p.sample.label == GOOD]
    tlm_threshold = max(calm or [p.tlm_score for p in results.pictures if p.tlm_score is not None], default=None)
    titles = ["picture", "truth", "map (grey: threshold)", "overlay", "map, own scale"]
    if tlm_threshold is not None:
        titles.append("TLM only")
    rows: list[list[Image]] = []
    captions: list[str] = []
    for (role, picture), result in zip(chosen, inspect(inspector, [p.sample for _, p in chosen]), strict=True):
        image, anomaly_map, tlm_map = read_image(picture.sample.path), result.anomaly_map, result.tlm_map
        truth = None if result.mask is None else result.mask.astype(np.float32)
        scaled = own_scale(anomaly_map)
        rows.append(
            [
                image,
                image if truth is None else draw_regions(image, truth, threshold=0.5),
                false_colour(anomaly_map, threshold=threshold),
                heat_map(image, anomaly_map, threshold=threshold),
                mark_peak(scaled if truth is None else draw_regions(scaled, truth, threshold=0.5), anomaly_map),
            ]
        )
        if tlm_map is not None and tlm_threshold is not None:
            rows[-1].append(false_colour(tlm_map, threshold=tlm_threshold))
        lines = [
            f"{picture.sample.label}: {role}",
            escaped(picture.sample.path.stem),
            f"{picture.score:.3f}, {verdict(picture, threshold=threshold)}",
            f"map {anomaly_map.min():.2g} to {anomaly_map.max():.2g}",
        ]
        captions.append("\n".join([*lines, "no mask"] if result.mask is None else lines))
    write_image(path, contact_sheet(rows, titles=titles, captions=captions, cell=CELL))
