"""On which other GPUs a plan of TensorRT is to run, and what that costs (`--portable`).

By default a plan is for the model of GPU that it was built on. TensorRT 10.9 and later can keep to what all GPUs of one
compute capability have, older ones only to what all from Ampere on have; NVIDIA's headers say what each needs and costs
(`HardwareCompatibilityLevel`), and its developer guide ("Engine Compatibility") that JetPack supports neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.tensorrt.product import Product
from stlm_edge.errors import ConfigError, EngineError
from stlm_edge.tensorrt import PORTABLE, is_for

_COSTS = "may be slower than a plan for one model of GPU: no kernels of cuDNN and cuBLAS"
_BOARD = Path("/proc/device-tree/compatible")


@dataclass(frozen=True)
class Portability:
    """How TensorRT is told to build a plan for more than one model of GPU.

    Attributes:
        level: name of a `HardwareCompatibilityLevel`.
        device: what the plan is for, see `EngineRecord.device`.
        words: which GPUs run it and what that costs, for the record.
    """

    level: str
    device: str
    words: str


def choose_portability(product: Product, device: str, *, board: Path = _BOARD) -> Portability:
    """The narrowest way that a product has.

    Args:
        device: what the plan would be for otherwise, as `Product.device` says it.
        board: where Linux says what board this is, on those that have a device tree.
    Raises:
        ConfigError: for TensorRT-RTX, whose plans are for many GPUs unless they have a target.
        EngineError: on a Jetson, and on a GPU that is too old.
    """
    if product.name == "tensorrt-rtx":
        raise ConfigError(
            f"{product} builds for every GPU from sm80 on unless it has a --target, found --portable; leave it out"
        )
    if board.exists() and b"nvidia,tegra" in board.read_bytes():
        raise EngineError(
            "found --portable on a Jetson, where TensorRT does not support it; leave it out and build on each model "
            "(AGX Orin, Orin NX and Orin Nano are three)"
        )
    has_same = "SAME_COMPUTE_CAPABILITY" in product.module.HardwareCompatibilityLevel.__members__
    if has_same and int(device.removeprefix("sm")) >= 75:
        return Portability("SAME_COMPUTE_CAPABILITY", device, f"runs on every GPU of {device}; {_COSTS}")
    if not is_for(PORTABLE, device):
        expected = "75 or later" if has_same else "80 or later (75 from TensorRT 10.9 on)"
        raise EngineError(
            f"found --portable on {device}, {product} expects sm{expected} for it; leave it out and build on each "
            "model of GPU"
        )
    words = f"runs on every GPU from sm80 on; {_COSTS}, and less shared memory for the others"
    return Portability("AMPERE_PLUS", PORTABLE, words)
