"""Does a TensorRT plan fit this machine? It runs with the very version that built it, on the GPU it was built for."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

from stlm_edge.errors import EngineError
from stlm_edge.sidecar import EngineRecord, Sidecar
from stlm_edge.tensorrt import TITLES, Gpu, is_for, rebuild_command


@dataclass(frozen=True)
class Machine:
    """What a machine has to run plans with.

    Attributes:
        product: `tensorrt` or `tensorrt-rtx`.
        version: of it, as the module says it.
        gpu: None without one.
        architecture: of the processor, `x86_64` or `aarch64`.
    """

    product: str
    version: str
    gpu: Gpu | None
    architecture: str = field(default_factory=platform.machine)


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
    if machine.gpu is None:
        raise EngineError(
            f"{built}, {here} and no NVIDIA GPU; run the plan on a machine with one, or an .onnx file on the CPU"
        )
    found = machine.gpu.compute_capability
    fits = is_for(record.device, found) and (record.product, record.version) == (machine.product, machine.version)
    if record.built_on is not None and record.built_on.architecture != machine.architecture:
        fits, built, found = False, f"{built} on {record.built_on.architecture}", f"{found}, {machine.architecture}"
    if not fits:
        raise EngineError(f"{built}, {here} on {found}; rebuild: {_rebuild(path, record, machine, machine.gpu)}")


def on_another_gpu(path: Path, sidecar: Sidecar, machine: Machine) -> str | None:
    """A warning if a plan that `check_plan` lets pass was built on another GPU of this compute capability, else None.

    TensorRT warns of that as well: such a plan may be slower or fail, as its kernels and their memory were chosen for
    the other GPU.
    """
    record, gpu = sidecar.engine, machine.gpu
    if record.built_on is None or record.portability is not None or gpu is None or gpu.multiprocessors is None:
        return None
    builder = Gpu(record.built_on.gpu, record.device, record.built_on.multiprocessors)
    if (builder.name, builder.multiprocessors) == (gpu.name, gpu.multiprocessors):
        return None
    return (
        f"{path} was built on {builder}, this machine has {gpu}: there it may be slow or fail; rebuild: "
        f"{_rebuild(path, record, machine, gpu)}"
    )


def _rebuild(path: Path, record: EngineRecord, machine: Machine, gpu: Gpu) -> str:
    # TensorRT builds for its own GPU, and is what a build takes first; TensorRT-RTX must be told both.
    if machine.product == "tensorrt-rtx":
        return rebuild_command(path, product=machine.product, targets=[gpu.compute_capability])
    # A GPU that a portable plan is not for may be one that none can be built on, as below compute capability 8.0.
    portable = record.portability is not None and is_for(record.device, gpu.compute_capability)
    return rebuild_command(path, portable=portable)
