"""Where to compute."""

from __future__ import annotations

import torch

from stlm_edge.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises `ConfigError` for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device is {name!r}, expected cpu, cuda or auto") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no CUDA device; use --device cpu or install a driver")
    return device
