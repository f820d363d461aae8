"""What an export starts from: a checkpoint or a graph that was exported before, and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from export.gate.pictures import find_samples
from export.graph.onnx_model import read_model
from export.precision.apply import Precision, precision_of
from export.precision.calibration import COUNT, has_good_pictures
from stlm_edge.datasets.listing import require_folder
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.spec import Size

if TYPE_CHECKING:
    from export.graph.deployment import Streams


EXPORT_IMAGES = 16
"""Pictures that an export is compared on unless asked otherwise; `verify` takes all."""


@dataclass(frozen=True)
class GraphOptions:
    """What the exported graph takes and gives, see `DeploymentGraph` and `to_onnx`."""

    frame_size: Size | None = None
    streams: Streams = "branched"
    full_map: bool = False
    max_batch: int = 1


@dataclass(frozen=True)
class Pictures:
    """What an export is measured and judged on.

    Attributes:
        data: the gate's pictures, with labels where their layout has some; None for drawn parts.
        category: a folder below `data`.
        images: of the gate, at most.
        calibration: a folder of good pictures that ranges are measured on; None takes those for training of `data`.
        calibration_images, seed: how many of them at most, and of their choice.
        worst: a picture of the gate's worst cases is written here.
        reference: what the gate compares with; None for the source itself.
    """

    data: Path | None = None
    category: str | None = None
    images: int = EXPORT_IMAGES
    calibration: Path | None = None
    calibration_images: int = COUNT
    seed: int = 0
    worst: Path | None = None
    reference: Path | None = None

    def require_usable(self) -> None:
        """Before minutes of work: raises `DataError` if there are no pictures where they were said to be."""
        if self.data is not None:
            find_samples(self.data, self.category)
        if self.calibration is not None:
            require_folder(self.calibration)

    def good(self) -> Path | None:
        """Where good pictures are that ranges can be measured on."""
        if self.calibration is not None or self.data is None:
            return self.calibration
        folder = self.data if self.category is None else self.data / self.category
        return folder if has_good_pictures(folder) else None


@dataclass(frozen=True, eq=False)
class Source:
    """A graph to build an engine from.

    Attributes:
        precision: of the graph.
        made_by: for the record of an ONNX engine.
        is_checkpoint: it was traced just now.
    """

    path: Path
    model: onnx.ModelProto
    precision: Precision
    made_by: str
    is_checkpoint: bool


def read_source(path: Path, options: GraphOptions | None = None) -> Source:
    """Trace a checkpoint, or read a graph.

    Args:
        options: how a checkpoint is traced; a graph has its form already.
    Raises:
        ConfigError: if a graph is to have another form.
        CheckpointError, SpecError: if a checkpoint cannot be used, or has no threshold.
        EngineError: if a graph cannot be used, or PyTorch is missing.
    """
    if path.suffix == ".onnx":
        if options not in (None, GraphOptions()):
            raise ConfigError(f"{path} is a graph already, its form is settled; give its checkpoint to shape it anew")
        model = read_model(path)
        try:
            record = precision_of(model)
        except EngineError as error:
            raise EngineError(f"{path}: {error}") from None
        return Source(path, model, "fp32" if record is None else record.precision, f"onnx {onnx.__version__}", False)
    return _trace(path, options or GraphOptions())


def float_source(path: Path, options: GraphOptions | None = None) -> Source:
    """The same, in float32. Raises `ConfigError` for a graph in another precision."""
    source = read_source(path, options)
    if source.precision != "fp32":
        raise ConfigError(
            f"{path} is in {source.precision} already; give the checkpoint, or the graph that "
            "'python -m export onnx CHECKPOINT' wrote in fp32"
        )
    return source


def _trace(path: Path, options: GraphOptions) -> Source:
    try:
        import torch

        from export.graph.deployment import DeploymentGraph
        from export.graph.to_onnx import to_onnx
        from stlm_edge.network.checkpoint import load
        from stlm_edge.network.inference import InferencePath
    except ImportError as error:
        raise EngineError(
            f"{path} is no .onnx file, and reading a checkpoint needs PyTorch, which cannot be imported ({error}); "
            "export it to ONNX on another machine, or pip install 'stlm-edge[export]'"
        ) from error
    loaded = load(path)
    loaded.spec.require_threshold()
    graph = DeploymentGraph(
        InferencePath(loaded.network, loaded.spec).eval(),
        frame_size=options.frame_size,
        streams=options.streams,
        full_map=options.full_map,
    )
    return Source(path, to_onnx(graph, max_batch=options.max_batch), "fp32", f"torch {torch.__version__}", True)
