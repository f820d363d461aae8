"""What an evaluation leaves in its folder: figures, scores, a contact sheet and plots."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stlm_edge.datasets import GOOD, check_masks, load_category
from stlm_edge.datasets.listing import folders, found_folders
from stlm_edge.drawing import contact_sheet, draw_regions, false_colour, heat_map
from stlm_edge.errors import DataError
from stlm_edge.files import make_folder, write_text
from stlm_edge.imaging import Image, read_image, write_image
from stlm_edge.names import cell, defused, escaped
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.seal import sealed
from train.evaluate import Evaluation, Results, Scored, evaluate, inspect
from train.plots import write_curves, write_distribution

EVALUATION_NAME = "evaluation.json"

TITLES = ("picture", "truth", "anomaly map", "overlay", "TLM only")
CELL = (200, 200)


def evaluate_checkpoint(checkpoint: Path, *, data: Path, category: str | None, device: str, folder: Path) -> Evaluation:
    """Measure a checkpoint on a category's test pictures and write everything into `folder`.

    `evaluation.json` comes last: where it is, the rest is too.

    Raises:
        StlmError: in the words of whatever is wrong with checkpoint, pictures or folder.
    """
    loaded = load(checkpoint)
    samples = load_category(data, category).test
    if not samples:
        folder_of = data if category is None else data / category
        raise DataError(
            f"{folder_of} has no test pictures, {found_folders(folders(folder_of))}, expected test/good and "
            "test/<defect> beside train/good; add them"
        )
    check_masks(samples)
    inspector = InferencePath(loaded.network, loaded.spec).to(choose_device(device))
    make_folder(folder)
    results = evaluate(inspector, samples)
    write_scores(folder / "evaluation-scores.csv", results)
    write_contact_sheet(folder / "evaluation.png", inspector, results)
    write_curves(folder / "evaluation-curves.png", results)
    write_distribution(folder / "evaluation-scores.png", results)
    write_json(folder / EVALUATION_NAME, results.evaluation)
    return results.evaluation


def evaluation_table(evaluation: Evaluation) -> str:
    """The evaluation as text: one line for each kind of defect, then all together, then without aggregation."""
    width = max(map(len, [*evaluation.kinds, "all, TLM only"])) + 2
    head = f"{'':<{width}}{'images':>6}{'image AUROC':>13}{'image AP':>10}{'pixel AUROC':>13}{'pixel AP':>10}"
    lines = [head + f"{'AUPRO':>8}{'pixel FNR':>11}"]
    rows = [*evaluation.kinds.items(), ("all", evaluation.overall), ("all, TLM only", evaluation.tlm_only.overall)]
    for name, scores in rows:
        lines.append(
            f"{name:<{width}}{scores.images:>6}{_percent(scores.image_auroc):>13}{_percent(scores.image_ap):>10}"
            f"{_percent(scores.pixel_auroc):>13}{_percent(scores.pixel_ap):>10}{_percent(scores.aupro):>8}"
            f"{_percent(scores.pixel_fnr):>11}"
        )
    optimum = evaluation.f1_optimal_threshold
    lines.append(
        f"threshold {evaluation.threshold:.4f}: {evaluation.missed} of {evaluation.defective} defective ones missed, "
        f"{evaluation.false_alarms} of {evaluation.good} good ones called anomalous"
        + ("" if math.isnan(optimum) else f" (F1-optimal here: {optimum:.4f})")
    )
    return "\n".join(lines)


def write_json(path: Path, evaluation: Evaluation) -> None:
    """Write the evaluation under its SHA-256, undefined metrics as null. Raises `OutputError`."""
    content = {name: _finite(value) for name, value in dataclasses.asdict(evaluation).items()}
    write_text(path, json.dumps(sealed(content), indent=2) + "\n")


def write_scores(path: Path, results: Results) -> None:
    """Write one line of CSV for each picture. Raises `OutputError`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "label", "score", "anomalous", "tlm_score"))
    for picture in results.pictures:
        anomalous = int(picture.score >= results.evaluation.threshold)
        name = f"{picture.sample.path.parent.name}/{picture.sample.path.name}"
        writer.writerow(
            (cell(name), defused(picture.sample.label), f"{picture.score:.7g}", anomalous, f"{picture.tlm_score:.7g}")
        )
    write_text(path, text.getvalue())


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


def write_contact_sheet(path: Path, inspector: InferencePath, results: Results) -> None:
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
                image if result.mask is None else draw_regions(image, result.mask.astype(np.float32), threshold=0.5),
                false_colour(result.anomaly_map, threshold=threshold),
                heat_map(image, result.anomaly_map, threshold=threshold),
                false_colour(result.tlm_map, threshold=tlm_threshold),
            ]
        )
        said = verdict(picture, threshold=threshold)
        lines = (f"{picture.sample.label}: {role}", escaped(picture.sample.path.stem), f"{picture.score:.3f}, {said}")
        captions.append("\n".join(lines if result.mask is not None else (*lines, "no mask")))
    write_image(path, contact_sheet(rows, titles=TITLES, captions=captions, cell=CELL))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
