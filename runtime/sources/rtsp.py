"""Network cameras that speak RTSP, through OpenCV's FFmpeg."""

from __future__ import annotations

import os
import socket

import cv2

from runtime.sources.camera import Camera
from runtime.sources.network import split_address, why_unreachable
from runtime.sources.shape import SourceOptions
from stlm_edge.credentials import safe_name
from stlm_edge.errors import SourceError
from stlm_edge.imaging import silence_opencv

_FFMPEG_OPTIONS = "rtsp_transport;tcp"
"""A lost UDP packet is a smear that looks like a defect. No more than that, since it holds for video files as well."""


def open_rtsp(uri: str, options: SourceOptions, *, answer_s: float) -> Camera:
    """Open a network camera. `OPENCV_FFMPEG_CAPTURE_OPTIONS` of the environment takes the place of our own for FFmpeg.

    A camera that changes its size without ending its stream is scaled by FFmpeg to the size that it had.

    Args:
        answer_s: how long connecting, starting the stream, and each frame may take; after that the connection counts as
            lost.
    Raises:
        SourceError: if nobody answers or what answers is no stream.
    """
    silence_opencv()
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", _FFMPEG_OPTIONS)
    name = safe_name(uri)
    _try_to_connect(uri, name=name, answer_s=answer_s)
    settings = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: int(1e3 * answer_s),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: int(1e3 * answer_s),
    }
    if hasattr(cv2, "CAP_PROP_N_THREADS"):  # the OpenCV of older distributions has not
        settings[cv2.CAP_PROP_N_THREADS] = 1  # each further thread of the decoder is a frame of delay
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, [number for pair in settings.items() for number in pair])
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"{name} cannot be opened: its host answers but sends no stream; check path, user and password in a player"
        )
    return Camera(capture, name=name, fps=options.fps, silent_s=0.99 * answer_s)


def _try_to_connect(uri: str, *, name: str, answer_s: float) -> None:
    """FFmpeg does not tell why it fails. Raises `SourceError`."""
    _, host, port = split_address(uri)
    try:
        socket.create_connection((host, port), answer_s).close()
    except OSError as error:
        problem = why_unreachable(error, host=host, port=port, waited_s=answer_s)
        raise SourceError(f"{name} cannot be opened: {problem}") from None
