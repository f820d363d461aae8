"""The ways in which PyTorch can run a checkpoint, as contenders."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.pictures import Pictures, batch_of
from benchmarks.contenders.way import Device, Way
from benchmarks.turns import TOTAL, Contender

if TYPE_CHECKING:
    from stlm_edge.imaging import Image
    from stlm_edge.network.checkpoint import Checkpoint

_BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""Of processors that multiply in bfloat16."""


def network_contender(
    checkpoint: Path, *, way: str = "eager", device: Device = "cpu", pictures: Pictures | None = None, batch: int = 1
) -> Contender:
    """A checkpoint run by PyTorch, named after the way.

    Args:
        way: see `Way.parse`.
        batch: pictures at once; the times are those of the batch, divided by it.
    Raises:
        ConfigError: if the way is unknown or needs another device. What else is wrong is found when it is opened.
    """
    parsed = Way.parse(way)
    parsed.require_device(device)
    return Contender(
        str(parsed),
        partial(
            open_network_subject,
            checkpoint,
            way=parsed,
            device=device,
            pictures=pictures or Pictures(),
            batch=batch,
        ),
    )


@contextmanager
def open_network_subject(
    checkpoint: Path, *, way: Way, device: Device, pictures: Pictures, batch: int
) -> Iterator[NetworkSubject]:
    """Raises `CheckpointError`, `ConfigError`, `DataError`, `ImageError`."""
    images = pictures.load()
    with tempfile.TemporaryDirectory() as cache:
        # What an earlier run has compiled shall not make this one's first inference look fast.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        from stlm_edge.network.checkpoint import load

        yield NetworkSubject(load(checkpoint), way, device=device, images=images, batch=batch)


class NetworkSubject:
    """A network on its device with its pictures."""

    def __init__(
        self, checkpoint: Checkpoint, way: Way, *, device: Device, images: tuple[Image, ...], batch: int
    ) -> None:
        import torch

        from benchmarks.contenders.running import build
        from stlm_edge.network.inference import choose_device

        self._device = choose_device(device)
        self._spec = checkpoint.spec
        self._threshold = None if checkpoint.spec.threshold is None else checkpoint.spec.threshold.value
        self._images = images
        self._batch = batch
        self._inspect = build(checkpoint, way, self._device)
        self._is_finite = True
        self._facts: dict[str, Any] = {
            "library": "pytorch",
            "precision": way.precision(device),
            "device": torch.cuda.get_device_name(self._device) if device == "cuda" else "CPU",
            "architecture": checkpoint.spec.architecture,
            "parameters": sum(parameter.numel() for parameter in checkpoint.network.parameters()),
            "input_size": list(checkpoint.spec.input_size),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """The note says what is to be known of the figures; None if nothing is."""
        notes = []
        if self._facts["precision"] == "bf16" and not _multiplies_bf16():
            notes.append("bfloat16 is emulated: this processor does not multiply in it")
        if not self._is_finite:
            notes.append("its answers are not finite: this arithmetic is of no use for this network")
        return self._facts | {"note": "; ".join(notes) or None}

    def run(self, index: int) -> Mapping[str, float]:
        """One batch; milliseconds per picture. Before and after the network a GPU is waited for."""
        import numpy as np
        import torch

        from stlm_edge.imaging import to_input

        frames = batch_of(self._images, index, size=self._batch)
        start_s = time.perf_counter()
        batch = np.concatenate([to_input(frame, spec=self._spec) for frame in frames])
        prepared_s = time.perf_counter()
        images = torch.from_numpy(batch).to(self._device)
        uploaded_s = self._now_s()
        full, score = self._inspect(images)
        inferred_s = self._now_s()
        full.cpu()
        scores = score.cpu().numpy()
        downloaded_s = time.perf_counter()
        self._decide(scores)
        decided_s = time.perf_counter()
        self._is_finite &= bool(np.isfinite(scores).all())
        seconds = {
            "prepare": prepared_s - start_s,
            "upload": uploaded_s - prepared_s,
            "infer": inferred_s - uploaded_s,
            "download": downloaded_s - inferred_s,
            "decide": decided_s - downloaded_s,
            TOTAL: decided_s - start_s,
        }
        return {stage: 1e3 * value / self._batch for stage, value in seconds.items()}

    def _decide(self, scores: Any) -> list[bool]:
        """Of a network without a threshold, nothing."""
        return [] if self._threshold is None else [float(score) >= self._threshold for score in scores]

    def _now_s(self) -> float:
        """When the device has done what it was given."""
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _multiplies_bf16() -> bool:
    from benchmarks.environment import device

    return any(feature in _BF16_FEATURES for feature in device().features)
