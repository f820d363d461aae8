"""What looks at a picture and answers with a map and a score: an engine, the network in PyTorch, another method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stlm_edge.imaging import Image, Map


@dataclass(frozen=True, eq=False)
class Answer:
    """To one picture.

    Attributes:
        anomaly_map: (h, w) float32 as the subject puts it out, of any size; higher is more anomalous.
        score: of the whole picture, likewise.
    """

    anomaly_map: Map
    score: float


class Inspector(Protocol):
    """Whatever can be asked about pictures, so that everything is judged and timed in one way."""

    @property
    def name(self) -> str:
        """For people and for records."""

    def inspect(self, image: Image) -> Answer:
        """
        Args:
            image: (H, W, 3) uint8, BGR.
        Raises:
            ImageError: if the picture is not of a size that it takes.
            EngineError: if it fails, or its answer is not finite.
        """
