"""Sources that deliver every frame in order and then end: video files and folders of pictures."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import cv2
import numpy as np

from runtime.sources.base import Frame, FrameSource
from runtime.sources.camera import require_size
from stlm_edge.errors import ImageError, SourceError
from stlm_edge.folders import PICTURE_SUFFIXES, SUFFIXES, is_file, is_folder, pictures_below
from stlm_edge.imaging import read_with_file, silence_opencv
from stlm_edge.names import escaped, is_utf8

logger = logging.getLogger(__name__)


_MOST_DAMAGED = 100
"""Frames one after the other that cannot be decoded; after so many there is nothing more in a file."""


class VideoFile(FrameSource):
    """Every frame of a video file, as fast as it is asked for. A damaged one among others is counted in `skipped`."""

    def __init__(self, path: Path) -> None:
        """Raises `SourceError` if the file cannot be opened as a video."""
        if not is_utf8(path):
            raise SourceError(f"{path} has a name that is not UTF-8, which OpenCV cannot open as a video; rename it")
        silence_opencv()
        self._path = path
        self._index = 0
        self._is_over = False
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(
                f"{path} cannot be opened as a video, expected a whole .mp4 or .avi in a codec that OpenCV has; "
                f"convert it: ffmpeg -i {path.name} -c:v mjpeg {path.stem}-converted.avi"
            )
        require_size(self._capture, name=str(path))
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None
        self._announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def read(self) -> Frame | None:
        if self._is_over:
            return None
        damaged = 0
        while True:
            timestamp_s = time.monotonic()
            is_there = self._capture.grab()
            done, image = self._capture.retrieve() if is_there else (False, None)
            if done:
                break
            damaged += 1
            # FFmpeg's grab fails at a damaged frame as at the end.
            if damaged == _MOST_DAMAGED or (not is_there and self._index + damaged >= self._announced):
                self._is_over = True
                self._check_end()
                return None
        if damaged:
            self.skipped += damaged
            self._index += damaged
            logger.warning("skipped: %d damaged frames of %s before frame %d", damaged, self._path, self._index)
        capture_ms = 1e3 * (time.monotonic() - timestamp_s)
        pixels = np.asarray(image, np.uint8)
        frame = Frame(pixels, self._index, timestamp_s, str(self._path), capture_ms=capture_ms)
        self._index += 1
        return frame

    def poll(self) -> Frame | None:
        return self.read()

    def close(self) -> None:
        self._capture.release()

    def _check_end(self) -> None:
        """OpenCV tells a damaged file from a finished one only by the number of frames."""
        if self._index == 0:
            raise SourceError(
                f"{self._path} holds no frame that this OpenCV can decode; record it again, or convert it: "
                f"ffmpeg -i {self._path.name} -c:v mjpeg {self._path.stem}-converted.avi"
            )
        if self._index < self._announced:
            logger.warning("%s ended after %d of %d frames", self._path, self._index, self._announced)


class PictureFolder(FrameSource):
    """The pictures of a folder and its subfolders in the order of their paths, or a single picture.

    In the layout of MVTec AD's `test` folder, that is with a subfolder `good`, the subfolder's name is the label.
    A picture that cannot be decoded is logged by name, counted in `skipped` and passed over.
    """

    def __init__(self, path: Path) -> None:
        """Raises `SourceError` if there is no picture, `DataError` if the folder cannot be read."""
        if (path / "test" / "good").is_dir():
            raise SourceError(
                f"{path} is a whole MVTec AD category with training pictures and masks, expected its test folder; "
                f"give {path / 'test'}"
            )
        self._root = path
        if is_folder(path):
            self._pictures = pictures_below(path)
        else:
            self._pictures = [path] if path.suffix.lower() in PICTURE_SUFFIXES and is_file(path) else []
        if not self._pictures:
            raise SourceError(f"{path} holds no picture, expected one of {SUFFIXES}")
        self._labelled = (path / "good").is_dir()
        self._next = 0

    def read(self) -> Frame | None:
        while self._next < len(self._pictures):
            index, path = self._next, self._pictures[self._next]
            self._next += 1
            timestamp_s = time.monotonic()
            try:
                image, file = read_with_file(path)
            except ImageError as error:
                self.skipped += 1
                logger.warning("skipped: %s", error)
                continue
            capture_ms = 1e3 * (time.monotonic() - timestamp_s)
            return Frame(image, index, timestamp_s, str(path), self._label(path), capture_ms, file=file)
        return None

    def poll(self) -> Frame | None:
        return self.read()

    def _label(self, path: Path) -> str | None:
        inside = path.relative_to(self._root).parts
        return escaped(inside[0]) if self._labelled and len(inside) > 1 else None
