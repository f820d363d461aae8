"""The frame and the interface of everything that delivers frames."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from runtime.closing import Closing
from runtime.event import Event
from stlm_edge.errors import SourceError
from stlm_edge.imaging import Image

Fault = Literal["black", "over-exposed", "frozen", "incomplete"]
"""What can be wrong with a frame itself. Such a frame is neither good nor anomalous."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture on its way through the runtime.

    Attributes:
        image: (H, W, 3) uint8, BGR, or (H, W) uint8 of a grey camera.
        index: counted by the source from 0; dropped frames and skipped pictures leave gaps.
        timestamp_s: when it was captured, on the clock of `time.monotonic`: as soon as the camera's driver hands it
            over, or when its file is opened.
        source: where it came from: a path, `camera 0`, or the URI without credentials.
        label: the truth where the source knows it, `good` or the kind of defect, escaped as `stlm_edge.names` has it.
        capture_ms: from `timestamp_s` until the picture was decoded, and turned and resized where that was asked for.
        fault: that the source itself knows of: `incomplete` if packets of the picture are missing, which is black then.
        counter: the camera's own number of the picture; None where it has none.
    """

    image: Image
    index: int
    timestamp_s: float
    source: str
    label: str | None = None
    capture_ms: float = 0.0
    fault: Fault | None = None
    counter: int | None = None


class FrameSource(Closing):
    """Delivers frames until it ends; owns its camera, file or thread until `close`. Use as a context manager.

    Attributes:
        fps: frames per second at which the source was recorded or runs, None where it has no pace of its own.
        is_live: frames come by themselves, and one that is not taken in time is overtaken by the next. Elsewhere each
            frame waits until it is read.
        is_triggered: each frame was asked for by a trigger, so that none may be overtaken unnoticed, and none comes by
            itself.
        dropped: frames that were captured and overtaken by newer ones before anybody read them.
        skipped: pictures that could not be decoded.
        reconnects: how often a camera that was lost came back.
    """

    fps: float | None = None
    is_live: bool = False
    is_triggered: bool = False
    dropped: int = 0
    skipped: int = 0
    reconnects: int = 0

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, which the caller owns; None at the end of the stream.

        Raises:
            SourceTimeout: if no frame came in time, or a camera was just lost; it may come later.
            SourceError: if the source has failed for good.
        """

    def poll(self) -> Frame | None:
        """The next frame if one is there now; None says nothing about the end. Raises `SourceError`."""
        return None

    def trigger(self) -> None:
        """Have the camera take one picture, which `read` delivers; any thread may call it.

        Raises:
            SourceError: if the source is not triggered by software, or its camera does not answer at present.
        """
        raise SourceError(
            "the source cannot be triggered by software, expected a GenICam camera with trigger=software; open one, as "
            "in gige://SERIAL?trigger=software"
        )

    def take_events(self) -> list[Event]:
        """What has happened to the source since this was asked last."""
        return []

    def close(self) -> None:
        """Release what the source holds; harmless when called twice."""
