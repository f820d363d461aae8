"""The frame and the interface of everything that delivers frames."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, Protocol

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
        file: the picture as a file, byte by byte as the camera sent it or a folder has it; None where there is none, or
            it was turned or resized since.
    """

    image: Image
    index: int
    timestamp_s: float
    source: str
    label: str | None = None
    capture_ms: float = 0.0
    fault: Fault | None = None
    counter: int | None = None
    file: bytes | None = None


class Arrivals(Protocol):
    """Whoever is to know of frames as they come, and not when they are read; is told on the source's own thread."""

    def arrived(self, frame: Frame) -> bool:
        """A frame has come. Returns whether it is wanted; else it will not be read."""
        ...

    def overrun(self, timestamp_s: float) -> None:
        """A frame was captured at this time and is gone, since too many others wait."""
        ...

    def damaged(self) -> None:
        """A frame has come that is not whole."""
        ...

    def interrupted(self) -> None:
        """The camera is lost, and what it has not delivered by now will not come."""
        ...


class FrameSource(Closing):
    """Delivers frames until it ends; owns its camera, file or thread until `close`. Use as a context manager.

    Attributes:
        fps: frames per second at which the source was recorded or runs, None where it has no pace of its own.
        is_live: frames come by themselves, and one that is not taken in time is overtaken by the next. Elsewhere each
            frame waits until it is read.
        queue: so many frames of a live source may wait, and are read in their order; None where the newest wins.
        dropped: frames that were captured and never read, since newer ones overtook them, too many waited, or nobody
            had triggered them.
        skipped: pictures that could not be decoded.
        reconnects: how often a camera that was lost came back.
    """

    fps: float | None = None
    is_live: bool = False
    queue: int | None = None
    dropped: int = 0
    skipped: int = 0
    reconnects: int = 0

    @property
    def waiting(self) -> int:
        """How many frames of a queue have not been read."""
        return 0

    @property
    def is_connected(self) -> bool:
        """Whether it can deliver; a camera that is lost cannot until it is back."""
        return True

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, which the caller owns; None at the end of the stream.

        Raises:
            SourceTimeout: if no frame came in time, or a camera was just lost; it may come later. A camera that waits
                for its trigger raises it every few seconds, since one that is silent for longer is taken to hang.
            FrameDamaged: if one came that is not whole.
            SourceError: if the source has failed for good.
        """

    def poll(self) -> Frame | None:
        """The next frame if one is there now; None says nothing about the end. Raises `SourceError`."""
        return None

    def trigger(self) -> None:
        """Have one frame captured; returns at once, or when the camera has taken the command.

        It is called on another thread than `read`, also while that waits.

        Raises:
            SourceError: if it cannot be triggered at all, or not now.
        """
        raise SourceError(
            "this source cannot be triggered by command, expected a GenICam camera, a recording or test://; give "
            "--trigger hardware where the camera is triggered by a signal, fifo where it runs free"
        )

    def listen(self, arrivals: Arrivals) -> None:
        """Have somebody told of each frame as it comes, those that wait included; only where frames have a queue."""

    def wake(self) -> None:
        """Have a `read` that waits on another thread give up as if no frame had come in time, where that can be."""

    def take_events(self) -> list[Event]:
        """What has happened to the source since this was asked last."""
        return []

    def close(self) -> None:
        """Release what the source holds; harmless when called twice."""
