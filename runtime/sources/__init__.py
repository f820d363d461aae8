"""Where frames come from, chosen by a URI."""

from __future__ import annotations

from pathlib import Path

from runtime.sources.base import Frame, FrameSource
from runtime.sources.files import PictureFolder, VideoFile
from runtime.sources.live import Camera, LiveSource
from runtime.sources.synthetic import SyntheticOptions, SyntheticParts
from stlm_edge.errors import SourceError
from stlm_edge.imaging import IMAGE_SUFFIXES

__all__ = ["Frame", "FrameSource", "open_source"]


def open_source(uri: str) -> FrameSource:
    """Open what `uri` names; the caller closes it.

    Args:
        uri: a camera's index (`0`), a video file, a picture, a folder of pictures, or `test://?fps=10&seed=1`.
            Cameras and test sources with `fps` are live: the newest frame wins. All others deliver every frame.
    Raises:
        SourceError: if there is no such source or it cannot be opened.
    """
    if uri.isdecimal():
        return LiveSource(Camera(int(uri)))
    if uri.startswith("test://"):
        options = SyntheticOptions.from_uri(uri)
        parts = SyntheticParts(options, uri=uri)
        return LiveSource(parts, interval_s=1 / options.fps) if options.fps else parts
    if "://" in uri:
        raise SourceError(f"{uri} has an unknown scheme; {_KNOWN}")
    path = Path(uri)
    if not path.exists():
        raise SourceError(f"{uri} does not exist; {_KNOWN}")
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return PictureFolder(path)
    return VideoFile(path)


_KNOWN = "known are a camera's index (0), a video file, a picture, a folder of pictures and test://"
