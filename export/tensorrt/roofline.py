"""Lower bounds on the time of a plan: no kernel is faster than its arithmetic or its memory traffic allows.

Peaks are those of dense tensor cores that accumulate in FP32, as TensorRT's kernels do; GeForce cards halve FP16 then.
FP32 is that of the ordinary cores, since plans are built without TF32. Bytes count as if all passed the memory once; a
kernel whose operands are still in the cache can be faster than its floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from export.tensorrt.kernels import DTYPE_BYTES, Kernel
from stlm_edge.errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """What bounds a kernel on a GPU.

    Attributes:
        name: as `--gpu` takes it.
        fp16_tflops, int8_tops, fp32_tflops: dense peaks.
        memory_gb_s: bandwidth of the memory, in 10⁹ bytes a second.
    """

    name: str
    fp16_tflops: float
    int8_tops: float
    fp32_tflops: float
    memory_gb_s: float

    def peak_flops_s(self, dtype: str) -> float:
        """For products of numbers of `dtype`."""
        if dtype in ("fp16", "bf16"):
            return self.fp16_tflops * 1e12
        return (self.int8_tops if DTYPE_BYTES[dtype] == 1 else self.fp32_tflops) * 1e12

    def compute_ms(self, kernel: Kernel) -> float:
        return 1e3 * kernel.flops / self.peak_flops_s(kernel.dtype)

    def memory_ms(self, kernel: Kernel) -> float:
        return kernel.bytes_moved / self.memory_gb_s / 1e6

    def floor_ms(self, kernel: Kernel) -> float:
        """What `kernel` takes at least, without its launch."""
        return max(self.compute_ms(kernel), self.memory_ms(kernel))


GPUS = {
    gpu.name: gpu
    for gpu in (
        # NVIDIA Ampere GA102 whitepaper v2, appendix A; FP16 with FP16 accumulation would be 142.
        Gpu("rtx3090", fp16_tflops=71, int8_tops=284, fp32_tflops=35.6, memory_gb_s=936),
        # NVIDIA Ada whitepaper v2, appendix A; FP16 with FP16 accumulation would be 330.3.
        Gpu("rtx4090", fp16_tflops=165.2, int8_tops=660.6, fp32_tflops=82.6, memory_gb_s=1008),
        # Jetson AGX Orin technical brief v1.2: 170 sparse INT8 TOPS of the GPU (its DLAs are not used), so half of them
        # dense, a quarter for FP16; FP32 is two operations of 2048 cores at 1.3 GHz.
        Gpu("agx-orin", fp16_tflops=42.5, int8_tops=85, fp32_tflops=5.3, memory_gb_s=204.8),
        # Jetson Orin Nano 8 GB data sheet: 40 sparse INT8 TOPS, 68 GB/s, 1024 cores at 625 MHz.
        Gpu("orin-nano", fp16_tflops=10, int8_tops=20, fp32_tflops=1.28, memory_gb_s=68),
        # Jetson Orin Nano Super developer kit data sheet: 67 sparse INT8 TOPS, 102 GB/s, 1024 cores at 1020 MHz.
        Gpu("orin-nano-super", fp16_tflops=16.75, int8_tops=33.5, fp32_tflops=2.09, memory_gb_s=102),
        # NVIDIA H100 data sheet, SXM5, dense.
        Gpu("h100", fp16_tflops=989.4, int8_tops=1978.9, fp32_tflops=66.9, memory_gb_s=3350),
    )
}
"""The GPUs that have a name here; AGX Orin is the 64 GB module at its highest clock, MAXN."""

OWN_GPU = "name=fp16_tflops:int8_tops:fp32_tflops:memory_gb_s"


def gpus_named(texts: Sequence[str]) -> tuple[Gpu, ...]:
    """The GPUs that a user asks for: names of `GPUS`, or `name=tflops16:tflops8:tflops32:gb_s`; all without any.

    Raises:
        ConfigError: if a name is unknown or given twice, or a GPU of one's own has no four positive numbers.
    """
    gpus = [_gpu(text) for text in texts] or list(GPUS.values())
    names = [gpu.name for gpu in gpus]
    if len(set(names)) < len(names):
        raise ConfigError(f"found the GPUs {', '.join(names)}, expected each name once; leave one out")
    return tuple(gpus)


def _gpu(text: str) -> Gpu:
    name, has_figures, figures = text.partition("=")
    if not has_figures:
        if name not in GPUS:
            raise ConfigError(f"found the GPU {text!r}, expected one of {', '.join(GPUS)}, or your own: {OWN_GPU}")
        return GPUS[name]
    try:
        fp16, int8, fp32, memory = (float(figure) for figure in figures.split(":"))
        if not (name and all(0 < figure < math.inf for figure in (fp16, int8, fp32, memory))):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"found the GPU {text!r}, expected {OWN_GPU} with four positive numbers, for example mine=71:284:35.6:936"
        ) from None
    return Gpu(name, fp16, int8, fp32, memory)
