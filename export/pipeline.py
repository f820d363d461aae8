"""The road of an export: source → graph → in precision → built → judged → published, or nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from export.gate.pictures import Pictures, choose, find_samples, read
from export.gate.verify import judge
from export.graph.graph import MOST_TOP_K, Graph, GraphOptions, Precision, load_graph
from export.graph.parts import LayerClass
from export.precision.apply import INT8_CLASSES, in_precision
from export.precision.sensitivity import quantise_automatically
from export.publish import publish
from stlm_edge.errors import ConfigError, OutputError, SpecError
from stlm_edge.files import require_place, sha256
from stlm_edge.sidecar import EngineRecord, Gate, Sidecar

logger = logging.getLogger(__name__)

Classes = Literal["auto"] | tuple[LayerClass, ...]
"""The layer classes to quantise; `auto` takes as many as the gate accepts."""


class Builder(Protocol):
    """What makes one form of an engine: `OnnxBuilder`, `PlanBuilder` or `OpenVinoBuilder`.

    Attributes:
        suffix: of what it makes.
    """

    suffix: ClassVar[str]

    def precision_of(self, graph: Graph) -> Precision:
        """In which it takes a graph. Raises `ConfigError` if it does not take this one."""

    def build(self, graph: Graph, output: Path) -> None:
        """Write the engine and everything that belongs to it, its sidecar last. May raise `StlmError`."""


@dataclass(frozen=True)
class OnnxBuilder:
    """Makes an `.onnx`, which is the graph itself."""

    suffix: ClassVar[str] = ".onnx"

    precision: Precision = "fp32"

    def precision_of(self, graph: Graph) -> Precision:
        if graph.content is not None and self.precision == graph.precision:
            raise ConfigError(f"the graph is in {self.precision} already, so there is nothing to export; copy it")
        return self.precision

    def build(self, graph: Graph, output: Path) -> None:
        if graph.spec.top_k > MOST_TOP_K:
            logger.warning(
                "NO TENSORRT takes %s: its score is the mean of the %d highest pixels (top_k), which may be %d there",
                output.name,
                graph.spec.top_k,
                MOST_TOP_K,
            )
        graph.save(output)
        record = EngineRecord(
            product="onnx",
            version=graph.made_by,
            device="any",
            precision=graph.precision,
            engine_sha256=sha256(output),
            precision_by_class=graph.record.by_class,
            calibration=graph.record.calibration,
        )
        Sidecar(spec=graph.spec, engine=record).write(output)


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export gives besides its files.

    Attributes:
        graph: of the source, before its precision was chosen.
        gate: the verdict, no refusal; None if there was nothing to judge by.
        lines: what the gate found, for people.
    """

    graph: Graph
    gate: Gate | None
    lines: tuple[str, ...]


def export(
    source: Path,
    output: Path,
    *,
    builder: Builder,
    pictures: Pictures | None = None,
    options: GraphOptions | None = None,
    classes: Classes = "auto",
) -> Exported:
    """Make an engine that gives the network's answers.

    From a graph that carries its precision already, a plan needs neither torch nor ModelOpt: so a Jetson builds again.

    Args:
        source: a checkpoint, or a graph of this toolkit.
        output: of the builder's suffix.
        options: how a checkpoint is traced.
        classes: the layer classes to quantise where the builder asks for a graph in INT8.
    Raises:
        VerificationError: if its answers drift too far; see `publish`.
        StlmError: if source, pictures or place cannot be used, or what builds it fails.
    """
    pictures = pictures or Pictures()
    graph = open_source(source, output, suffix=builder.suffix, pictures=pictures, options=options)
    ready = _in_precision(graph, builder.precision_of(graph), source=source, pictures=pictures, classes=classes)
    tell_of_chosen_threshold(output)
    found = publish(
        output,
        write=lambda path: builder.build(ready, path),
        judge=lambda path: judge(path, source=source, graph=graph, pictures=pictures),
    )
    return Exported(graph, *((None, ()) if found is None else (found.gate, found.lines)))


def open_source(source: Path, output: Path, *, suffix: str, pictures: Pictures, options: GraphOptions | None) -> Graph:
    """The graph of a source, after the place and the pictures are seen to be usable. Raises `StlmError`."""
    if output.suffix != suffix:
        raise OutputError(f"{output} has the suffix {output.suffix!r}, expected {suffix}; rename the output")
    require_place(output)
    pictures.require_usable()
    return load_graph(source, options)


def _in_precision(graph: Graph, precision: Precision, *, source: Path, pictures: Pictures, classes: Classes) -> Graph:
    if precision == graph.precision:
        return graph
    good, count, seed = pictures.good(), pictures.calibration_images, pictures.seed
    if classes != "auto" or (graph.precision, precision) != ("fp32", "int8"):
        chosen = INT8_CLASSES if classes == "auto" else classes
        return in_precision(graph, precision, good=good, count=count, seed=seed, classes=chosen)
    if good is None or pictures.data is None:
        raise ConfigError(
            "INT8 needs good pictures to calibrate on and pictures for the gate, found none; give --data with a data "
            "set, or --data and --calibration"
        )
    judged = list(read(choose(find_samples(pictures.data, pictures.category), pictures.images)))
    reference = pictures.reference or source
    return quantise_automatically(graph, good, count=count, seed=seed, reference=reference, pictures=judged)


def tell_of_chosen_threshold(output: Path) -> None:
    """A threshold that was chosen on the engine which is about to be replaced does not come along."""
    try:
        threshold = Sidecar.read(output).spec.threshold
    except SpecError:
        return
    if threshold is not None and threshold.previous is not None:
        logger.warning(
            "%s had the threshold %.4g, chosen on that very engine; the new one starts with the network's, choose it "
            "again: stlm threshold %s --data GOOD_PICTURES",
            output,
            threshold.value,
            output,
        )
