"""What an evaluation leaves in its folder: figures, scores, contact sheets and plots."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import math
from pathlib import Path
from typing import Any

from stlm_edge.datasets import check_masks, load_category, parts_as_said
from stlm_edge.datasets.listing import folders, found_folders
from stlm_edge.errors import DataError, counted
from stlm_edge.files import make_folder, write_text
from stlm_edge.metrics import ALL
from stlm_edge.names import cell, defused
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath, choose_device
from stlm_edge.peaks import REACH
from stlm_edge.seal import sealed
from stlm_edge.spec import Size
from train.card import renew_card
from train.evaluate import evaluate
from train.evaluation import DefectVerdicts, Evaluation, Results, Scores
from train.on_test import HISTORY_NAME, best_on_test, read_history
from train.plots import write_curves, write_distribution
from train.run_told import EVALUATION_NAME
from train.sheets import write_contact_sheet, write_missed

logger = logging.getLogger(__name__)

COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
    "pixel_fnr": "pixel FNR",
}
"""Of tables: figure → title."""
BEST_ROW = f"{ALL}, best on test"
INTERVAL_NAMES = COLUMNS | {
    "missed_share": "missed",
    "false_alarm_share": "false alarms",
    "peak_in_mask_share": "peak in mask",
}


def evaluate_checkpoint(
    checkpoint: Path,
    *,
    data: Path,
    category: str | None,
    device: str,
    folder: Path,
    groups: Path | None = None,
    group_by: str = "",
    metric_size: Size | None = None,
) -> Evaluation:
    """Measure a checkpoint on a category's test pictures and write everything into `folder`.

    `evaluation.json` comes last: where it is, the rest is too.

    Args:
        groups, group_by: which test pictures show the same part, for intervals, see `stlm_edge.datasets.parts`.
        metric_size: see `train.evaluate.evaluate`.
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
    said = parts_as_said(
        [sample.path for sample in samples],
        groups=groups,
        group_by=group_by,
        folders=[data] if category is None else [data, data / category],
    )
    path = checkpoint.parent / HISTORY_NAME
    try:
        history = read_history(path)
    except DataError as error:
        logger.warning("%s; the best epoch on test is left out", error)
        history = []
    inspector = InferencePath(loaded.network, loaded.spec).to(choose_device(device))
    make_folder(folder)
    results = evaluate(inspector, samples, parts=None if said is None else said.numbers, metric_size=metric_size)
    write_scores(folder / "evaluation-scores.csv", results)
    write_contact_sheet(folder / "evaluation.png", inspector, results)
    write_missed(folder / "evaluation-missed.png", inspector, results)
    write_curves(folder / "evaluation-curves.png", results)
    write_distribution(folder / "evaluation-scores.png", results)
    best = best_on_test(path, history, results.pictures_sha256, metric_size)
    evaluation = dataclasses.replace(results.evaluation, best_on_test=best)
    write_json(folder / EVALUATION_NAME, evaluation)
    renew_card(checkpoint, loaded)
    return evaluation


def evaluation_table(evaluation: Evaluation) -> str:
    """The evaluation as text: one line for each kind of defect, then all together, then without aggregation, then of
    the epoch that was best on test."""
    best = evaluation.best_on_test
    width = max(map(len, [*evaluation.kinds, f"{ALL}, TLM only", *([BEST_ROW] if best else [])])) + 2
    head = f"{'':<{width}}{'images':>6}" + "".join(f"{title:>13}" for title in COLUMNS.values())
    lines = [head + f"{'missed':>13}{'peak in mask':>15}"]
    rows: list[tuple[str, Scores, DefectVerdicts | None]] = [
        (name, scores, evaluation.verdicts[name]) for name, scores in evaluation.kinds.items()
    ]
    rows.append((ALL, evaluation.overall, evaluation.verdicts[ALL]))
    if evaluation.tlm_only is not None:
        rows.append((f"{ALL}, TLM only", evaluation.tlm_only.overall, None))
    if best is not None:
        rows.append((BEST_ROW, best.metrics, None))
    for name, scores, verdicts in rows:
        missed, peaks = "", ""
        if verdicts is not None:
            missed = f"{verdicts.missed} of {verdicts.defective}"
            peaks = f"{verdicts.peak_in_mask} of {verdicts.found_marked}" if verdicts.found_marked else "-"
        lines.append(
            f"{name:<{width}}{scores.images:>6}"
            + "".join(f"{_percent(getattr(scores, figure)):>13}" for figure in COLUMNS)
            + f"{missed:>13}{peaks:>15}".rstrip()
        )
    if evaluation.metric_size is not None:
        height, side = evaluation.metric_size
        lines.append(f"figures over pixels at {height} x {side}, to which maps and masks were brought")
    if best is not None:
        lines.append(
            f"best on test: epoch {best.epoch}, measured every {best.every} and after the last; CHOSEN ON THESE TEST "
            "PICTURES, so it flatters, and it chose neither weights nor threshold"
        )
    optimum = evaluation.f1_optimal_threshold
    lines.append(
        f"threshold {evaluation.threshold:.4f}: {evaluation.missed} of {evaluation.defective} defective ones missed, "
        f"{evaluation.false_alarms} of {evaluation.good} good ones called anomalous"
        + ("" if math.isnan(optimum) else f" (F1-optimal here: {optimum:.4f})")
    )
    every = evaluation.verdicts[ALL]
    if every.found_marked:
        beside = every.found_marked - every.peak_in_mask
        lines.append(
            f"found for the defect itself: {every.peak_in_mask} of {every.found_marked} "
            f"({100 * every.peak_in_mask / every.found_marked:.1f} %) have the peak of their map in the mask or up to "
            f"{REACH} pixels of the input beside it; {beside} were found for something else"
        )
    if evaluation.intervals is not None:
        told = [f"{INTERVAL_NAMES[name]} {_range(span)}" for name, span in evaluation.intervals.figures.items()]
        lines.append(f"95 % intervals over {counted(evaluation.intervals.parts, 'part')}, in %: {', '.join(told)}")
    return "\n".join(lines)


def _range(span: tuple[float, float]) -> str:
    return f"{100 * span[0]:.1f} to {100 * span[1]:.1f}"


def write_json(path: Path, evaluation: Evaluation) -> None:
    """Write the evaluation under its SHA-256, undefined metrics as null. Raises `OutputError`."""
    content = finite(dataclasses.asdict(evaluation))
    content["peak_reach_px"] = REACH
    write_text(path, json.dumps(sealed(content), indent=2) + "\n")


def write_scores(path: Path, results: Results) -> None:
    """Write one line of CSV for each picture. Raises `OutputError`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "label", "score", "anomalous", "tlm_score", "peak_in_mask"))
    for picture in results.pictures:
        anomalous = int(picture.score >= results.evaluation.threshold)
        name = f"{picture.sample.path.parent.name}/{picture.sample.path.name}"
        tlm_score = "" if picture.tlm_score is None else f"{picture.tlm_score:.7g}"
        peak = "" if picture.peak_in_mask is None else int(picture.peak_in_mask)
        writer.writerow((cell(name), defused(picture.sample.label), f"{picture.score:.7g}", anomalous, tlm_score, peak))
    write_text(path, text.getvalue())


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def finite(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
