"""Cameras through GStreamer: a Jetson's CSI cameras, and pipelines that are given as they are."""

from __future__ import annotations

import re
from fractions import Fraction

import cv2

from runtime.devices import ARGUS_SOCKET
from runtime.sources.camera import Camera
from runtime.sources.shape import SourceOptions
from stlm_edge.credentials import without_credentials
from stlm_edge.errors import SourceError
from stlm_edge.imaging import silence_opencv

_FLIP_METHODS = {0: 0, 90: 3, 180: 2, 270: 1}
"""Clockwise degrees → `flip-method` of nvvidconv, which counts its turns the other way."""

_SINK = "appsink drop=true max-buffers=1 sync=false"
"""Keeps the newest picture and no other, as soon as it is there."""


def open_csi(sensor: int, options: SourceOptions, *, name: str) -> Camera:
    """Open a Jetson's camera, turned as asked. Raises `SourceError`."""
    if not ARGUS_SOCKET.is_socket():  # the pipeline would wait for ever
        raise SourceError(
            f"{name} cannot be opened: NVIDIA's camera service is not there ({ARGUS_SOCKET}), expected a Jetson; "
            "start it: sudo systemctl restart nvargus-daemon; a container needs that file too"
        )
    remedy = f"check the camera's ribbon cable, and try: nvgstcapture-1.0 --sensor-id={sensor}"
    return open_pipeline(csi_pipeline(sensor, options), options, name=name, remedy=remedy)


def csi_pipeline(sensor: int, options: SourceOptions) -> str:
    """NVIDIA's camera source for the sensor of this number, turned by the Jetson's own converter."""
    caps = ["video/x-raw(memory:NVMM)"]
    if options.size_before_turning is not None:
        height, width = options.size_before_turning
        caps += [f"width={width}", f"height={height}"]
    if options.fps is not None:
        rate = Fraction(options.fps).limit_denominator(1001)
        caps += [f"framerate={rate.numerator}/{rate.denominator}"]
    elements = [
        f"nvarguscamerasrc sensor-id={sensor}",
        ",".join(caps),
        f"nvvidconv flip-method={_FLIP_METHODS[options.rotate]}",
        "video/x-raw,format=BGRx",
        "videoconvert",
        "video/x-raw,format=BGR",
        _SINK,
    ]
    return " ! ".join(elements)


def with_sink(pipeline: str) -> str:
    """`pipeline` with an end that OpenCV reads from, unless it has one."""
    if re.search(r"\bappsink\b", pipeline):
        return pipeline
    return f"{pipeline.strip().rstrip('!').strip()} ! videoconvert ! video/x-raw,format=BGR ! {_SINK}"


def open_pipeline(pipeline: str, options: SourceOptions, *, name: str, remedy: str) -> Camera:
    """Start a pipeline that ends in an appsink.

    Args:
        remedy: what to check if it does not start.
    Raises:
        SourceError: if OpenCV has no GStreamer, or the pipeline does not start.
    """
    silence_opencv()
    name = without_credentials(name)
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            f"{name} needs GStreamer and this OpenCV ({cv2.__version__}) was built without it, as PyPI's is; use "
            "JetPack's or the distribution's (apt install python3-opencv), and see: stlm doctor"
        )
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        capture.release()
        raise SourceError(f"{name} does not start; {remedy}")
    return Camera(capture, name=name, fps=options.fps)
