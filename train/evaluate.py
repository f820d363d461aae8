"""How good a model is on labelled pictures, at their own resolution."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stlm_edge.datasets import GOOD, Sample, read_truth
from stlm_edge.drawing import contact_sheet, draw_regions, heat_map
from stlm_edge.errors import DataError
from stlm_edge.files import write_text
from stlm_edge.imaging import Image, Map, Mask, read_image, resize_map, to_input, write_image
from stlm_edge.metrics import average_precision, best_f1, pixel_metrics, roc_auc
from stlm_edge.network.inspector import Inspector
from stlm_edge.scoring import is_anomalous


@dataclass(frozen=True)
class Inspected:
    """One picture, what is true about it and what the model says.

    Attributes:
        anomaly_map, mask: (H, W) in the picture's own pixels.
    """

    sample: Sample
    anomaly_map: Map
    mask: Mask
    score: float


@dataclass(frozen=True)
class Scores:
    """Metrics over some pictures; NaN where they are undefined, for instance without a good picture.

    Attributes:
        aupro: area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3.
        pixel_fnr: false negative rate (equation 9) at the F1-optimal pixel threshold.
    """

    images: int
    image_auroc: float
    image_ap: float
    pixel_auroc: float
    pixel_ap: float
    aupro: float
    pixel_fnr: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics over all test pictures and over good ones with each kind of defect.

    Attributes:
        threshold: of the specification; verdicts below are by it.
        f1_optimal_threshold: of the image score on these pictures, to compare.
        missed: defective pictures called good; false_alarms: good ones called anomalous.
    """

    category: str
    overall: Scores
    kinds: dict[str, Scores]
    threshold: float
    f1_optimal_threshold: float
    good: int
    defective: int
    missed: int
    false_alarms: int


@torch.no_grad()
def inspect(inspector: Inspector, samples: Sequence[Sample]) -> Iterator[Inspected]:
    """Run the whole inference path on pictures, one by one, as the runtime does. Raises `ImageError`."""
    device = next(inspector.parameters()).device
    inspector.eval()
    for sample in samples:
        image = read_image(sample.path)
        size = (image.shape[0], image.shape[1])
        mask = read_truth(sample, size=size)
        maps, scores = inspector(torch.from_numpy(to_input(image, spec=inspector.spec)).to(device))
        yield Inspected(
            sample=sample,
            anomaly_map=resize_map(maps[0].cpu().numpy(), size),
            mask=mask,
            score=float(scores[0]),
        )


@torch.no_grad()
def score_images(inspector: Inspector, images: Sequence[Image]) -> list[float]:
    """Image scores of pictures that have the network's input size already."""
    device = next(inspector.parameters()).device
    inspector.eval()
    return [float(inspector(torch.from_numpy(image[None]).to(device))[1][0]) for image in images]


def evaluate(inspector: Inspector, samples: Sequence[Sample]) -> tuple[Evaluation, list[Inspected]]:
    """Inspect labelled pictures and measure.

    Raises:
        DataError: if there are none.
    """
    if not samples:
        raise DataError("found no test pictures, expected test/good and test/<defect> beside train/good")
    threshold = inspector.spec.require_threshold()
    results = list(inspect(inspector, samples))
    good = [result for result in results if result.sample.label == GOOD]
    kinds = sorted({result.sample.label for result in results} - {GOOD})
    defective = [result for result in results if result.sample.label != GOOD]
    labels = np.array([result.sample.label != GOOD for result in results])
    evaluation = Evaluation(
        category=inspector.spec.category,
        overall=measure(results),
        kinds={kind: measure(good + [r for r in defective if r.sample.label == kind]) for kind in kinds},
        threshold=threshold.value,
        f1_optimal_threshold=best_f1(np.array([result.score for result in results]), labels).threshold,
        good=len(good),
        defective=len(defective),
        missed=sum(not is_anomalous(result.score, threshold) for result in defective),
        false_alarms=sum(is_anomalous(result.score, threshold) for result in good),
    )
    return evaluation, results


def measure(results: Sequence[Inspected]) -> Scores:
    """All metrics over some pictures."""
    labels = np.array([result.sample.label != GOOD for result in results])
    scores = np.array([result.score for result in results])
    pixels = pixel_metrics([result.anomaly_map for result in results], [result.mask for result in results])
    return Scores(
        images=len(results),
        image_auroc=roc_auc(scores, labels),
        image_ap=average_precision(scores, labels),
        pixel_auroc=pixels.auroc,
        pixel_ap=pixels.ap,
        aupro=pixels.aupro,
        pixel_fnr=pixels.best_f1.fnr,
    )


def table(evaluation: Evaluation) -> str:
    """The evaluation as text: one line for each kind of defect, then all together."""
    head = f"{'':<16}{'images':>8}{'image AUROC':>13}{'image AP':>10}{'pixel AUROC':>13}{'pixel AP':>10}{'AUPRO':>8}"
    lines = [head + f"{'pixel FNR':>11}"]
    for name, scores in [*evaluation.kinds.items(), ("all", evaluation.overall)]:
        lines.append(
            f"{name:<16}{scores.images:>8}{_percent(scores.image_auroc):>13}{_percent(scores.image_ap):>10}"
            f"{_percent(scores.pixel_auroc):>13}{_percent(scores.pixel_ap):>10}{_percent(scores.aupro):>8}"
            f"{_percent(scores.pixel_fnr):>11}"
        )
    lines.append(
        f"threshold {evaluation.threshold:.4f}: {evaluation.missed} of {evaluation.defective} defective ones missed, "
        f"{evaluation.false_alarms} of {evaluation.good} good ones called anomalous "
        f"(F1-optimal here: {evaluation.f1_optimal_threshold:.4f})"
    )
    return "\n".join(lines)


def write_json(path: Path, evaluation: Evaluation) -> None:
    """Write the evaluation, undefined metrics as null. Raises `OutputError`."""
    write_text(path, json.dumps(_finite(dataclasses.asdict(evaluation)), indent=2) + "\n")


def write_sheet(path: Path, results: Sequence[Inspected], *, threshold: float) -> None:
    """Picture, truth, map and overlay of the lowest, middle and highest score of each kind. Raises `OutputError`."""
    rows: list[list[Image]] = []
    captions: list[str] = []
    for label in sorted({result.sample.label for result in results}, key=lambda name: (name != GOOD, name)):
        ordered = sorted((r for r in results if r.sample.label == label), key=lambda result: result.score)
        for index in sorted({0, len(ordered) // 2, len(ordered) - 1}):
            result = ordered[index]
            image = read_image(result.sample.path)
            truth = draw_regions(image, result.mask.astype(np.float32), threshold=0.5)
            overlay = heat_map(image, result.anomaly_map, threshold=threshold)
            rows.append([image, truth, _grey(result.anomaly_map), overlay])
            verdict = "anomaly" if result.score >= threshold else "good"
            captions.append(f"{label}/{result.sample.path.stem}  score {result.score:.3f}  verdict: {verdict}")
    write_image(path, contact_sheet(rows, titles=("picture", "truth", "anomaly map", "overlay"), captions=captions))


def _grey(anomaly_map: Map) -> Image:
    """The map itself, 0 black and 1 white."""
    grey = np.clip(anomaly_map * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
