"""The frame and the interface of everything that delivers frames."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from runtime.closing import Closing
from stlm_edge.imaging import Image


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture on its way through the runtime.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        index: counted by the source from 0; dropped frames and skipped pictures leave gaps.
        timestamp_s: when it was captured, on the clock of `time.monotonic`.
        source: where it came from: a path, `camera 0`, or the URI of a test source.
        label: the truth where the source knows it, `good` or the kind of defect.
    """

    image: Image
    index: int
    timestamp_s: float
    source: str
    label: str | None = None


class FrameSource(Closing):
    """Delivers frames until it ends; owns its camera, file or thread until `close`. Use as a context manager.

    Attributes:
        fps: frames per second at which the source was recorded or runs, None where it has no pace of its own.
        dropped: frames that were captured and overtaken by newer ones before anybody read them.
        skipped: pictures that could not be decoded.
    """

    fps: float | None = None
    dropped: int = 0
    skipped: int = 0

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, which the caller owns; None at the end of the stream.

        Raises:
            SourceTimeout: if a live source is open but has not delivered in time.
            SourceError: if the source has failed.
        """

    def close(self) -> None:
        """Release what the source holds; harmless when called twice."""
