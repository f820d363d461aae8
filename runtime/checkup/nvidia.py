"""The NVIDIA side of a machine: the board, the driver, the GPU, and what pycuda is built from."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.checkup.finding import Finding
from runtime.checkup.probe import ask
from stlm_edge.tensorrt import Gpu, find_gpu

DRIVER, GPU = "NVIDIA driver", "GPU"
DRIVER_LIBRARY = "libcuda.so.1"
_NO_DEVICE = 100
_CPU_INSTEAD = "or run .onnx and .xml engines on the processor"

_BUILD_PARTS: dict[str, Sequence[str]] = {
    "nvcc": ("bin/nvcc",),
    "cuda.h": ("include/cuda.h", "targets/*/include/cuda.h"),
    "cudaProfiler.h": ("include/cudaProfiler.h", "targets/*/include/cudaProfiler.h"),
    "curand.h": ("include/curand.h", "targets/*/include/curand.h"),
    "libcurand.so": ("lib64/libcurand.so", "lib/libcurand.so", "targets/*/lib/libcurand.so", "lib/*/libcurand.so"),
    "libcuda.so": (
        "lib64/stubs/libcuda.so",
        "lib/stubs/libcuda.so",
        "targets/*/lib/stubs/libcuda.so",
        "lib/*/libcuda.so",
        "lib/*/stubs/libcuda.so",
        "lib/*/nvidia/libcuda.so",
    ),
}
"""What pycuda is compiled and linked with → where that lies below a CUDA toolkit or `/usr`."""


def find_jetson(root: Path) -> list[Finding]:
    """The Jetson that this is; nothing elsewhere.

    Args:
        root: the folder that has `etc` and `proc`.
    """
    release = _text(root / "etc/nv_tegra_release").partition("\n")[0]
    model = _text(root / "proc/device-tree/model")
    if not release and "jetson" not in model.lower():
        return []
    words = ", ".join(part for part in (model, release.removeprefix("#").strip()) if part)
    return [Finding("Jetson", "ok", words)]


def find_driver(root: Path) -> tuple[list[Finding], Gpu | None]:
    """The driver and its first GPU, asked of libcuda in a process of its own."""
    answer = ask(__name__, "module.driver_state()")
    if answer.failure is not None:
        failure = f"libcuda {answer.failure}"
        return [Finding(DRIVER, "broken", failure, f"check it with nvidia-smi, install it again, {_CPU_INSTEAD}")], None
    state = answer.value
    if state["error"] is not None:
        remedy = f"install the driver for this GPU (a Jetson has it from JetPack), {_CPU_INSTEAD}"
        return [Finding(DRIVER, "missing", f"no {DRIVER_LIBRARY} ({state['error']})", remedy)], None
    kernel = _kernel_version(_text(root / "proc/driver/nvidia/version"))
    found = f"for CUDA {state['version'] // 1000}.{state['version'] % 1000 // 10}" + (kernel and f", {kernel}")
    if state["status"] not in (0, _NO_DEVICE):
        failure = f"{found}, does not start (CUDA error {state['status']})"
        remedy = f"restart the machine if the driver was updated, check it with nvidia-smi, {_CPU_INSTEAD}"
        return [Finding(DRIVER, "broken", failure, remedy)], None
    if state["gpu"] is None:
        remedy = f"check nvidia-smi and CUDA_VISIBLE_DEVICES, in a container --gpus all, {_CPU_INSTEAD}"
        return [Finding(DRIVER, "ok", found), Finding(GPU, "missing", "the driver offers none", remedy)], None
    gpu = Gpu(**state["gpu"])
    return [Finding(DRIVER, "ok", found), Finding(GPU, "ok", f"{gpu}, {gpu.compute_capability}")], gpu


def driver_state() -> dict[str, object]:
    """What libcuda says; `error` if it cannot be loaded, `gpu` as the fields of a `Gpu`."""
    try:
        library = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        return {"error": str(error)}
    status, version = library.cuInit(0), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    gpu = find_gpu() if status == 0 else None
    fields = None if gpu is None else dataclasses.asdict(gpu)
    return {"error": None, "status": status, "version": version.value, "gpu": fields}


def toolkit(root: Path) -> Path | None:
    """The folder of a CUDA toolkit with its headers; None without one.

    Args:
        root: the folder that has `usr`.
    """
    return next((place for place in _toolkits(root) if (place / "include/cuda.h").exists()), None)


def lacking_for_pycuda(root: Path) -> list[str]:
    """What a build of pycuda would not find, by name."""
    places = list(_toolkits(root))
    lacking = [
        name
        for name, patterns in _BUILD_PARTS.items()
        if not any(next(place.glob(pattern), None) for place in places for pattern in patterns)
        and not (name == "nvcc" and shutil.which("nvcc"))
    ]
    return lacking + ([] if shutil.which("c++") or shutil.which("g++") else ["a C++ compiler"])


def _toolkits(root: Path) -> Iterator[Path]:
    """Folders that may hold a CUDA toolkit."""
    for name in ("CUDA_HOME", "CUDA_ROOT", "CUDA_PATH"):
        if value := os.environ.get(name):
            yield Path(value)
    yield root / "usr/local/cuda"
    compiler = shutil.which("nvcc")
    if compiler is not None:
        yield Path(compiler).resolve().parents[1]
    yield root / "usr"


def _kernel_version(text: str) -> str:
    """The number in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …`, as `version 580.65.06`."""
    words = text.partition("\n")[0].split()
    return next((f"version {word}" for word in words if word[:1].isdigit() and "." in word), "")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
