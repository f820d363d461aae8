"""A checkpoint's network, made to run in a way of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.authors_way import AuthorsWay
from benchmarks.contenders.way import Way
from stlm_edge.network.checkpoint import Checkpoint
from stlm_edge.network.inference import InferencePath

Inspect = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(N, H, W, 3) uint8, BGR → the map (N, H, W) and the scores (N,), float32."""

_WARM_UP = 3
"""Runs before a CUDA graph is captured, since libraries choose their kernels in the first ones."""


def build(checkpoint: Checkpoint, way: Way, device: torch.device) -> Inspect:
    """What inspects pictures on `device`; with a CUDA graph, its answers are overwritten by the next call.

    It sets how precise float32 is on a GPU, for the whole process.

    Raises `ConfigError` if the authors' way does not know the network's design.
    """
    if device.type == "cuda":  # left alone, PyTorch convolves in TF32 and multiplies in FP32
        torch.backends.cudnn.allow_tf32 = "tf32" in way.traits
        torch.set_float32_matmul_precision("high" if "tf32" in way.traits else "highest")
    inspector = InferencePath(checkpoint.network, checkpoint.spec).eval().to(device)
    if "channels-last" in way.traits:
        inspector.to(memory_format=torch.channels_last)
    module: Any = AuthorsWay(inspector) if way.base == "eager" else BatchedWay(inspector)
    module.to(device)
    captures_itself = {"compile", "cuda-graph"} <= set(way.traits)
    if "compile" in way.traits:
        module = torch.compile(module, mode="reduce-overhead" if captures_itself else None)
    graphed = "cuda-graph" in way.traits and not captures_itself
    half, dtype = "half" in way.traits, torch.float16 if device.type == "cuda" else torch.bfloat16

    @torch.no_grad()
    def inspect(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, dtype, enabled=half, cache_enabled=not graphed):
            full, score = module(images)
        return full.float(), score.float()

    return _Captured(inspect) if graphed else inspect


class BatchedWay(nn.Module):
    """`InferencePath` with the pixels' mean and deviation on the device already, so that a CUDA graph captures it."""

    mean: Tensor
    std: Tensor

    def __init__(self, inspector: InferencePath) -> None:
        super().__init__()
        self.inspector = inspector
        for name in ("mean", "std"):
            values = torch.tensor(getattr(inspector.spec, f"pixel_{name}"))
            self.register_buffer(name, values.reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `InferencePath.forward`."""
        pixels = (images.permute(0, 3, 1, 2).flip(1).float() - self.mean) / self.std
        return self.inspector.finish(self.inspector.network(pixels))


class _Captured:
    """Launches all kernels of an inspection by one CUDA graph, captured at the first call."""

    def __init__(self, inspect: Inspect) -> None:
        self._inspect = inspect
        self._graph: Any = None

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self._graph is None:
            self._capture(images)
        self._images.copy_(images)
        self._graph.replay()
        return self._answer

    def _capture(self, images: Tensor) -> None:
        self._images = images.clone()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._inspect(self._images)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._answer = self._inspect(self._images)
