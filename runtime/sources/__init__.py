"""Where frames come from, chosen by a URI."""

from __future__ import annotations

from pathlib import Path

from runtime.sources.base import Frame, FrameSource
from runtime.sources.cameras import find_camera
from runtime.sources.files import PictureFolder, VideoFile
from runtime.sources.live import PlayedSource, TriggeredSource
from runtime.sources.live_camera import LiveCamera
from runtime.sources.shape import QUEUE, Shaped, Shaper, SourceOptions
from runtime.sources.synthetic import SyntheticOptions, SyntheticParts
from runtime.sources.watched import WatchedFolder
from stlm_edge.credentials import safe_name, without_credentials
from stlm_edge.errors import SourceError
from stlm_edge.folders import PICTURE_SUFFIXES, is_folder

__all__ = ["Frame", "FrameSource", "SourceOptions", "open_source", "place_of", "without_credentials"]

_AS_IS = SourceOptions()

_KNOWN = (
    "known are a camera's index (0), v4l2:///dev/video0, gige://SERIAL-OR-IP, u3v://SERIAL, genicam:CTI-FILE#SERIAL, "
    "csi://0, rtsp://…, http://…, https://…, gst:PIPELINE, a video file, a picture, a folder of pictures, "
    "FOLDER?watch=1 and test://"
)


def open_source(uri: str, options: SourceOptions = _AS_IS) -> FrameSource:
    """Open what `uri` names; the caller closes it.

    Cameras are live: they are read on a thread of their own, the newest frame wins, and they are opened again whenever
    they are lost. So is everything that is played at the rate of `options.fps` or `test://?fps=10`, until it ends. All
    others deliver every frame.

    Args:
        uri: one of
            `0`, `v4l2:///dev/video0`: a camera by index or device;
            `gige://SERIAL-OR-IP`, `u3v://SERIAL`, `genicam:CTI-FILE#SERIAL`: an industrial camera, with controls and
            triggers behind a question mark, see `runtime.sources.genicam.controls`;
            `csi://0`: a Jetson's camera, through NVIDIA's GStreamer elements;
            `rtsp://…`, `http://…`, `https://…`: a network camera, the latter with MJPEG;
            `gst:PIPELINE`: whatever GStreamer delivers, with an appsink appended if there is none;
            a video file, a picture, or a folder of pictures;
            `FOLDER?watch=1`: the pictures of a folder and then those that come, without end; `FOLDER?watch=new`: these
            alone;
            `test://?fps=10&seed=1`: synthetic parts.
        options: size, rate and rotation.
    Raises:
        SourceError: if there is no such source, it cannot be opened, or cannot have what `options` ask for.
    """
    camera = find_camera(uri, options)
    if camera is not None:
        if options.trigger == "software" and not camera.takes_triggers:
            raise SourceError(
                f"{camera.name} cannot be triggered by command, expected a GenICam camera; give --trigger hardware "
                "where it is triggered by a signal, fifo where it runs free"
            )
        if options.trigger in ("hardware", "software") and options.fps is not None:
            raise SourceError(
                f"{camera.name} is triggered and is to deliver {options.fps:g} frames a second at most, but a frame "
                "for each trigger is wanted; leave the rate out"
            )
        shaper = Shaper(camera.options, is_camera=True)  # outlives a connection, to know what size was before
        return LiveCamera(lambda: Shaped(camera.open(), shaper), name=camera.name, queue=options.waiting)
    if uri.startswith("test://"):
        return _synthetic(uri, options)
    if "://" in uri or not uri:
        raise SourceError(f"{safe_name(uri)} has an unknown scheme; {_KNOWN}")
    return _recorded(uri, options)


def place_of(uri: str) -> Path | None:
    """The file or folder that is read; None if `uri` names a camera, or nothing."""
    if "://" in uri or "\0" in uri or uri.startswith(("gst:", "genicam:")) or uri.isdecimal():
        return None
    try:
        return _parse_path(uri)[0]
    except SourceError:
        return None


def _synthetic(uri: str, options: SourceOptions) -> FrameSource:
    synthetic = SyntheticOptions.from_uri(uri)
    parts = SyntheticParts(synthetic, uri=uri)
    return _played(parts, options, fps=options.fps or synthetic.fps, name=uri)


def _recorded(uri: str, options: SourceOptions) -> FrameSource:
    path, watch = _parse_path(uri)
    if not _exists(path):
        raise SourceError(f"{safe_name(uri)} does not exist; {_KNOWN}")
    if watch is not None:
        if options.fps is not None:
            raise SourceError(f"{path} is watched at a rate, expected none since each new picture waits; leave it out")
        if options.trigger == "software":
            raise SourceError(f"{path} is watched, so each new picture is a trigger; give --trigger fifo, or none")
        return _played(WatchedFolder(path, only_new=watch == "new"), options, fps=None, name=str(path))
    is_pictures = is_folder(path) or path.suffix.lower() in PICTURE_SUFFIXES
    recorded = PictureFolder(path) if is_pictures else VideoFile(path)
    return _played(recorded, options, fps=options.fps, name=str(path))


def _played(source: FrameSource, options: SourceOptions, *, fps: float | None, name: str) -> FrameSource:
    if options.size is not None or options.rotate:
        source = Shaped(source, Shaper(options, is_camera=False))
    if options.trigger == "software":
        if fps is not None:
            raise SourceError(
                f"{name} is to deliver {fps:g} frames a second, expected a picture for each trigger; leave the rate out"
            )
        return TriggeredSource(source, name=name, queue=options.queue or QUEUE)
    return source if fps is None else PlayedSource(source, fps=fps, name=name, queue=options.waiting)


def _exists(path: Path) -> bool:
    """False too for what cannot be a path, as too long a name."""
    try:
        return path.exists()
    except OSError:
        return False


def _parse_path(uri: str) -> tuple[Path, str | None]:
    """A path, and what of it is to be watched. A file whose name has a question mark is taken by its name."""
    path, mark, query = uri.rpartition("?")
    if not mark or _exists(Path(uri)):
        return Path(uri), None
    name, _, value = query.partition("=")
    if name != "watch" or value not in ("1", "new"):
        raise SourceError(
            f"{safe_name(uri)} has an option that is not known; a folder takes watch=1 or watch=new, as in "
            "FOLDER?watch=1"
        )
    return Path(path), value
