"""Engines of a network at several sizes and precisions: built by the toolkit's own pipeline, kept, and used again.

A file's name ends in a digest of everything that its content and its verdict hang on (weights and specification, the
pictures of the gate and of the calibration, versions, the code that exports), so what has its name is what would be
built again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stlm_edge
from benchmarks.frontier import Candidate
from export.gate.pictures import choose, find_samples
from export.openvino.write import require_possible
from export.pipeline import export_openvino
from export.precision.calibration import choose_pictures
from export.publish import unverified_name
from export.sources import Pictures, float_source
from runtime.backends import vouched
from stlm_edge.errors import EngineError, SpecError, VerificationError
from stlm_edge.files import sha256, write_bytes
from stlm_edge.network.checkpoint import Checkpoint, load, save
from stlm_edge.network.encoder import architecture_named
from stlm_edge.network.stlm import Stlm
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec, Size, check_input_size

if TYPE_CHECKING:
    from export.openvino.write import CpuPrecision

logger = logging.getLogger(__name__)

_CODE = ("export", "stlm_edge")
"""Packages that an engine and its verdict come from."""


@dataclass(frozen=True)
class Setting:
    """What an engine is to be built of.

    Attributes:
        label: of the checkpoint, for people and file names.
        trained: the checkpoint's own specification.
    """

    checkpoint: Path
    label: str
    trained: ModelSpec
    size: Size
    precision: CpuPrecision

    @property
    def name(self) -> str:
        height, width = self.size
        return f"{self.label} {height if height == width else f'{height}x{width}'} {self.precision}"


def settings(checkpoints: Sequence[Path], sizes: Sequence[Size], precisions: Sequence[CpuPrecision]) -> list[Setting]:
    """All combinations, in this order.

    Args:
        sizes: of the input; without any, each checkpoint's own.
    Raises:
        SpecError: if a size is not a multiple of 32, or a checkpoint has no threshold.
        EngineError: if the processor lacks a precision, or a package is missing.
        CheckpointError: if a checkpoint cannot be read.
    """
    for size in sizes:
        check_input_size(size)
    made = []
    for path in checkpoints:
        for precision in precisions:
            require_possible(path, precision)
        spec = load(path).spec
        spec.require_threshold()
        label = path.resolve().parent.name if path.stem == "model" else path.stem
        made += [
            Setting(path, label, spec, size, precision)
            for size in sizes or (spec.input_size,)
            for precision in precisions
        ]
    return made


def resized(trained: Checkpoint, size: Size) -> Checkpoint:
    """The same weights for pictures of another size; windows and positions of the network follow the input.

    The threshold stays: it was found at the old size and has to be chosen again before such an engine is used.

    Raises:
        SpecError: if `size` is not a multiple of 32.
    """
    spec = dataclasses.replace(trained.spec, input_size=size, map_size=size)
    network = Stlm(architecture_named(spec.architecture), trained.network.design, image_size=size)
    network.load_state_dict(trained.network.state_dict())
    return Checkpoint(network.eval(), spec, trained.config)


def build(setting: Setting, *, work: Path, pictures: Pictures) -> Candidate:
    """Make an engine in `work`, or take the one that is there.

    Args:
        pictures: that it is calibrated on and judged by.
    Returns:
        The engine, also one that the gate refuses.
    Raises:
        StlmError: if it cannot be built or judged.
    """
    checkpoint, graph = _graph(setting, work)
    digest = _digest(graph.name, setting.precision, _judged_by(pictures, setting.precision))
    output = work / f"{_stem(setting)}-{setting.precision}-{digest}.xml"
    for path in (output, unverified_name(output)):
        if (found := _whole(path)) is not None and found.engine.gate is not None:
            logger.info("%s: taken as it is", path)
            return Candidate.read(path, name=setting.name, trained_at=setting.trained.input_size)
    logger.info("%s: building", output)
    path = output
    with contextlib.redirect_stdout(sys.stderr):  # the gate's table; ours alone is the result
        try:
            export_openvino(
                graph,
                output,
                precision=setting.precision,
                pictures=dataclasses.replace(pictures, reference=checkpoint),
            )
        except VerificationError:
            path = unverified_name(output)
            if not path.is_file():  # it was not refused, it could not be judged
                raise
    return Candidate.read(path, name=setting.name, trained_at=setting.trained.input_size)


def _graph(setting: Setting, work: Path) -> tuple[Path, Path]:
    """The checkpoint of the setting's size, and its graph in float32: traced once for all precisions."""
    checkpoint = setting.checkpoint
    digest = _digest(sha256(setting.checkpoint), setting.size, _versions())
    if setting.size != setting.trained.input_size:
        checkpoint = work / f"{_stem(setting)}-{digest}.safetensors"
        if not checkpoint.is_file():
            save(checkpoint, resized(load(setting.checkpoint), setting.size))
    graph = work / f"{_stem(setting)}-{digest}.onnx"
    if not graph.is_file():
        logger.info("%s: tracing", graph)
        write_bytes(graph, float_source(checkpoint).model.SerializeToString())
    return checkpoint, graph


def _whole(path: Path) -> Sidecar | None:
    """The sidecar of an engine that is there and unharmed."""
    if not path.exists():
        return None
    try:
        return vouched(path)
    except (EngineError, SpecError) as error:
        logger.warning("%s is built again (%s)", path, error)
        return None


def _stem(setting: Setting) -> str:
    return "{}-{}x{}".format(setting.label, *setting.size)


def _judged_by(pictures: Pictures, precision: str) -> list[str]:
    """What a verdict hangs on besides the engine: the pictures, and for INT8 those of the calibration."""
    assert pictures.data is not None
    chosen = choose(find_samples(pictures.data, pictures.category), pictures.images)
    hashes = [sha256(path) for sample in chosen for path in (sample.path, sample.mask) if path is not None]
    good = pictures.good()
    if precision == "int8" and good is not None:
        hashes.append(choose_pictures(good, count=pictures.calibration_images, seed=pictures.seed)[1].sha256)
    return hashes


def _versions() -> list[str]:
    """Of the packages that make an engine, and of the code that does."""
    packages = [name for name in ("torch", "onnx", "openvino", "nncf") if importlib.util.find_spec(name)]
    root = Path(str(stlm_edge.__file__)).parents[1]
    sources = sorted(path for package in _CODE for path in (root / package).rglob("*.py"))
    return [f"{name} {importlib.metadata.version(name)}" for name in packages] + [sha256(path) for path in sources]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
