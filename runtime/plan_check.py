"""Does a TensorRT plan fit this machine? It runs with the very version that built it, on the GPU it was built for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stlm_edge.errors import EngineError
from stlm_edge.plans import TITLES, is_for, rebuild_command
from stlm_edge.sidecar import Sidecar


@dataclass(frozen=True)
class Machine:
    """What a machine has to run plans with.

    Attributes:
        flavour: `tensorrt` or `tensorrt-rtx`.
        version: of it, as the module says it.
        compute_capability: of the GPU, such as `sm86`; None without one.
    """

    flavour: str
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
    if record.flavour not in TITLES:
        raise EngineError(
            f"the sidecar of {path} says that it is an engine of {record.flavour}, expected one of "
            f"{' or '.join(TITLES.values())}; build it again: {rebuild_command(path)}"
        )
    built = f"{path} was built with {TITLES[record.flavour]} {record.version} for {record.device}"
    here = f"this machine has {TITLES[machine.flavour]} {machine.version}"
    if machine.compute_capability is None:
        raise EngineError(
            f"{built}, {here} and no NVIDIA GPU; run the plan on a machine with one, or an .onnx file on the CPU"
        )
    fits = is_for(record.device, machine.compute_capability)
    if (record.flavour, record.version) != (machine.flavour, machine.version) or not fits:
        # TensorRT builds for its own GPU, and is what a build takes first; TensorRT-RTX must be told both.
        rtx = machine.flavour == "tensorrt-rtx"
        command = rebuild_command(
            path, flavour=machine.flavour if rtx else None, targets=[machine.compute_capability] if rtx else ()
        )
        raise EngineError(f"{built}, {here} on {machine.compute_capability}; rebuild: {command}")
