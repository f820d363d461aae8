"""Which NVIDIA GPU a machine has, asked of the driver alone: a Jetson needs no package of Python for that."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_DRIVER = "libcuda.so.1"
_NO_DEVICE = 100
_MAJOR, _MINOR = 75, 76
"""Numbers of the driver's attributes for the two parts of the compute capability."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: the product's, such as `NVIDIA GeForce RTX 3090`.
        compute_capability: such as `sm86`.
    """

    name: str
    compute_capability: str


def find_gpu() -> Gpu | None:
    """The first GPU that CUDA offers, without making a context on it; None where there is no driver or no GPU."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    status = driver.cuInit(0)
    if status != 0:
        if status != _NO_DEVICE:
            logger.warning("the NVIDIA driver does not start (CUDA error %d), so no GPU can be used", status)
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    if (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    ):
        return None
    return Gpu(name.value.decode(errors="replace"), f"sm{major.value}{minor.value}")
