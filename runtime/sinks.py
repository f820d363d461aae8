"""Where verdicts and overlays go, chosen by a URI."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2

from runtime.closing import Closing
from runtime.detector import Anomaly
from runtime.sources import Frame
from stlm_edge.errors import OutputError
from stlm_edge.files import cannot_write, make_folder, replacing
from stlm_edge.imaging import Image, resize, write_image
from stlm_edge.spec import Size

DEFAULT_FPS = 25.0
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_RESERVE_BYTES = 8 << 20
_KNOWN = "known are display://, a video (.mp4, .avi), events (.jsonl) and a folder for pictures"


@dataclass(frozen=True, eq=False)
class Inspection:
    """An inspected frame on its way to the outputs.

    Attributes:
        picture: draws the overlay when it is first called and hands out the same array from then on, not to be
            written to. Where nobody calls it, nothing is drawn.
    """

    frame: Frame
    anomaly: Anomaly
    picture: Callable[[], Image]


class FrameSink(Closing):
    """Takes inspected frames; owns its file or window until `close`. Use as a context manager.

    Attributes:
        wants_stop: True once the person at the window has asked for the end of the run.
    """

    wants_stop: bool = False

    @abstractmethod
    def write(self, inspection: Inspection) -> None:
        """Take one frame. Raises `OutputError`."""

    @abstractmethod
    def close(self) -> None:
        """Finish the output; harmless when called twice. Raises `OutputError` if it cannot be finished."""


class Window(FrameSink):
    """Shows each overlay on the screen; `q`, Esc or closing the window asks for the end of the run."""

    _TITLE = "stlm-edge"

    def __init__(self) -> None:
        """Raises `OutputError` where there is no screen."""
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise self._no_screen("neither DISPLAY nor WAYLAND_DISPLAY is set")
        # Tried in another process first: OpenCV's Qt aborts the whole program when it cannot reach the screen.
        open_window = [sys.executable, "-c", "import cv2; cv2.namedWindow('trial')"]
        trial = subprocess.run(open_window, check=False, capture_output=True)
        if trial.returncode != 0:
            raise self._no_screen("a trial window could not be opened there")
        try:
            cv2.namedWindow(self._TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise self._no_screen(str(error)) from error

    def write(self, inspection: Inspection) -> None:
        try:
            cv2.imshow(self._TITLE, inspection.picture())
            key = cv2.waitKey(1) & 0xFF
            is_closed = cv2.getWindowProperty(self._TITLE, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise self._no_screen(str(error)) from error
        self.wants_stop = is_closed or key in (ord("q"), 27)

    def close(self) -> None:
        cv2.destroyAllWindows()

    @staticmethod
    def _no_screen(reason: str) -> OutputError:
        return OutputError(f"display:// found no screen to show a window on ({reason}); write a file: --output out.mp4")


class VideoFile(FrameSink):
    """Writes the overlays as a video, which appears under its name when the sink is closed.

    The first overlay decides the size, later ones are fitted to it. The video plays every inspected frame at one pace;
    where a live source dropped frames, it runs faster than the line did. Without any frame there is no video.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        """Raises `OutputError` if the folder cannot be written to."""
        make_folder(path.parent)
        self._path = path
        self._fps = fps
        self._written = 0
        self._writer: cv2.VideoWriter | None = None

    def write(self, inspection: Inspection) -> None:
        image = inspection.picture()
        if self._writer is None:
            self._open((image.shape[0], image.shape[1]))
        if shutil.disk_usage(self._path.parent).free < _RESERVE_BYTES:
            # OpenCV ignores a full disk. What is left now suffices to finish the video as far as it goes.
            raise cannot_write(self._path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        assert self._writer is not None
        self._writer.write(resize(image, self._size))
        self._written += 1

    def close(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        # Leaving the stack gives the video its name, or removes it on an error.
        with self._replacing:
            writer.release()
            self._check_complete()

    def _open(self, size: Size) -> None:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(replacing(self._path))
            codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix])
            writer = cv2.VideoWriter(str(self._temporary), codec, self._fps, size[::-1])
            if not writer.isOpened():
                raise OutputError(
                    f"{self._path} cannot be written at {self._fps:g} fps, this OpenCV lacks the codec "
                    f"{_CODECS[self._path.suffix]}; write a .avi or .mp4, or a folder of pictures"
                )
            self._writer, self._size, self._replacing = writer, size, stack.pop_all()

    def _check_complete(self) -> None:
        """OpenCV does not report a write that failed, so the frames are counted."""
        capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._written:
            raise OutputError(
                f"{self._path} holds {found} of {self._written} frames and is discarded; "
                "free space there or choose another place"
            )


class PictureFolder(FrameSink):
    """Writes each overlay as `<index>.jpg`; a picture of that name is replaced, others in the folder stay."""

    def __init__(self, path: Path) -> None:
        """Raises `OutputError` if the folder cannot be made or written to."""
        make_folder(path)
        self._path = path

    def write(self, inspection: Inspection) -> None:
        write_image(self._path / f"{inspection.frame.index:06d}.jpg", inspection.picture())

    def close(self) -> None:
        """Each picture is finished when it is written."""


class EventLog(FrameSink):
    """Writes one JSON object per frame and line, on disk as soon as the frame is decided; an old file is emptied.

    Keys: `time` (of capture, ISO 8601, UTC), `frame`, `source`, `score`, `threshold`, `anomalous`, `label` where the
    source knows it, `latency_ms` by stage, `engine_sha256`.
    """

    def __init__(self, path: Path, *, threshold: float, engine_sha256: str) -> None:
        """Raises `OutputError` if the file cannot be written."""
        self._path = path
        self._constants = {"threshold": threshold, "engine_sha256": engine_sha256}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, inspection: Inspection) -> None:
        frame, anomaly = inspection.frame, inspection.anomaly
        captured_s = time.time() - (time.monotonic() - frame.timestamp_s)
        event = {
            "time": datetime.fromtimestamp(captured_s, timezone.utc).isoformat(timespec="milliseconds"),
            "frame": frame.index,
            "source": frame.source,
            "score": anomaly.score,
            "anomalous": anomaly.is_anomalous,
            "latency_ms": {
                "prepare": round(anomaly.latency.prepare_ms, 3),
                "infer": round(anomaly.latency.infer_ms, 3),
                "decide": round(anomaly.latency.decide_ms, 3),
                "inspect": round(anomaly.latency.total_ms, 3),
            },
            **self._constants,
            **({} if frame.label is None else {"label": frame.label}),
        }
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise cannot_write(self._path, error) from error


def open_sink(uri: str, *, threshold: float, engine_sha256: str, fps: float | None) -> FrameSink:
    """Open what `uri` names; the caller closes it.

    Args:
        uri: `display://`, a video (`.mp4`, `.avi`), events (`.jsonl`), or a folder for pictures, made if need be.
        threshold, engine_sha256: written into each event.
        fps: pace of a video; None for a source that has none.
    Raises:
        OutputError: if there is no such output or it cannot be written to.
    """
    if uri == "display://":
        return Window()
    path = Path(uri)
    if "://" in uri:
        raise OutputError(f"{uri} has an unknown scheme; {_KNOWN}")
    if path.is_dir() or not path.suffix:
        return PictureFolder(path)
    if path.suffix in _CODECS:
        return VideoFile(path, fps=fps or DEFAULT_FPS)
    if path.suffix == ".jsonl":
        return EventLog(path, threshold=threshold, engine_sha256=engine_sha256)
    raise OutputError(f"{uri} has the unknown suffix {path.suffix!r}; {_KNOWN}")
