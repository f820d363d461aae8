"""What to do about an error of the GPU, by the words in which TensorRT or CUDA's driver tells it.

TensorRT 10 writes `IRuntime::deserializeCudaEngine: Error Code 1: Serialization (…)`: the function's name has "Cuda" in
it whatever went wrong, so only what follows it counts. `tests/gpu_errors.json` has such texts from public reports.
"""

from __future__ import annotations

import re

CHECK_DRIVER = "check the driver with nvidia-smi, end what else uses the GPU, and start again"

_REMEDIES = {
    # Nothing works any more in this process, and what is told after it is of no use.
    r"launch failure|launch timed out|illegal (memory access|address|instruction)|misaligned address|"
    r"invalid program counter|device-side assert|hardware stack error|ECC error|busy or unavailable|unknown error|"
    r"context is destroyed|GPU is lost": (
        "the GPU has failed or was lost and this program cannot use it again: start it again, and if that does not "
        "help the machine (the driver says more: sudo dmesg | grep -i -e xid -e nvrm -e nvgpu)"
    ),
    r"out of memory|OutOfMemory|allocator error|bad_alloc|ALLOC_FAILED|[Cc]annot allocate memory|"
    r"could not be allocated|NvMap\w*:? error 12|initialization failure with error:? 2\b": (
        "free GPU memory by ending what else uses it (nvidia-smi lists it, on a Jetson tegrastats shows what is free "
        "and sudo init 3 ends the desktop), or export for a smaller input or batch"
    ),
    # A driver runs what was built for its own CUDA or an older one, and pip takes TensorRT for the newest.
    r"driver version is insufficient|InsufficientDriver|initialization failure with error:? 35\b": (
        "the driver is older than the CUDA that this was built for: update it, or where nvidia-smi shows CUDA 12 "
        "take the package for that (pip uninstall tensorrt tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs, "
        "then pip install tensorrt-cu12, or tensorrt-rtx-cu12 for TensorRT-RTX), on a Jetson JetPack's and not pip's"
    ),
    r"no kernel image|unsupported toolchain|invalid device function": (
        "this was compiled for another GPU or a newer driver: update the driver, and build the plan (and pycuda, where "
        "it is installed) again on this machine"
    ),
    r"forward compatibility was attempted|initialization failure with error:? 804\b": (
        "a library of CUDA newer than the driver is in use: update the driver, or take TensorRT for the CUDA that "
        "nvidia-smi shows"
    ),
    r"[Ii]nsufficient workspace": "give more --workspace, or leave it out",
    r"load library: libcuda\.so|libcuda\.so\.1: cannot open": (
        "there is no NVIDIA driver here: install it (nvidia-smi must work; start a container with --gpus all, on a "
        "Jetson with --runtime nvidia)"
    ),
    r"no CUDA-capable device|initialization failure with error:? 100\b": (
        "look whether nvidia-smi lists a GPU, and whether CUDA_VISIBLE_DEVICES hides it"
    ),
    r"Unable to load library": "this TensorRT is not complete, or two versions of it are mixed: install it again",
    r"driver/library version mismatch|driver shutting down|no (NVIDIA|CUDA) driver": (
        "install the NVIDIA driver that the CUDA toolkit wants (nvidia-smi shows both), and restart the machine"
    ),
    r"\b(Cuda Runtime|Cuda Driver|Cudnn|Cublas|CuTensor|Cask) \(|\(Cuda\) error|(?i:CUDA initialization)|CUDA error": (
        CHECK_DRIVER
    ),
}
"""Pattern of what is told → what to do, the first that fits."""


def remedy_for(text: str) -> str | None:
    """What to do about an error of the GPU, its memory or its driver; None where the text tells of neither.

    Of TensorRT that leaves what is wrong with a plan: another version, another GPU, another platform, damage.
    """
    return next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, text)), None)
