"""An engine like another one: of another network, by the same product, precision and target, and of the same form."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from export.gate.pictures import Pictures
from export.graph.graph import GraphOptions, Precision
from export.pipeline import Builder, Exported, OnnxBuilder, export
from stlm_edge.errors import ConfigError, shown
from stlm_edge.sidecar import Sidecar
from stlm_edge.tensorrt import PORTABLE, TITLES

logger = logging.getLogger(__name__)


def export_like(like: Path, checkpoint: Path, output: Path, *, pictures: Pictures) -> Exported:
    """Make and judge an engine of a checkpoint as another one was made.

    How the graph was shaped (`--streams`, `--local-conv`, `--simplify`) and what memory and timings its build had, no
    sidecar tells; those are the defaults. INT8 quantises as many layer classes as the gate accepts now.

    Args:
        like: an engine beside its sidecar.
        output: of the same suffix.
    Raises:
        VerificationError: if the answers drift too far; see `publish`.
        StlmError: if there is no such engine, or what `export` raises.
    """
    sidecar = Sidecar.read(like)
    spec = sidecar.spec
    threshold = spec.threshold
    if threshold is not None and threshold.previous is not None:
        logger.warning(
            "%s has the threshold %.4g, chosen on that very engine; the new one starts with its network's, choose it "
            "again: stlm threshold %s --data GOOD_PICTURES",
            like,
            threshold.value,
            output,
        )
    options = GraphOptions(frame_size=spec.frame_size, full_map=spec.full_map, max_batch=spec.max_batch)
    builder = builder_like(sidecar, pictures)
    return export(checkpoint, output, builder=builder, pictures=pictures, options=options)


def builder_like(sidecar: Sidecar, pictures: Pictures) -> Builder:
    """What makes engines as a sidecar tells of one. Raises `StlmError` if that cannot be done here."""
    record = sidecar.engine
    if record.product == "onnx":
        return OnnxBuilder(cast(Precision, record.precision))
    if record.product == "openvino":
        from export.openvino import CpuPrecision, OpenVinoBuilder  # which is not installed everywhere

        precision = cast(CpuPrecision, record.precision)
        return OpenVinoBuilder(precision, pictures.good(), count=pictures.calibration_images, seed=pictures.seed)
    if record.product in TITLES:
        from export.tensorrt.build import PlanBuilder
        from export.tensorrt.product import ProductChoice

        is_rtx = record.product == "tensorrt-rtx"
        targets = tuple(record.device.split(",")) if is_rtx and record.device != PORTABLE else ()
        return PlanBuilder(
            precision=cast(Precision, record.precision),
            product=cast(ProductChoice, record.product),
            targets=targets,
            portable=record.portability is not None,
        )
    raise ConfigError(
        f"the engine is of the product {shown(record.product)}, expected onnx, openvino, {' or '.join(TITLES)}; "
        "export by hand: stlm export"
    )
