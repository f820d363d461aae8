"""A video of the overlays, in one file or a new one every so many minutes."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

import cv2

from runtime.inspection import Inspection
from runtime.sinks.base import FrameSink, SinkContext, output_options, utc
from runtime.sinks.space import BoundedFiles, time_stamp
from runtime.uri import Option, allowed, size_in_bytes
from stlm_edge.errors import OutputError, counted
from stlm_edge.files import cannot_write, make_folder, remedy, replacing, require_room
from stlm_edge.imaging import resize
from stlm_edge.spec import Size

logger = logging.getLogger(__name__)

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}

_DEFAULT_FPS = 25.0
_DEFAULT_LIMIT = 20 * 10**9
_RESERVE_BYTES = 8 << 20
_OPTIONS = {
    "minutes": Option(allowed(float, lambda value: 0 < value <= 1440), "a number above 0, up to 1440"),
    "limit": size_in_bytes(least=10**6),
}


def open_video(uri: str, *, context: SinkContext) -> FrameSink:
    """`line.mp4`, or `line.mp4?minutes=60&limit=20GB` for segments. Raises `OutputError` on unknown options too."""
    path, options = Path(uri.partition("?")[0]), output_options(uri, _OPTIONS)
    fps = context.fps or _DEFAULT_FPS
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".trial-") as folder:
        _open_writer(Path(folder) / path.name, path=path, fps=fps, size=(64, 64)).release()
    if "minutes" in options:
        return VideoSegments(path, fps=fps, **options)
    if "limit" in options:
        raise OutputError(
            f"{uri} has a limit for one file alone; say how long a file is too, as in minutes=60&limit=20GB"
        )
    return VideoFile(path, fps=fps)


class VideoFile(FrameSink):
    """Writes the overlays as a video, which appears under its name when the sink is closed.

    The first overlay decides the size, later ones are fitted to it. The video plays every inspected frame at one pace;
    where a live source dropped frames, it runs faster than the line did. Without any frame there is no video.

    A video that is taken away while it is written, with its folder for example, is begun anew.

    A program that is killed leaves a hidden file `.<name>.<random><suffix>` behind. An .avi of that kind can be played
    but for its last half of a megabyte, which is what OpenCV keeps back, so one that is smaller is empty. An .mp4
    cannot, since its table of contents is written last.
    """

    closes_within_s: ClassVar[float] = 120.0  # Gigabytes may have to reach the disk.

    @classmethod
    def check(cls, uri: str) -> None:
        output_options(uri, _OPTIONS)

    def __init__(self, path: Path, *, fps: float) -> None:
        """Raises `OutputError` if the folder cannot be written to."""
        make_folder(path.parent)
        self._path = path
        self._fps = fps
        self._written = 0
        self._writer: cv2.VideoWriter | None = None

    def write(self, inspection: Inspection) -> None:
        assert inspection.picture is not None
        image = inspection.picture()
        if self._writer is not None and not self._temporary.exists():
            logger.warning("%s", self._give_up())
        try:
            if self._writer is None:
                self._open((image.shape[0], image.shape[1]))
            # OpenCV ignores a full disk. What is left now suffices to finish the video as far as it goes.
            require_room(self._temporary, reserve=_RESERVE_BYTES)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        assert self._writer is not None
        self._writer.write(resize(image, self._size))
        self._written += 1

    def close(self) -> None:
        if self._writer is None:
            return
        if not self._temporary.exists():
            raise self._give_up()
        writer, self._writer = self._writer, None
        try:
            # Leaving the stack gives the video its name, or removes it on an error.
            with self._replacing:
                writer.release()
                self._check_complete()
        except BaseException:
            self.lost += self._written
            raise
        finally:
            self._written = 0

    def _open(self, size: Size) -> None:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(replacing(self._path, outlives_kill=True))
            writer = _open_writer(self._temporary, path=self._path, fps=self._fps, size=size)
            self._writer, self._size, self._replacing = writer, size, stack.pop_all()

    def _give_up(self) -> OutputError:
        """Leave the unfinished file to whoever has taken it away; what is to be said of it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()
        with suppress(OutputError):
            self._replacing.close()
        count, self._written = self._written, 0
        self.lost += count
        return OutputError(
            f"{self._path} had {counted(count, 'frame')} in {self._temporary.name} beside it, which was moved or "
            "deleted; they are lost unless that file still is somewhere"
        )

    def _check_complete(self) -> None:
        """OpenCV does not report a write that failed, so the frames are counted."""
        capture = cv2.VideoCapture(str(self._temporary))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._written:
            discarded = f"{self._path} holds {found} of {self._written} frames and is discarded"
            try:
                require_room(self._temporary, reserve=_RESERVE_BYTES)
            except OSError as error:
                raise OutputError(f"{discarded} ({error.strerror or error}); {remedy(error)}") from error
            raise OutputError(f"{discarded}; free space there or choose another place")


def _open_writer(file: Path, *, path: Path, fps: float, size: Size) -> cv2.VideoWriter:
    codec = CODECS[path.suffix]
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
    if not writer.isOpened():
        raise OutputError(
            f"{path} cannot be written at {fps:g} fps, this OpenCV lacks the codec {codec}; "
            "write a .avi or .mp4, or a folder of pictures"
        )
    return writer


class VideoSegments(FrameSink):
    """Videos one after another, `line-<time of first capture, UTC>.mp4`; the oldest go when all exceed the limit."""

    closes_within_s: ClassVar[float] = VideoFile.closes_within_s

    def __init__(self, path: Path, *, fps: float, minutes: float, limit: int = _DEFAULT_LIMIT) -> None:
        """
        Args:
            minutes: a video whose first frame is that old is finished.
            limit: bytes.
        Raises:
            OutputError: if the folder cannot be written to.
        """
        make_folder(path.parent)
        self._path = path
        self._fps = fps
        self._longest_s = 60 * minutes
        self._files = BoundedFiles(path.parent, prefix=f"{path.stem}-", suffixes=[path.suffix], limit=limit)
        self._segment: VideoFile | None = None
        self._begun_s = 0.0

    def write(self, inspection: Inspection) -> None:
        captured_s = inspection.frame.timestamp_s
        if self._segment is not None and captured_s - self._begun_s >= self._longest_s:
            try:
                self._finish()
            except OutputError as error:  # of that segment; this frame belongs to the next one
                logger.error("%s", error)
        if self._segment is None:
            name = f"{self._path.stem}-{time_stamp(utc(captured_s))}{self._path.suffix}"
            self._segment_path, self._begun_s = self._path.with_name(name), captured_s
            self._segment = VideoFile(self._segment_path, fps=self._fps)
        self._segment.write(inspection)

    def close(self) -> None:
        if self._segment is not None:
            self._finish()

    def _finish(self) -> None:
        assert self._segment is not None
        segment, self._segment = self._segment, None
        try:
            segment.close()
        finally:
            self.lost += segment.lost
        if self._segment_path.exists():  # Not if its first frame failed.
            self._files.add(self._segment_path)
