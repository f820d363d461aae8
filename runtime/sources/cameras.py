"""Which camera a URI names, and how it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.sources.camera import Camera
from runtime.sources.gstreamer import open_csi, open_pipeline, with_sink
from runtime.sources.mjpeg import open_mjpeg
from runtime.sources.rtsp import open_rtsp
from runtime.sources.shape import SourceOptions
from runtime.sources.v4l2 import open_device
from stlm_edge.credentials import safe_name

_ANSWER_S = 5.0
"""How long a network camera may take to accept a connection, to start its stream, and for each frame."""


@dataclass(frozen=True)
class CameraPlace:
    """A camera that may be opened again and again.

    Attributes:
        name: for frames and messages, without credentials.
        open: connects to it. Raises `SourceError`.
        options: what remains to be done to its frames.
        takes_triggers: a command has it capture a frame.
    """

    name: str
    open: Callable[[], Camera]
    options: SourceOptions
    takes_triggers: bool = False


def find_camera(uri: str, options: SourceOptions) -> CameraPlace | None:
    """The camera that `uri` names, None if it names something else; nothing is opened."""
    name = safe_name(uri)
    scheme, _, rest = uri.partition("://")
    opening: Callable[[], Camera]
    if uri.isdecimal() or scheme == "v4l2" or uri.startswith("/dev/video"):
        device = Path(f"/dev/video{uri}") if uri.isdecimal() else Path(rest or uri)
        name = f"camera {uri}" if uri.isdecimal() else f"camera {safe_name(str(device))}"
        opening = partial(open_device, device, options, name=name)
    elif uri.startswith("gst:"):
        remedy = "try it by gst-launch-1.0 with autovideosink as its end"
        opening = partial(open_pipeline, with_sink(uri.removeprefix("gst:")), options, name=name, remedy=remedy)
    elif scheme == "csi" and rest.isdecimal():
        opening = partial(open_csi, int(rest), options, name=name)
        options = dataclasses.replace(options, rotate=0)  # the pipeline turns
    elif scheme.lower() in ("rtsp", "rtsps"):
        opening = partial(open_rtsp, uri, options, answer_s=_ANSWER_S)
    elif scheme.lower() in ("http", "https"):
        opening = partial(open_mjpeg, uri, options, answer_s=_ANSWER_S)
    else:
        return None
    return CameraPlace(name, opening, options)
