"""The ways in which PyTorch can run a checkpoint, as subjects of a measurement."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cells import STAGES
from benchmarks.record import device as this_machine
from benchmarks.subjects import Device, Pictures, Way, batch_of
from stlm_edge.errors import ConfigError
from stlm_edge.imaging import Image, to_input
from stlm_edge.measure import TOTAL, Subject, Work
from stlm_edge.network.checkpoint import Checkpoint, load
from stlm_edge.network.comparison import StreamFeatures
from stlm_edge.network.decoder import Features, TwoWayDecoder
from stlm_edge.network.inference import InferencePath, choose_device, prepare
from stlm_edge.scoring import is_anomalous

Inspect = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(N, H, W, 3) uint8, BGR → the map (N, H, W) and the scores (N,), float32."""

_WARM_UP = 3
"""Runs before a CUDA graph is captured, since libraries choose their kernels in the first ones."""

_BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""Of processors that multiply in bfloat16."""


def network_subject(
    checkpoint: Path, *, way: str = "eager", device: Device = "cpu", pictures: Pictures | None = None, batch: int = 1
) -> Subject:
    """A checkpoint run by PyTorch, named after the way; the times are those of a batch, divided by it.

    Raises `ConfigError` if the way is unknown or needs another device.
    """
    parsed, pictures = Way.parse(way), pictures or Pictures()
    parsed.require_device(device)
    opener = partial(open_network, checkpoint, way=parsed, device=device, pictures=pictures, batch=batch)
    return Subject(str(parsed), opener)


@contextmanager
def open_network(checkpoint: Path, *, way: Way, device: Device, pictures: Pictures, batch: int) -> Iterator[Work]:
    """Raises `CheckpointError`, `ConfigError`, `DataError`, `ImageError`."""
    images = pictures.load()
    with tempfile.TemporaryDirectory() as cache:
        # What an earlier run has compiled shall not make this one's first inference look fast.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        yield network_work(load(checkpoint), way, device=device, images=images, batch=batch)


def network_work(checkpoint: Checkpoint, way: Way, *, device: Device, images: tuple[Image, ...], batch: int) -> Work:
    """A network on its device with its pictures; before and after it a GPU is waited for."""
    place, spec = choose_device(device), checkpoint.spec
    inspect = inspection(checkpoint, way, place)
    facts: dict[str, Any] = {
        "library": "pytorch",
        "precision": way.precision(device),
        "device": torch.cuda.get_device_name(place) if device == "cuda" else "CPU",
        "architecture": spec.architecture,
        "parameters": sum(parameter.numel() for parameter in checkpoint.network.parameters()),
        "input_size": list(spec.input_size),
        "note": None,
    }
    if way.precision(device) == "bf16" and not set(_BF16_FEATURES) & set(this_machine().features):
        facts["note"] = "bfloat16 is emulated: this processor does not multiply in it"

    def now_s() -> float:
        """When the device has done what it was given."""
        if device == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter()

    def run(index: int) -> Mapping[str, float]:
        frames = batch_of(images, index, size=batch)
        marks_s = [time.perf_counter()]
        inputs = np.concatenate([to_input(frame, spec=spec) for frame in frames])
        marks_s.append(time.perf_counter())
        pixels = torch.from_numpy(inputs).to(place)
        marks_s.append(now_s())
        full, score = inspect(pixels)
        marks_s.append(now_s())
        full.cpu()
        scores = score.cpu().numpy()
        marks_s.append(time.perf_counter())
        if spec.threshold is not None:
            for one in scores:
                is_anomalous(float(one), spec.threshold)
        marks_s.append(time.perf_counter())
        if not np.isfinite(scores).all():
            facts["note"] = "its answers are not finite: this arithmetic is of no use for this network"
        seconds = dict(zip(STAGES[:-1], np.diff(marks_s), strict=True)) | {TOTAL: marks_s[-1] - marks_s[0]}
        return {stage: 1e3 * float(value) / batch for stage, value in seconds.items()}

    return Work(run, facts)


def inspection(checkpoint: Checkpoint, way: Way, device: torch.device) -> Inspect:
    """What inspects pictures on `device`; with a CUDA graph, its answers are overwritten by the next call.

    It sets how precise float32 is on a GPU, for the whole process. Raises `ConfigError` as `authors_way` does.
    """
    if device.type == "cuda":  # left alone, PyTorch convolves in TF32 and multiplies in FP32
        torch.backends.cudnn.allow_tf32 = "tf32" in way.traits
        torch.set_float32_matmul_precision("high" if "tf32" in way.traits else "highest")
    path = InferencePath(checkpoint.network, checkpoint.spec).eval().to(device)
    if "channels-last" in way.traits:
        path.to(memory_format=torch.channels_last)
    forward: Any = authors_way(path) if way.base == "eager" else batched_way(path, device)
    captures_itself = {"compile", "cuda-graph"} <= set(way.traits)
    if "compile" in way.traits:
        forward = torch.compile(forward, mode="reduce-overhead" if captures_itself else None)
    graphed = "cuda-graph" in way.traits and not captures_itself
    half, dtype = "half" in way.traits, torch.float16 if device.type == "cuda" else torch.bfloat16

    @torch.no_grad()
    def inspect(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, dtype, enabled=half, cache_enabled=not graphed):
            full, score = forward(images)
        return full.float(), score.float()

    return _Captured(inspect) if graphed else inspect


def authors_way(path: InferencePath) -> Inspect:
    """The network in the manner of the authors' published code: stream by stream, the decoder picture by picture.

    Raises `ConfigError` for a network that is not the paper's design: the authors published no other.
    """
    network = path.network
    if network.design.differences:
        raise ConfigError(
            f"found a network with{network.design.differences[1:]}, expected the paper's design, which is all that the "
            "authors' way is known for; measure the way 'batched' instead"
        )

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        assert network.decoder is not None and network.denoising is not None
        pixels = prepare(images, path.spec).contiguous()  # theirs come so from the loader
        features = StreamFeatures(
            plain=decode_each(network.decoder, network.plain(pixels)),
            denoising=decode_each(network.decoder, network.denoising(pixels)),
        )
        return path.finish(torch.sigmoid(network.aggregate(features)))

    return forward


def batched_way(path: InferencePath, device: torch.device) -> Inspect:
    """`InferencePath` with the pixels' mean and deviation on the device already, so that a CUDA graph captures it."""
    mean, std = (
        torch.tensor(of, device=device).reshape(1, 3, 1, 1) for of in (path.spec.pixel_mean, path.spec.pixel_std)
    )

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        return path.finish(path.network((images.permute(0, 3, 1, 2).flip(1).float() - mean) / std))

    return forward


def decode_each(decoder: TwoWayDecoder, embeddings: Tensor) -> Features:
    """L1 and L2, the decoder called picture by picture."""
    pictures = [decoder(embedding.unsqueeze(0)) for embedding in embeddings]
    return tuple(torch.cat(layer) for layer in zip(*pictures, strict=True))


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
