"""What an evaluation leaves in its folder: figures, scores, pictures and plots."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

from stlm_edge.datasets import load_category
from stlm_edge.files import make_folder, write_text
from stlm_edge.network.checkpoint import load
from stlm_edge.network.inference import InferencePath
from train.contact_sheet import write_sheet
from train.device import choose_device
from train.evaluate import Evaluation, Results, evaluate
from train.plots import write_curves, write_distribution

EVALUATION_NAME = "evaluation.json"


def evaluate_checkpoint(checkpoint: Path, *, data: Path, category: str | None, device: str, folder: Path) -> Evaluation:
    """Measure a checkpoint on a category's test pictures and write everything into `folder`.

    `evaluation.json` comes last: where it is, the rest is too.

    Raises:
        StlmError: in the words of whatever is wrong with checkpoint, pictures or folder.
    """
    loaded = load(checkpoint)
    samples = load_category(data, category).test
    inspector = InferencePath(loaded.network, loaded.spec).to(choose_device(device))
    make_folder(folder)
    results = evaluate(inspector, samples)
    write_scores(folder / "evaluation-scores.csv", results)
    write_sheet(folder / "evaluation.png", inspector, results)
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
    """Write the evaluation, undefined metrics as null. Raises `OutputError`."""
    write_text(path, json.dumps(_finite(dataclasses.asdict(evaluation)), indent=2) + "\n")


def write_scores(path: Path, results: Results) -> None:
    """Write one line of CSV for each picture. Raises `OutputError`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("picture", "label", "score", "anomalous", "tlm_score"))
    for picture in results.pictures:
        anomalous = int(picture.score >= results.evaluation.threshold)
        name = f"{picture.sample.path.parent.name}/{picture.sample.path.name}"
        writer.writerow((name, picture.sample.label, f"{picture.score:.7g}", anomalous, f"{picture.tlm_score:.7g}"))
    write_text(path, text.getvalue())


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
