"""On what a figure was obtained, in the words that all records share."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from stlm_edge.tensorrt import find_gpu

_CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
)
"""Those that decide which kernels a library picks, as Linux names them."""

_PACKAGES = (
    "anomalib",
    "cuda-bindings",
    "nncf",
    "numpy",
    "nvidia-modelopt",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python",
    "openvino",
    "pycuda",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "timm",
    "torch",
)


@dataclass(frozen=True)
class Device:
    """What a benchmark ran on; no name of the machine.

    Attributes:
        processor: the model's name, with family and model number, since clouds hide the rest.
        features: of its instruction set, those that kernels are chosen by.
        cores: that this process may use.
        gpu: the product's name; None without one.
        compute_capability: of the GPU, such as `sm86`.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    gpu: str | None = None
    compute_capability: str | None = None

    def __str__(self) -> str:
        count = f"{self.cores} core{'s' * (self.cores != 1)}"
        cores = f"{self.processor}, {count}, {' '.join(self.features) or 'no vector extensions'}"
        return cores if self.gpu is None else f"{self.gpu} ({self.compute_capability}) on {cores}"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def device() -> Device:
    """The machine that this process runs on."""
    entries = _cpuinfo()
    flags = (entries.get("flags") or entries.get("Features") or "").split()
    gpu = find_gpu()
    return Device(
        processor=_processor(entries),
        features=tuple(name for name in _CPU_FEATURES if name in flags),
        cores=cores(),
        gpu=None if gpu is None else gpu.name,
        compute_capability=None if gpu is None else gpu.compute_capability,
    )


def versions() -> dict[str, str]:
    """Of Python and of what is installed of the packages that speed depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # it came another way, as TensorRT does with JetPack, or not at all
            continue
    return found


def _processor(entries: dict[str, str]) -> str:
    name = entries.get("model name") or entries.get("Model") or platform.machine()
    if "cpu family" in entries:
        return f"{name} (family {entries['cpu family']}, model {entries.get('model', '?')})"
    return name


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
