"""Does a TensorRT plan fit this machine? It runs with the very version that built it, on the GPU it was built for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stlm_edge.errors import EngineError
from stlm_edge.sidecar import Sidecar
from stlm_edge.tensorrt import TITLES, is_for, rebuild_command


@dataclass(frozen=True)
class Machine:
    """What a machine has to run plans with.

    Attributes:
        product: `tensorrt` or `tensorrt-rtx`.
        version: of it, as the module says it.
        compute_capability: of the GPU, such as `sm86`; None without one.
    """

    product: str
    version: str
    compute_capability: str | None


def check_plan(path: Path, sidecar: Sidecar, machine: Machine) -> None:
    """Refuse a plan that was built by another TensorRT or for another GPU, before TensorRT does so in its own words.

    Args:
        sidecar: of the plan, whose hash has been checked.
    Raises:
        EngineError: if the plan cannot run here; it says how to build one that can.
    """
    record = sidecar.engine
    if record.product not in TITLES:
        raise EngineError(
            f"the sidecar of {path} says that it is an engine of {record.product}, expected one of "
            f"{' or '.join(TITLES.values())}; build it again: {rebuild_command(path)}"
        )
    built = f"{path} was built with {TITLES[record.product]} {record.version} for {record.device}"
    here = f"this machine has {TITLES[machine.product]} {machine.version}"
    if machine.compute_capability is None:
        raise EngineError(
            f"{built}, {here} and no NVIDIA GPU; run the plan on a machine with one, or an .onnx file on the CPU"
        )
    fits = is_for(record.device, machine.compute_capability)
    if (record.product, record.version) != (machine.product, machine.version) or not fits:
        # TensorRT builds for its own GPU, and is what a build takes first; TensorRT-RTX must be told both.
        rtx = machine.product == "tensorrt-rtx"
        command = rebuild_command(
            path, product=machine.product if rtx else None, targets=[machine.compute_capability] if rtx else ()
        )
        raise EngineError(f"{built}, {here} on {machine.compute_capability}; rebuild: {command}")
