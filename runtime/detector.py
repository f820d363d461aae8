"""From a frame to a verdict."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends import BackendChoice, open_engine
from runtime.blessing import warn_unless_blessed
from runtime.closing import Closing
from runtime.regions import Region
from stlm_edge.imaging import Image, Map, resize_map, to_input
from stlm_edge.scoring import is_anomalous
from stlm_edge.sidecar import Sidecar
from stlm_edge.spec import ModelSpec, Size, Threshold

if TYPE_CHECKING:
    from runtime.backends.base import Answer, Backend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latency:
    """How long the stages of one inspection took, in milliseconds; of a batch, each frame has the times of the whole.

    Attributes:
        prepare_ms: from the frame to the network's input.
        upload_ms, download_ms: to the GPU and back; 0 on a processor.
        infer_ms: the network, with its pre- and post-processing inside the graph.
        decide_ms: from the answer to the verdict.
    """

    prepare_ms: float
    upload_ms: float
    infer_ms: float
    download_ms: float
    decide_ms: float

    @property
    def total_ms(self) -> float:
        """All of them together."""
        return self.prepare_ms + self.upload_ms + self.infer_ms + self.download_ms + self.decide_ms


@dataclass(frozen=True, eq=False)
class Anomaly:
    """What was found in one frame.

    Attributes:
        score: of the whole frame, higher is more anomalous.
        is_anomalous: the score has reached the threshold.
        network_map: (h, w) float32, as the network gives it.
        frame_size: (height, width) of the frame.
        threshold: of the score.
        regions: where the map reaches the threshold, largest peak first.
    """

    score: float
    is_anomalous: bool
    network_map: Map
    frame_size: Size
    latency: Latency
    threshold: float
    regions: tuple[Region, ...] = ()

    @cached_property
    def anomaly_map(self) -> Map:
        """(H, W) float32 in frame pixels; brought to that size when it is first asked for."""
        return resize_map(self.network_map, self.frame_size)


class Pending:
    """Frames that were submitted; `result` waits for their verdicts."""

    def __init__(self, finish: Callable[[], list[Anomaly]]) -> None:
        self._finish = finish

    def result(self) -> list[Anomaly]:
        """The anomalies in the order of the frames; to be called once. Raises `EngineError`."""
        return self._finish()


class Detector(Closing):
    """An engine with its threshold. Owns the backend until `close`; use as a context manager.

    It belongs to the thread that opened it and refuses others, since a CUDA context does too: open one in each thread.
    """

    def __init__(self, backend: Backend, *, sidecar: Sidecar, threshold: Threshold) -> None:
        self._backend = backend
        self.sidecar = sidecar
        self.threshold = threshold

    @classmethod
    def open(cls, path: str | Path, *, backend: BackendChoice = "auto", threshold: float | None = None) -> Detector:
        """Open an engine by the sidecar beside it; one that is not blessed is warned of.

        Args:
            path: a .plan, an .onnx file, or an .xml of OpenVINO.
            threshold: takes the place of the calibrated one, and is logged.
        Raises:
            EngineError, SpecError: see `runtime.backends.open_engine`.
        """
        by_hand = None if threshold is None else Threshold(value=threshold, method="manual", images=0)
        opened, sidecar = open_engine(Path(path), backend=backend)
        warn_unless_blessed(Path(path), sidecar)
        calibrated = sidecar.spec.require_threshold()
        if by_hand is not None:
            logger.info("threshold %g given by hand instead of the calibrated %g", by_hand.value, calibrated.value)
        return cls(opened, sidecar=sidecar, threshold=by_hand or calibrated)

    @property
    def spec(self) -> ModelSpec:
        """The model's specification, as its sidecar has it."""
        return self.sidecar.spec

    @property
    def max_batch(self) -> int:
        """How many frames `submit` takes at once."""
        return self.spec.max_batch

    def inspect(self, image: Image) -> Anomaly:
        """Score one picture.

        Args:
            image: (H, W, 3) uint8, BGR, of any size.
        Returns:
            The anomaly; the caller owns its map.
        Raises:
            ImageError: if `image` is not three-channel uint8.
            EngineError: if the engine fails, is closed or was opened by another thread.
        """
        return self.submit([image]).result()[0]

    def submit(self, images: Sequence[Image]) -> Pending:
        """Start with some pictures and return while the network is running; see `inspect`.

        Two calls may be in hand at a time: what the second one prepares costs no time while the first one's network
        runs. Results are asked for in the order of the calls.

        Args:
            images: 1 to `max_batch` of them; not to be written to before their result is there.
        """
        start_s = time.perf_counter()
        batch = _joined([to_input(image, spec=self.spec) for image in images])
        prepare_ms = 1e3 * (time.perf_counter() - start_s)
        ticket = self._backend.submit(batch)
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        return Pending(lambda: self._decide(ticket.result(), sizes=sizes, prepare_ms=prepare_ms))

    def close(self) -> None:
        """Release the backend; harmless when called twice."""
        self._backend.close()

    def _decide(self, answer: Answer, *, sizes: Sequence[Size], prepare_ms: float) -> list[Anomaly]:
        anomalies = []
        for index, size in enumerate(sizes):
            start_s = time.perf_counter()
            score = float(answer.scores[index])
            verdict = is_anomalous(score, self.threshold)
            latency = Latency(
                prepare_ms=prepare_ms,
                upload_ms=answer.upload_ms,
                infer_ms=answer.infer_ms,
                download_ms=answer.download_ms,
                decide_ms=1e3 * (time.perf_counter() - start_s),
            )
            anomalies.append(Anomaly(score, verdict, answer.maps[index], size, latency, self.threshold.value))
        return anomalies


def _joined(inputs: Sequence[Image]) -> Image:
    return inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
