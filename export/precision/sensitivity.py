"""What INT8 does to the answers, one layer class at a time, and how far it can be taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.graph.onnx_model import INPUT, OUTPUTS, spec_of
from export.precision.apply import RANGE_IMAGES, PrecisionRecord, in_half, keep, load_pictures, with_classes
from export.precision.int8 import calibrate, quantised_nodes, quantised_only
from export.precision.layer_classes import QUANTISABLE, LayerClass, layer_class
from export.precision.rounded import rounded
from export.sources import float_source
from export.tensorrt.flops import node_flops
from stlm_edge.datasets import texture_paths
from stlm_edge.imaging import Input, read_image, to_input
from stlm_edge.sidecar import Calibration

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Harm:
    """What quantising one class does to the answers, against the graph in FP32.

    Attributes:
        layer_class: `none` for FP16 alone, which is what the rest is in here.
        nodes: how many are in INT8.
        flops_share: of all convolutions and matrix products.
        p99_map_error, map_correlation: over all pixels of all maps; None where a map is flat.
        max_score_error, rank_correlation: of the scores.
    """

    layer_class: LayerClass | str
    nodes: int
    flops_share: float
    p99_map_error: float
    map_correlation: float | None
    max_score_error: float
    rank_correlation: float | None


@dataclass(frozen=True)
class Calibrated:
    """All that is needed to write any choice of classes.

    Attributes:
        model: the graph in FP32.
        quantised: of `export.int8.calibrate`.
        kept: of `export.precision.apply.keep`.
    """

    model: onnx.ModelProto
    quantised: onnx.ModelProto
    kept: Mapping[str, str]
    calibration: Calibration

    def with_classes(self, classes: Iterable[LayerClass]) -> tuple[onnx.ModelProto, PrecisionRecord]:
        """The graph with these classes in INT8 and the rest in FP16, and its record."""
        return with_classes(self.quantised, tuple(classes), kept=self.kept, calibration=self.calibration)

    def classes(self) -> list[LayerClass]:
        """The classes that have something to quantise."""
        found = {layer_class(node) for node in quantised_nodes(self.quantised)}
        return [name for name in QUANTISABLE if name in found]


def calibrated(model: onnx.ModelProto, data: Path, *, count: int, seed: int) -> Calibrated:
    """Measure ranges on the good pictures of a folder. Raises `DataError`, `EngineError`."""
    pictures, calibration = load_pictures(model, data, count=count, seed=seed)
    kept = keep(model, pictures[:RANGE_IMAGES])
    return Calibrated(model, calibrate(model, pictures, kept=kept), kept, calibration)


def harms(given: Calibrated, pictures: Sequence[Input]) -> list[Harm]:
    """One entry for each class, the least harmful first, after that of FP16 alone.

    The rest of the graph is in FP16, rounded as a GPU rounds, and run by ONNX Runtime on the processor.

    Args:
        pictures: (1, H, W, 3) each; better not those that were calibrated on.
    """
    flops = node_flops(given.model, batch=1)
    whole = sum(flops.values())
    wanted = _answers(given.model, pictures)
    in_fp16, _ = in_half(given.model, "fp16", kept=given.kept, calibration=given.calibration)
    found = [_harm("none", 0, 0.0, wanted, _answers(rounded(in_fp16), pictures))]
    rows = []
    for name in given.classes():
        nodes = [node.name for node in quantised_nodes(quantised_only(given.quantised, [name]))]
        made, _ = given.with_classes([name])
        share = sum(flops[node] for node in nodes) / whole
        rows.append(_harm(name, len(nodes), share, wanted, _answers(rounded(made), pictures)))
    return found + sorted(rows, key=lambda row: row.p99_map_error)


def quantise_as_much_as(
    accept: Callable[[onnx.ModelProto], bool], *, given: Calibrated, order: Sequence[LayerClass]
) -> tuple[onnx.ModelProto, PrecisionRecord]:
    """Quantise one class after the other, as long as the answers are accepted.

    Args:
        accept: says of a graph in its final precision whether its answers are good enough.
        order: classes to try, the least harmful first, as `harms` sorts them. The first that is refused ends it.
    Returns:
        The last graph that was accepted, and its record; in FP16 alone if not even one class was, in which case
        `accept` has not been asked about it.
    """
    best = in_half(given.model, "fp16", kept=given.kept, calibration=given.calibration)
    chosen: list[LayerClass] = []
    for name in order:
        made = given.with_classes([*chosen, name])
        if not accept(made[0]):
            logger.info("INT8 for %s is refused; quantised: %s", name, ", ".join(chosen) or "nothing")
            break
        chosen.append(name)
        best = made
    return best


def sensitivity_table(
    source: Path, *, data: Path, test: Path | None, count: int, seed: int, images: int
) -> tuple[list[Harm], Calibration]:
    """What `python -m export sensitivity` prints.

    Args:
        source: a checkpoint, or a float32 graph of this toolkit.
        test: pictures to measure the errors on; None takes those that were calibrated on.
    Raises:
        StlmError: if graph or pictures cannot be used.
    """
    model = float_source(source).model
    given = calibrated(model, data, count=count, seed=seed)
    if test is None:
        logger.warning("errors are measured on pictures that were calibrated on; give --test for others")
        pictures, _ = load_pictures(model, data, count=min(images, count), seed=seed)
    else:
        paths = [path for path in texture_paths(test) if "ground_truth" not in path.parts]
        picked = np.unique(np.linspace(0, len(paths) - 1, images).round().astype(int))
        spec = spec_of(model, source)
        pictures = [to_input(read_image(paths[index]), spec=spec) for index in picked]
    return harms(given, pictures), given.calibration


def table(rows: Sequence[Harm]) -> str:
    """Lines to print."""
    lines = [f"{'class':<20} {'nodes':>5} {'FLOPs':>6} {'map p99':>8} {'map corr':>8} {'score':>7} {'rank':>7}"]
    for row in rows:
        lines.append(
            f"{row.layer_class:<20} {row.nodes:>5} {row.flops_share:>6.1%} {row.p99_map_error:>8.4f} "
            f"{_figure(row.map_correlation):>8} {row.max_score_error:>7.4f} {_figure(row.rank_correlation):>7}"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _answers(model: onnx.ModelProto, pictures: Sequence[Input]) -> tuple[Floats, Floats]:
    """Maps, (N, h * w), and scores, (N,)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers = [session.run(list(OUTPUTS[:2]), {INPUT: picture}) for picture in pictures]
    maps, scores = zip(*answers, strict=True)
    return np.concatenate(maps).reshape(len(pictures), -1).astype(np.float64), np.concatenate(scores).astype(np.float64)


def _harm(
    name: LayerClass | str, nodes: int, share: float, wanted: tuple[Floats, Floats], found: tuple[Floats, Floats]
) -> Harm:
    return Harm(
        layer_class=name,
        nodes=nodes,
        flops_share=share,
        p99_map_error=float(np.quantile(np.abs(found[0] - wanted[0]), 0.99)),
        map_correlation=_correlation(found[0].ravel(), wanted[0].ravel()),
        max_score_error=float(np.abs(found[1] - wanted[1]).max()),
        rank_correlation=_correlation(_ranks(found[1]), _ranks(wanted[1])),
    )


def _correlation(first: Floats, second: Floats) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Floats) -> Floats:
    """Ranks from 0, equal values sharing their mean."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(sizes) - (sizes + 1) / 2
    return np.asarray(mean_rank[group], np.float64)
