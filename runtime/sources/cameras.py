"""Which camera a URI names, and how it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.sources.base import FrameSource
from runtime.sources.genicam.place import SCHEMES, genicam_camera
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
    open: Callable[[], FrameSource]
    options: SourceOptions
    takes_triggers: bool = False


def find_camera(uri: str, options: SourceOptions) -> CameraPlace | None:
    """The camera that `uri` names, None if it names something else; nothing is opened."""
    name = safe_name(uri)
    scheme, _, rest = uri.partition("://")
    opening: Callable[[], FrameSource]
    place, _, query = (rest or uri).partition("?")
    if (place.isdecimal() and not rest) or scheme == "v4l2" or uri.startswith("/dev/video"):
        device = Path(f"/dev/video{place}") if place.isdecimal() else Path(place)
        name = f"camera {place if place.isdecimal() else safe_name(place)}"
        opening = partial(open_device, device, options, name=name, query=query)
    elif uri.partition(":")[0] in SCHEMES:
        name, opening = genicam_camera(uri, options)
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
    return CameraPlace(name, opening, options, takes_triggers=uri.partition(":")[0] in SCHEMES)
