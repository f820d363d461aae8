"""From a frame to a verdict."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends import BackendChoice, open_engine
from runtime.blessing import warn_unless_blessed
from runtime.closing import Closing
from stlm_edge.imaging import Image, Map, resize_map, to_input
from stlm_edge.scoring import is_anomalous
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec, Threshold

if TYPE_CHECKING:
    from runtime.backends.base import Backend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latency:
    """How long the stages of one inspection took, in milliseconds.

    Attributes:
        prepare_ms: from the frame to the network's input.
        infer_ms: the network, with its pre- and post-processing inside the graph.
        decide_ms: the verdict, and the map brought to the frame's size.
    """

    prepare_ms: float
    infer_ms: float
    decide_ms: float

    @property
    def total_ms(self) -> float:
        """The three together."""
        return self.prepare_ms + self.infer_ms + self.decide_ms


@dataclass(frozen=True, eq=False)
class Anomaly:
    """What was found in one frame.

    Attributes:
        score: of the whole frame, higher is more anomalous.
        anomaly_map: (H, W) float32 in frame pixels.
        is_anomalous: the score has reached the threshold.
    """

    score: float
    anomaly_map: Map
    is_anomalous: bool
    latency: Latency


class Detector(Closing):
    """An engine with its threshold. Owns the backend until `close`; use as a context manager."""

    def __init__(self, backend: Backend, *, sidecar: Sidecar, threshold: Threshold) -> None:
        self._backend = backend
        self.sidecar = sidecar
        self.threshold = threshold

    @classmethod
    def open(cls, path: Path, *, backend: BackendChoice = "auto", threshold: float | None = None) -> Detector:
        """Open an engine by the sidecar beside it; one that is not blessed is warned of.

        Args:
            path: an .onnx file, or an .xml of OpenVINO.
            threshold: takes the place of the calibrated one, and is logged.
        Raises:
            EngineError, SpecError: see `runtime.backends.open_engine`.
        """
        by_hand = None if threshold is None else Threshold(value=threshold, method="manual", images=0)
        opened, sidecar = open_engine(path, backend=backend)
        warn_unless_blessed(path, sidecar)
        calibrated = sidecar.spec.require_threshold()
        if by_hand is not None:
            logger.info("threshold %g given by hand instead of the calibrated %g", by_hand.value, calibrated.value)
        return cls(opened, sidecar=sidecar, threshold=by_hand or calibrated)

    @property
    def spec(self) -> ModelSpec:
        """The model's specification, as its sidecar has it."""
        return self.sidecar.spec

    def inspect(self, image: Image) -> Anomaly:
        """Score one picture.

        Args:
            image: (H, W, 3) uint8, BGR, of any size.
        Returns:
            The anomaly; the caller owns its map.
        Raises:
            ImageError: if `image` is not three-channel uint8.
            EngineError: if the engine fails or is closed.
        """
        start_s = time.perf_counter()
        batch = to_input(image, spec=self.spec)
        prepared_s = time.perf_counter()
        maps, scores = self._backend.infer(batch)
        inferred_s = time.perf_counter()
        score = float(scores[0])
        verdict = is_anomalous(score, self.threshold)
        anomaly_map = resize_map(maps[0], (image.shape[0], image.shape[1]))
        decided_s = time.perf_counter()
        latency = Latency(
            prepare_ms=1e3 * (prepared_s - start_s),
            infer_ms=1e3 * (inferred_s - prepared_s),
            decide_ms=1e3 * (decided_s - inferred_s),
        )
        return Anomaly(score, anomaly_map, verdict, latency)

    def close(self) -> None:
        """Release the backend; harmless when called twice."""
        self._backend.close()
