"""What travels from the line to its outputs: frames with their verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from runtime.anomaly import Anomaly
from runtime.sources import Frame
from runtime.sources.base import Fault
from stlm_edge.imaging import Image

__all__ = ["VERDICT_STAGES", "Fault", "FrameLatency", "Inspection"]


@dataclass(frozen=True)
class FrameLatency:
    """Where the time of one frame went, in milliseconds; the stages add up to `total_ms`.

    Attributes:
        capture_ms: from the camera's driver handing the frame over to pixels.
        wait_ms: nothing was done with it: it waited for the detector, or for the frame before it.
        prepare_ms: to the network's input.
        upload_ms, download_ms: to the GPU and back; 0 on a processor.
        infer_ms: the network.
        decide_ms: from its answer to the verdict.
        total_ms: from capture to verdict.
    """

    capture_ms: float
    wait_ms: float
    prepare_ms: float
    upload_ms: float
    infer_ms: float
    download_ms: float
    decide_ms: float
    total_ms: float


VERDICT_STAGES = tuple(field.name.removesuffix("_ms") for field in dataclasses.fields(FrameLatency))
"""The stages from the camera to the verdict, `total` last."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """A frame with its verdict, on its way to the outputs.

    Attributes:
        anomaly: None for a frame with a fault, which is not inspected.
        fault: of the frame itself.
        alarm: the part in view is anomalous, by the vote of its last frames.
        part: counted from 0.
        threshold: of the score.
        latency: up to the verdict.
        picture: draws the overlay when it is first called and hands out the same array from then on, not to be
            written to. Where nobody calls it, nothing is drawn. Outputs without pictures get None.
        engine_sha256: of the engine that judged it; None where the outputs know it from the start.
        recipe: the name of the recipe that it was judged by, None where there are none.
    """

    frame: Frame
    anomaly: Anomaly | None
    fault: Fault | None
    alarm: bool
    part: int
    threshold: float
    latency: FrameLatency
    picture: Callable[[], Image] | None
    engine_sha256: str | None = None
    recipe: str | None = None

    def without_picture(self) -> Inspection:
        """The same without pixels, so that many can wait in little memory."""
        # No pixels are left in an array of no rows; the size of the frame is the anomaly's own.
        frame = dataclasses.replace(self.frame, image=self.frame.image[:0].copy(), file=None)
        # Without the maps and regions that others have had made of it.
        anomaly = None if self.anomaly is None else dataclasses.replace(self.anomaly)
        return dataclasses.replace(self, frame=frame, anomaly=anomaly, picture=None)
