"""Curves and score distributions of an evaluation, as pictures for people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stlm_edge.curves import Line
from stlm_edge.datasets import GOOD
from stlm_edge.files import write_bytes
from stlm_edge.metrics import FPR_LIMIT
from train.evaluation import Curves, Evaluation, Results, Scores

KIND_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#6A51A3")
"""Six of Okabe and Ito's, which colour-blind people can tell apart, and two more; kinds beyond them are dashed."""
INK = "#262A30"
GREY = "#8A8F98"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.parse_math": False,  # a folder's name may have dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#E6E8EB",
    "axes.axisbelow": True,
}


def write_curves(path: Path, results: Results) -> None:
    """Draw ROC curves of pictures and pixels, PRO and precision-recall: each kind, all, and all without aggregation.

    The file's suffix decides the format: .png, .svg or .pdf. Raises `OutputError`.
    """
    evaluation = results.evaluation
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 9.2), dpi=120, layout="compressed")
        (image_roc, pixel_roc), (pro, precision) = figure.subplots(2, 2)
        _draw_all(image_roc, results, "image_roc")
        _draw_all(pixel_roc, results, "pixel_roc")
        _draw_all(pro, results, "pro")
        _draw_all(precision, results, "pixel_precision_recall")
        for axes, name in ((image_roc, "Images"), (pixel_roc, "Pixels")):
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", zorder=1)
            axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title=f"{name}: ROC")
        pro.axvspan(FPR_LIMIT, 1, color="white", alpha=0.75, zorder=8, linewidth=0)
        pro.axvline(FPR_LIMIT, color=INK, linewidth=0.8, zorder=9)
        pro.annotate(
            f"counts up to {FPR_LIMIT}", (FPR_LIMIT, 0.03), xytext=(5, 0), textcoords="offset points", zorder=10
        )
        pro.set(xlabel="false-positive rate of pixels", ylabel="mean overlap of regions", title="Regions: PRO")
        precision.set(xlabel="recall", ylabel="precision", title="Pixels: precision and recall")
        for axes in (image_roc, pixel_roc, pro, precision):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
        _legend(figure, evaluation)
        figure.suptitle(f"{evaluation.category}: {evaluation.overall.images} test pictures", fontweight="bold")
        _write(path, figure)


def write_distribution(path: Path, results: Results) -> None:
    """Draw each picture's score, a row for each kind, and the thresholds; wrong verdicts are hollow.

    Raises `OutputError`.
    """
    evaluation = results.evaluation
    labels = sorted({p.sample.label for p in results.pictures}, key=lambda name: (name != GOOD, name))
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 1.7 + 0.55 * len(labels)), dpi=120, layout="constrained")
        axes = figure.subplots()
        for row, label in enumerate(labels):
            scores = np.array([p.score for p in results.pictures if p.sample.label == label])
            colour = INK if label == GOOD else _colour(row - (GOOD in labels))
            wrong = (scores >= evaluation.threshold) == (label == GOOD)
            height = row + _spread(scores)
            axes.scatter(scores[~wrong], height[~wrong], s=20, color=colour, alpha=0.75, linewidth=0, zorder=3)
            axes.scatter(scores[wrong], height[wrong], s=22, facecolor="white", edgecolor=colour, zorder=4)
            axes.plot([np.median(scores)] * 2, [row - 0.36, row + 0.36], color=colour, linewidth=1.5, zorder=5)
        top = -0.62
        axes.axvline(evaluation.threshold, color=INK, linewidth=1.2, zorder=2, label=_threshold_text(evaluation))
        if np.isfinite(evaluation.f1_optimal_threshold):
            axes.axvline(
                evaluation.f1_optimal_threshold,
                color=GREY,
                linewidth=1.2,
                linestyle="--",
                zorder=2,
                label=f"F1-optimal on these pictures, {evaluation.f1_optimal_threshold:.3f}",
            )
        names = [f"{label} ({sum(p.sample.label == label for p in results.pictures)})" for label in labels]
        axes.set_yticks(range(len(labels)), names)
        axes.set(ylim=(len(labels) - 0.4, top), xlabel="score of the picture")
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{evaluation.category}: scores, hollow where the verdict is wrong, a bar at the median")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        _write(path, figure)


def _draw_all(axes: Axes, results: Results, name: str) -> None:
    kinds = [kind for kind in results.curves if kind != "all"]
    for index, kind in enumerate(kinds if len(kinds) > 1 else []):
        line = _line(results.curves[kind], name)
        axes.plot(*line.T, color=_colour(index), linestyle=_dash(index), linewidth=1.1, alpha=0.9, zorder=3)
    if results.tlm_curves is not None:
        axes.plot(*_line(results.tlm_curves, name).T, color=GREY, linewidth=1.8, linestyle=(0, (3, 1.5)), zorder=4)
    axes.plot(*_line(results.curves["all"], name).T, color=INK, linewidth=2.2, zorder=5)
    if not len(_line(results.curves["all"], name)):
        axes.text(0.6, 0.25, "undefined: good and defective\npictures are needed", ha="center", va="center")


def _legend(figure: Figure, evaluation: Evaluation) -> None:
    """One legend for all four: what each line is, with the areas below it."""
    handles = [Line2D([], [], color=INK, linewidth=2.2, label=_areas("all", evaluation.overall))]
    kinds = list(evaluation.kinds.items())
    for index, (kind, scores) in enumerate(kinds if len(kinds) > 1 else []):
        handles.append(
            Line2D([], [], color=_colour(index), linestyle=_dash(index), linewidth=1.4, label=_areas(kind, scores))
        )
    if evaluation.tlm_only is not None:
        label = _areas("all, without feature aggregation", evaluation.tlm_only.overall)
        handles.append(Line2D([], [], color=GREY, linewidth=1.8, linestyle=(0, (3, 1.5)), label=label))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        title="image AUROC · pixel AUROC · AUPRO · pixel AP (%)",
    )


def _areas(name: str, scores: Scores) -> str:
    values: Sequence[float] = (scores.image_auroc, scores.pixel_auroc, scores.aupro, scores.pixel_ap)
    return f"{name}: " + " · ".join("–" if np.isnan(value) else f"{100 * value:.1f}" for value in values)


def _threshold_text(evaluation: Evaluation) -> str:
    methods = {"quantile": "from good pictures", "f1": "F1-optimal", "manual": "given by hand"}
    return f"threshold {methods[evaluation.threshold_method]}, {evaluation.threshold:.3f}"


def _line(curves: Curves, name: str) -> Line:
    line: Line = getattr(curves, name)
    return line


def _colour(index: int) -> str:
    return KIND_COLOURS[index % len(KIND_COLOURS)]


def _dash(index: int) -> Literal["-", "--"]:
    return "-" if index < len(KIND_COLOURS) else "--"


def _spread(scores: np.ndarray) -> np.ndarray:
    """Up and down by turns, so that near ones do not cover each other; the same in every drawing."""
    offsets = np.array([0.0, 0.5, -0.5, 0.25, -0.25, 0.75, -0.75])
    rank = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    return 0.34 * offsets[rank % len(offsets)]


def _write(path: Path, figure: Figure) -> None:
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix.lstrip(".") or "png")
    write_bytes(path, data.getvalue())
