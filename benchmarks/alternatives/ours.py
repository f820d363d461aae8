"""Our network beside them: in PyTorch as it was trained, and as it is deployed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.alternatives.inspecting import Facts, Verdict, stages
from stlm_edge.imaging import Image, to_input
from stlm_edge.sidecar import Sidecar, weights_of

if TYPE_CHECKING:
    from runtime.detector import Detector
    from stlm_edge.network.inference import InferencePath


def is_made_from(engine: Path, checkpoint: Path) -> bool:
    """Whether an engine has the weights of a checkpoint. Raises `SpecError`, `CheckpointError`."""
    from stlm_edge.network.checkpoint import load

    return Sidecar.read(engine).spec.weights_sha256 == load(checkpoint).spec.weights_sha256


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the toolkit's."""

    path: Path

    @contextmanager
    def open(self) -> Iterator[OpenedCheckpoint]:
        """Raises `CheckpointError`."""
        from stlm_edge.network.checkpoint import load
        from stlm_edge.network.inference import InferencePath, choose_device

        loaded = load(self.path)
        network, device = loaded.network, choose_device("auto")
        initial = loaded.config.get("initial_weights")
        facts = Facts(
            name="STLM (PyTorch)",
            library="PyTorch",
            backbone=loaded.spec.architecture,
            pretrained=None if initial in (None, "random") else str(initial),
            input_size=loaded.spec.input_size,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            model_mb=self.path.stat().st_size / 1e6,
        )
        yield OpenedCheckpoint(InferencePath(network, loaded.spec).eval().to(device), device=device, facts=facts)


class OpenedCheckpoint:
    """Our network in eager PyTorch."""

    def __init__(self, inspector: InferencePath, *, device: Any, facts: Facts) -> None:
        self._inspector = inspector
        self._device = device
        self.facts = facts

    def inspect(self, image: Image) -> Verdict:
        """Args: image: (H, W, 3) uint8, BGR, of any size."""
        import torch

        start_s = time.perf_counter()
        prepared = to_input(image, spec=self._inspector.spec)
        prepared_s = time.perf_counter()
        with torch.inference_mode():
            anomaly_map, score = self._inspector(torch.from_numpy(prepared).to(self._device))
            network_map, value = np.asarray(anomaly_map[0].cpu().numpy(), np.float32), float(score)
        return Verdict(network_map, value, stages(start_s, prepared_s, time.perf_counter()))


@dataclass(frozen=True)
class Engine:
    """An engine of the toolkit's, its sidecar beside it."""

    path: Path

    @contextmanager
    def open(self) -> Iterator[OpenedEngine]:
        """Raises `EngineError` or `SpecError`, see `runtime.detector.Detector`."""
        from runtime.detector import Detector

        with Detector.open(self.path) as detector:
            record = detector.sidecar.engine
            weights = weights_of(self.path)
            files = [self.path] if weights is None else [self.path, weights]
            facts = Facts(
                name=f"STLM ({record.product}, {record.precision})",
                library=f"{record.product} {record.version.split('-')[0]}",
                backbone=detector.spec.architecture,
                pretrained=None,
                input_size=detector.spec.input_size,
                model_mb=sum(file.stat().st_size for file in files) / 1e6,
            )
            yield OpenedEngine(detector, facts=facts)


class OpenedEngine:
    """Our network as it is deployed."""

    def __init__(self, detector: Detector, *, facts: Facts) -> None:
        self._detector = detector
        self.facts = facts

    def inspect(self, image: Image) -> Verdict:
        """Args: image: (H, W, 3) uint8, BGR, of any size."""
        anomaly = self._detector.inspect(image)
        latency = anomaly.latency
        return Verdict(
            anomaly.anomaly_map,
            anomaly.score,
            {"prepare": latency.prepare_ms, "infer": latency.total_ms - latency.prepare_ms, "total": latency.total_ms},
        )
