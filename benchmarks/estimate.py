"""The paper's time on its GPU beside one's own on another device: an estimate from data sheets, or not at all."""

from __future__ import annotations

from typing import Any

from benchmarks.record import Device
from export.tensorrt.kernels import DTYPE_BYTES
from stlm_edge.spec import Size
from stlm_edge.tensorrt import GPU_PEAKS
from train.paper.methods import GPU as PAPER_SOLD_AS
from train.paper.methods import METHODS

SOLD_AS = {"NVIDIA GeForce RTX 3090": "rtx3090", "NVIDIA GeForce RTX 4090": "rtx4090", "NVIDIA H100 80GB HBM3": "h100"}
"""Names by the driver → names in `GPU_PEAKS`. A Jetson does not tell its module, nor its power mode's clocks."""

_OURS = next(method for method in METHODS if method.name == "STLM")

PAPER: dict[str, Any] = {"ms": _OURS.inference_ms, "gpu": SOLD_AS[PAPER_SOLD_AS], "input_size": [1024, 1024]}
"""STLM, table 1 and section 4.1.3: inference time of the authors' PyTorch code."""


def comparison(device: Device, *, input_size: Size | None, on_gpu: bool) -> str:
    """Whether the paper's figure and those measured can be compared, in one sentence."""
    paper = f"the paper has {PAPER['ms']:g} ms on an RTX 3090 at 1024 x 1024 (table 1)"
    ran_on = (device.gpu if on_gpu else None) or device.processor
    same_gpu = SOLD_AS.get(ran_on) == PAPER["gpu"]
    size = "several sizes" if input_size is None else "{} x {}".format(*input_size)
    if same_gpu and input_size == tuple(PAPER["input_size"]):
        return f"{paper}, the same GPU and size as here"
    differs = "another size" if same_gpu else "another device"
    return f"{paper}; here it is {ran_on} at {size}, {differs}, so the two cannot be compared"


def estimate_ms(infer_ms: float, *, precision: str, device: Device) -> tuple[float, float] | None:
    """What the network would take on the paper's GPU, from its time on this device's, lowest and highest.

    It is scaled as if it was bound by memory, or by arithmetic, on both GPUs alike: nobody knows by which.

    Returns:
        None where peaks of this device, or in this precision, are not known.
    """
    own, paper = GPU_PEAKS.get(SOLD_AS.get(device.gpu or "", "")), GPU_PEAKS[PAPER["gpu"]]
    if own is None or precision not in DTYPE_BYTES:
        return None
    memory = own.memory_gb_s / paper.memory_gb_s
    arithmetic = own.peak_flops_s(precision) / paper.peak_flops_s(precision)
    return infer_ms * min(memory, arithmetic), infer_ms * max(memory, arithmetic)
