"""What INT8 does to the answers, one layer class at a time, and how far it can be taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.gate.inspectors import open_reference
from export.gate.pictures import Picture
from export.gate.verify import would_verify
from export.graph.graph import INPUT, OUTPUTS, Graph, load_graph
from export.graph.parts import LayerClass, node_flops
from export.precision.apply import Calibrated, calibrated, load_pictures
from export.precision.int8 import quantised_nodes, quantised_only
from export.precision.rounded import rounded
from stlm_edge.datasets import texture_paths
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Image, Input, read_image, to_input
from stlm_edge.inspection import Answer, Inspector
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


def harms(given: Calibrated, pictures: Sequence[Input]) -> list[Harm]:
    """One entry for each class, the least harmful first, after that of FP16 alone.

    The rest of the graph is in FP16, rounded as a GPU rounds, and run by ONNX Runtime on the processor.

    Args:
        pictures: (1, H, W, 3) each; better not those that were calibrated on.
    """
    flops = node_flops(given.graph.model, batch=1)
    whole = sum(flops.values())
    wanted = _answers(given.graph.model, pictures)
    found = [_harm("none", 0, 0.0, wanted, _answers(rounded(given.in_half().model), pictures))]
    rows = []
    for name in given.classes():
        nodes = [node.name for node in quantised_nodes(quantised_only(given.quantised, [name]))]
        made = given.with_classes([name]).model
        share = sum(flops[node] for node in nodes) / whole
        rows.append(_harm(name, len(nodes), share, wanted, _answers(rounded(made), pictures)))
    return found + sorted(rows, key=lambda row: row.p99_map_error)


def quantise_as_much_as(accept: Callable[[Graph], bool], *, given: Calibrated, order: Sequence[LayerClass]) -> Graph:
    """Quantise one class after the other, as long as the answers are accepted.

    Args:
        accept: says of a graph in its final precision whether its answers are good enough.
        order: classes to try, the least harmful first, as `harms` sorts them. The first that is refused ends it.
    Returns:
        The last graph that was accepted; in FP16 alone if not even one class was, in which case `accept` has not been
        asked about it.
    """
    best = given.in_half()
    chosen: list[LayerClass] = []
    for name in order:
        made = given.with_classes([*chosen, name])
        if not accept(made):
            logger.info("INT8 for %s is refused; quantised: %s", name, ", ".join(chosen) or "nothing")
            break
        chosen.append(name)
        best = made
    return best


def quantise_automatically(
    graph: Graph, good: Path, *, count: int, seed: int, reference: Path, pictures: Sequence[Picture]
) -> Graph:
    """Quantise one layer class after the other, the least harmful first, as long as the gate accepts.

    Each choice is run on the processor, in INT8 and FP16 as a GPU rounds.

    Args:
        graph: in float32.
        good: a folder of good pictures to calibrate on, see `calibrated`.
        reference: what the gate compares with, a checkpoint or a float32 graph.
        pictures: the gate's.
    Returns:
        The graph; in FP16 alone, with a warning, if not even one class is accepted.
    Raises:
        StlmError: if a picture cannot be used, or ModelOpt is missing or fails.
    """
    given = calibrated(graph, good, count=count, seed=seed)
    with open_reference(reference, spec=graph.spec) as opened:
        remembered = _Remembered(opened.inspector, pictures)
    found = harms(given, [to_input(picture.image, spec=graph.spec) for picture in pictures])
    logger.info("what INT8 does to each layer class, errors against FP32:\n%s", table(found))
    order = {row.layer_class: place for place, row in enumerate(found)}
    quantised = quantise_as_much_as(
        lambda choice: would_verify(choice, reference=remembered, pictures=pictures),
        given=given,
        order=sorted(given.classes(), key=lambda name: order[name]),
    )
    if quantised.precision != "int8":
        logger.warning("NOTHING IN INT8: the gate accepts not even one layer class, so all of it is in FP16")
    return quantised


class _Remembered:
    """What has been answered to pictures before."""

    def __init__(self, inspector: Inspector, pictures: Sequence[Picture]) -> None:
        self.name = "reference"
        self._answers = {id(picture.image): inspector.inspect(picture.image) for picture in pictures}

    def inspect(self, image: Image) -> Answer:
        """To one of those very arrays."""
        return self._answers[id(image)]


def sensitivity_table(
    source: Path, *, data: Path, test: Path | None, count: int, seed: int, images: int
) -> tuple[list[Harm], Calibration]:
    """What `stlm sensitivity` prints.

    Args:
        source: a checkpoint, or a float32 graph of this toolkit.
        test: pictures to measure the errors on; None takes those that were calibrated on.
    Raises:
        StlmError: if graph or pictures cannot be used.
    """
    graph = load_graph(source)
    if graph.precision != "fp32":
        raise ConfigError(
            f"{source} is in {graph.precision} already; give the checkpoint, or the graph that "
            "'stlm export CHECKPOINT -o GRAPH.onnx' wrote in fp32"
        )
    given = calibrated(graph, data, count=count, seed=seed)
    if test is None:
        logger.warning("errors are measured on pictures that were calibrated on; give --test for others")
        pictures, _ = load_pictures(data, spec=graph.spec, count=min(images, count), seed=seed)
    else:
        paths = [path for path in texture_paths(test) if "ground_truth" not in path.parts]
        picked = np.unique(np.linspace(0, len(paths) - 1, images).round().astype(int))
        pictures = [to_input(read_image(paths[index]), spec=graph.spec) for index in picked]
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
    import onnxruntime  # a Jetson that builds from a graph in its precision has none

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
