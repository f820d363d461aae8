"""The paper's time on its GPU beside one's own on another device: only as an estimate from the roofline, or not at all.

A measured time is scaled by what bounds it. Where the kernels of a plan are known, by their floors on both GPUs; else
nobody knows whether memory or arithmetic bounds it, so both ratios are given, as a range. On a device whose peaks are
not known nothing is scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.environment import Device
from export.tensorrt.kernels import DTYPE_BYTES, kernels_path, read_kernels
from export.tensorrt.roofline import GPUS, Gpu
from stlm_edge.errors import EngineError, StlmError
from stlm_edge.spec import Size
from stlm_edge.tensorrt import kept_graph
from train.paper.figures import GPU as PAPER_SOLD_AS
from train.paper.figures import METHODS

if TYPE_CHECKING:
    from torch import nn

    from export.tensorrt.kernels import Kernel


SOLD_AS = {"NVIDIA GeForce RTX 3090": "rtx3090", "NVIDIA GeForce RTX 4090": "rtx4090", "NVIDIA H100 80GB HBM3": "h100"}
"""Names by the driver → names in `GPUS`. A Jetson does not tell its module, nor which clocks its power mode allows."""

_OURS = next(method for method in METHODS if method.name == "STLM")

PAPER: dict[str, Any] = {"ms": _OURS.inference_ms, "gpu": SOLD_AS[PAPER_SOLD_AS], "input_size": [1024, 1024]}
"""STLM, table 1 and section 4.1.3: inference time of the authors' PyTorch code."""

PAPER_GPU = GPUS[PAPER["gpu"]]


@dataclass(frozen=True)
class Work:
    """What one picture costs.

    Attributes:
        gflop: of convolutions and matrix products.
        kernels: of a plan; None where it is not known what moves through memory.
    """

    gflop: float
    kernels: tuple[Kernel, ...] | None = None

    @property
    def moved_mb(self) -> float | None:
        """Through memory, in 10⁶ bytes; None where that is not known."""
        return None if self.kernels is None else sum(kernel.bytes_moved for kernel in self.kernels) / 1e6

    def floor_ms(self, gpu: Gpu, precision: str) -> float:
        """At least so long on `gpu`; without kernels, by arithmetic alone."""
        if self.kernels is not None:
            return sum(map(gpu.floor_ms, self.kernels))
        return 1e12 * self.gflop / gpu.peak_flops_s(precision)

    def slower(self, gpu: Gpu, than: Gpu, precision: str) -> tuple[float, float]:
        """How many times slower it is on `gpu` than on another one, lowest and highest estimate."""
        if self.kernels is not None:
            ratio = self.floor_ms(gpu, precision) / self.floor_ms(than, precision)
            return ratio, ratio
        memory = than.memory_gb_s / gpu.memory_gb_s
        arithmetic = than.peak_flops_s(precision) / gpu.peak_flops_s(precision)
        return min(memory, arithmetic), max(memory, arithmetic)


@dataclass(frozen=True)
class Estimate:
    """What a contender's work would take on the paper's GPU; None is what cannot be said.

    Attributes:
        name: the contender's.
        gflop, moved_mb: of one picture.
        floor_ms: computed: at least so long on the paper's GPU.
        device_floor_ms: likewise on the device that was measured.
        infer_ms: measured, the network alone; median.
        scaled_ms: that, scaled to the paper's GPU; lowest and highest estimate.
        assumption: in one sentence, what the estimate rests on, or why there is none.
    """

    name: str
    gflop: float | None
    moved_mb: float | None
    floor_ms: float | None
    device_floor_ms: float | None
    infer_ms: float
    scaled_ms: tuple[float, float] | None
    assumption: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def estimate(name: str, work: Work | str, *, precision: str, infer_ms: float, device: Device, on_gpu: bool) -> Estimate:
    """Bring one contender's time to the paper's GPU as far as that can be done.

    Args:
        work: of one picture, or why it is not known.
        precision: as in an engine's record.
        on_gpu: it ran on the device's GPU.
    """
    if isinstance(work, Work) and precision not in DTYPE_BYTES:
        work = f"peaks in {precision} are not in the table"
    if not isinstance(work, Work):
        return Estimate(name, None, None, None, None, infer_ms, None, f"no estimate: {work}")
    own = GPUS.get(SOLD_AS.get(device.gpu or "", "")) if on_gpu else None
    floor_ms = work.floor_ms(PAPER_GPU, precision)
    how = (
        "the larger of FLOPs / peak and bytes / bandwidth, summed over the plan's kernels"
        if work.kernels is not None
        else f"{precision} products alone, memory traffic is not known"
    )
    if own is None:
        return Estimate(
            name,
            work.gflop,
            work.moved_mb,
            floor_ms,
            None,
            infer_ms,
            None,
            f"the floor is {how}; the measured time is not scaled, since this device's peaks are not in the table",
        )
    low, high = work.slower(PAPER_GPU, own, precision)
    distance = (
        "keeps its distance from the floor"
        if work.kernels is not None
        else "is bound by memory, or by arithmetic, on both GPUs alike"
    )
    return Estimate(
        name,
        work.gflop,
        work.moved_mb,
        floor_ms,
        work.floor_ms(own, precision),
        infer_ms,
        (low * infer_ms, high * infer_ms),
        f"scaled from {own.name} by data sheets, as if it {distance}; the floor is {how}",
    )


def comparison(device: Device, *, input_size: Size | None, on_gpu: bool) -> str:
    """Whether the paper's figure and those measured can be compared, in one sentence."""
    paper = f"the paper has {PAPER['ms']} ms on an RTX 3090 at 1024 x 1024 (table 1)"
    ran_on = (device.gpu if on_gpu else None) or device.processor
    same_gpu = SOLD_AS.get(ran_on) == PAPER["gpu"]
    size = "several sizes" if input_size is None else "{} x {}".format(*input_size)
    if same_gpu and input_size == tuple(PAPER["input_size"]):
        return f"{paper}, the same GPU and size as here"
    differs = "another size" if same_gpu else "another device"
    return f"{paper}; here it is {ran_on} at {size}, {differs}, so the two cannot be compared"


def known_work(count: Callable[[], Work]) -> Work | str:
    """What `count` gives, or in words why it cannot be known."""
    try:
        return count()
    except (StlmError, ImportError) as error:
        return str(error).split(";", maxsplit=1)[0]


def work_of_engine(engine: Path, *, max_batch: int) -> Work:
    """Of a plan by its kernels, of an ONNX file by its products.

    Raises `EngineError` where neither is known.
    """
    if engine.suffix == ".plan" and max_batch == 1 and kernels_path(engine).is_file():
        table = read_kernels(engine)
        return Work(sum(kernel.flops for kernel in table.kernels) / 1e9, table.kernels)
    graph = engine if engine.suffix == ".onnx" else kept_graph(engine)
    if not graph.is_file():
        raise EngineError(f"the work of {engine.name} is not known, there is no graph beside it")
    from export.graph.onnx_model import read_model
    from export.tensorrt.flops import node_flops

    return Work(sum(node_flops(read_model(graph), batch=1).values()) / 1e9)


def work_of_network(network: nn.Module, input_size: Size) -> Work:
    """By the products that PyTorch computes for one picture; the network's weights are lost, shapes are enough."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.empty(1, 3, *input_size, device="meta"))
    return Work(counter.get_total_flops() / 1e9)
